"""Fuzz what builds read from strangers: python -m tests.unit.containerfile.fuzz containerfiles|archives SECONDS [SEED].

Every input must be taken or refused with an error of Bulkhead's own, and within a second. What is not is written to the
current directory, and ends the run.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bulkhead.containerfile import stages
from bulkhead.containerfile.instructions import Copy, Pairs, Run
from bulkhead.containerfile.patterns import Pattern
from bulkhead.containerfile.words import expand, expand_document
from bulkhead.engine.builds import configuring
from bulkhead.engine.builds.commanding import invocation
from bulkhead.engine.builds.placing import Manner, Placement
from bulkhead.engine.builds.selecting import choose, digest
from bulkhead.engine.builds.state import StageState
from bulkhead.errors import BulkheadError
from bulkhead.images import ImageStore
from bulkhead.images.bounds import Bounds
from bulkhead.images.view import View, components
from tests.unit.images.lab import entry, folder, hardlink, make_tar, symlink

PATIENCE = 5.0
"""Seconds for one input, on a busy host."""
SEEDS = (
    b"ARG A=1\nFROM a:$A AS b\nRUN --mount=type=cache,target=/x,sharing=locked --network=none echo <<EOF\n1\nEOF\n",
    b"FROM a\nRUN cat <<A <<-'B' > /x && \\\n # comment\n\n true\n$x\nA\n\t2\nB\nCOPY <<C /x\n'$y\nC\n",
    b"# escape=`\nFROM scratch\nCOPY --from=b --chown=1:2 --chmod=755 --exclude=*.x ['a', \"b\"] /c/\n",
    b'FROM a\nENV A=1 B="two words" C=x\\ y D=\'$z\'\nENV E ${A:-${B:+$C}} ${D##*a} ${D/a/b}\nLABEL a.b=c "d e"=f\n',
    b"FROM a\nHEALTHCHECK --interval=1m30s --retries=3 CMD curl x || exit 1\nEXPOSE 80 90-99/udp $P\n",
    b'FROM a\nONBUILD COPY . /x\nSHELL ["/bin/sh", "-c"]\nUSER a:b\nWORKDIR $x/y\nVOLUME ["/a"] /b\n',
    b'FROM a\nSTOPSIGNAL SIGINT\nCMD ["a"\nENTRYPOINT x\nCOPY ["a", "b"]\n',
    b"FROM a\nRUN --mount=type=secret,id=a,required --mount=from=b,source=/,target=/m,ro cmd\n",
)
WORDS = (b"\\", b"\n", b"<<EOF", b"\nEOF\n", b"${", b"}", b"'", b'"', b"--mount=", b"type=bind,", b"[", b"]", b"*" * 9)
WORDS += (b"FROM ", b"COPY --from=0 ", b"$$", b"\0", b"\xff", b" AS ", b"ONBUILD ", b"`", b"\r\n", b"://", b"..", b"*/")
TARS = (
    make_tar(folder("a"), entry("a/b", b"data"), symlink("a/l", "../../x"), hardlink("a/h", "a/b")),
    make_tar(entry("x" * 200, b"y", pax={"SCHILY.xattr.user.a": "b"}), symlink("etc", "/usr"), entry("etc/x", b"z")),
    make_tar(entry(".wh.x"), folder("d/.wh.y"), entry("../up", b"1"), entry("/abs", b"2")),
)


def mutate(data: bytes, pick: random.Random, words: tuple[bytes, ...]) -> bytes:
    """Some changes anywhere."""
    out = bytearray(data)
    for _ in range(pick.randint(1, 8)):
        at = pick.randrange(len(out) + 1)
        match pick.randrange(6):
            case 0:
                out[at:at] = pick.choice(words)
            case 1:
                del out[at : at + pick.randint(1, 20)]
            case 2:
                out[at : at + 1] = bytes([pick.randrange(256)])
            case 3:
                begin = pick.randrange(len(out) + 1)
                out[at:at] = out[begin : begin + pick.randint(1, 60)]
            case 4:
                out[at:at] = bytes(out[at : at + 4]) * pick.randint(1, 50)
            case 5 if out:
                place = min(at, len(out) - 1)
                out[place] ^= 1 << pick.randrange(8)
    return bytes(out)


def read_containerfile(data: bytes) -> None:
    """Everything that is done with a Containerfile before and between its steps."""
    plan = stages.plan(data, given={"A": "given", "P": "1-2"})
    for stage in plan.stages:
        state = StageState()
        for step in stage.steps:
            try:
                state = _carry_out(state, step, plan)
            except ValueError:
                continue


def _carry_out(state: StageState, step: object, plan: stages.Plan) -> StageState:
    if isinstance(step, Run):
        invocation(step, state)
        return state
    if isinstance(step, Copy):
        for source in step.sources:
            Pattern(expand(source, state.variables, plan.escape)).matches(["a" * 200] * 50)
        for document in step.heredocs:
            expand_document(document.text, state.variables, plan.escape)
        return state
    if isinstance(step, Pairs) and step.line.keyword == "ARG":
        return configuring.declare(state, step, {}, plan.arguments, plan.escape)
    if configuring.is_configuring(step):  # type: ignore[arg-type]
        return configuring.configure(state, step, plan.escape)  # type: ignore[arg-type]
    return state


def read_archive(store: ImageStore) -> Callable[[bytes], None]:
    """A tar as a context, what is in it copied to an image, and the same tar unpacked by ADD."""
    manner = Manner(owner=None, keep_owners=False, mode=None, latest=0, clamp=True, unpack=True)
    bounds = Bounds(keep_free=0, total=64 << 20, entries=10_000)

    def read(data: bytes) -> None:
        with ExitStack() as always:
            for tar in (data, make_tar(entry("in.tar", data))):
                path = always.enter_context(store.workshop.context(iter([tar])))
                view = View([always.enter_context(path.open("rb")).fileno()])
                sources = choose(view, "*", what="the context")
                digest(sources, owners=True)
                placement = Placement(view, manner)
                placement.place(sources, components("/opt/x"), is_directory=True)
                with store.workshop.make("sha256:" + "0" * 64, placement.layer(bounds), (), 0.0):
                    pass

    return read


def run(read: Callable[[bytes], None], seeds: tuple[bytes, ...], seconds: float, seed: int) -> int:
    """Feed it until the time is over; how many inputs there were."""
    pick = random.Random(seed)
    pool, count, end = list(seeds), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(pick.choice(pool), pick, WORDS)
        began = time.monotonic()
        try:
            read(data)
            if len(pool) < 200 and len(data) < 20_000:
                pool.append(data)
        except BulkheadError:
            pass
        except BaseException:
            Path("fuzz-failure").write_bytes(data)
            raise
        took = time.monotonic() - began
        if took > PATIENCE:
            Path("fuzz-failure").write_bytes(data)
            raise TimeoutError(f"one input took {took:.1f} s")
        count += 1
    return count


def containerfiles(seconds: float, seed: int) -> int:
    """Fuzz the parser."""
    return run(read_containerfile, SEEDS, seconds, seed)


def archives(seconds: float, seed: int) -> int:
    """Fuzz contexts and what ADD unpacks."""
    with tempfile.TemporaryDirectory() as directory:
        store = ImageStore(Path(directory) / "images", Path(directory) / "cache", bounds=Bounds(keep_free=0))
        return run(read_archive(store), TARS, seconds, seed)


if __name__ == "__main__":
    chosen = {"containerfiles": containerfiles, "archives": archives}[sys.argv[1]]
    start = int(sys.argv[3]) if len(sys.argv) > 3 else int.from_bytes(os.urandom(4), "big")
    print(f"seed {start}: {chosen(float(sys.argv[2]), start)} inputs")  # noqa: T201 - a program
