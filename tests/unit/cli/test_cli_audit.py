"""`bulkhead audit`: what it asks for, and reports as text. `UPDATE_GOLDEN=1 pytest ...` writes golden files anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bulkhead.audit.assessing import assess
from bulkhead.audit.facts import CALLS
from bulkhead.audit.outside import HostPath
from bulkhead.cli import audited
from tests.unit.api.fakes import FakeEngine
from tests.unit.audit.lab import OPEN, calls, container, gathered, line, process, report
from tests.unit.cli.conftest import Cli

GOLDEN = Path(__file__).parents[2] / "golden" / "audit"


def compare(name: str, text: str) -> None:
    """With the golden file of that name."""
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def reports() -> list[dict[str, Any]]:
    """A container that leaves something open, a machine, and one that nothing can look into."""
    reference = {"x86_64": dict.fromkeys(range(CALLS), OPEN)}
    loose = process(
        host_paths=(HostPath(target="/srv|x", source="/home/me", read_only=False),),
        bounding=("CAP_CHOWN", "CAP_NET_RAW"),
        no_new_privs=False,
    )
    facts = [line("attempt", name="io_uring", result=0), line("attempt", name="userns_clone", result=38)]
    open_one = gathered(container(*facts, results={0: 9, 1: 14, 103: 1}), of=loose, reference=reference)
    jail = process(program="/usr/bin/qemu", bounding=(), effective=(), open_files=("/run/vm/disk",))
    machine = gathered(report(calls(usual=OPEN), line("attempt", name="bpf_map", result=0)), hypervisor=jail)
    closed = gathered(None, hypervisor=jail, level="unikernel", notes=("nobody in it can run a program",))
    return [assess(each).model_dump(mode="json") for each in (open_one, machine, closed)]


@pytest.mark.parametrize("form", ["txt", "md"])
def test_golden(form: str) -> None:
    tell = audited.table if form == "txt" else audited.markdown
    compare(f"container.{form}", tell(reports()[:1]))
    compare(f"levels.{form}", tell(reports()))


def test_nothing_of_an_instances_acts_on_a_terminal_or_a_page() -> None:
    (found, *_) = reports()
    found["instance"] = "web\x1b[2J"
    found["process"]["program"] = "/bin/<script>|x`y`"
    text, page = audited.table([found]), audited.markdown([found])
    assert "\x1b" not in text + page
    assert "<script>" not in page.replace("\\<script\\>", "") and "/bin/\\<script\\>\\|x\\`y\\`" in page


def test_an_instance(cli: Cli, engine: FakeEngine) -> None:
    cli("create", "--name", "web", "debian:bookworm", "sleep", "1")
    done = cli("audit", "web")
    assert (done.code, engine.calls[-1]) == (0, ("audit", "web"))
    assert "score        85 of 100" in done.out and "io_uring can be used" in done.out
    told = json.loads(cli("audit", "--format", "json", "web").out)
    assert told["instance"] == "web" and told["score"] == 85
    assert cli("audit", "--format", "markdown", "web").out.startswith("## container\n")


def test_a_level_and_all_of_them(cli: Cli, engine: FakeEngine) -> None:
    assert cli("audit", "--level", "chroot", "--image", "busybox").code == 0
    assert engine.calls[-1] == ("audit_level", "chroot", "busybox")
    missing = cli("audit", "--level", "unikernel")
    assert missing.code == 125 and "no image that a unikernel" in missing.err
    several = cli("audit", "--all-levels", "--format", "json")
    assert several.code == 0 and "unikernel" in several.err
    assert [each["level"] for each in json.loads(several.out)] == ["chroot", "container"]
    assert "vm: does not work here" in several.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "say one of"),
        (("web", "--level", "vm"), "one thing at a time"),
        (("--level", "jail"), "'jail' is no such level"),
        (("--image", "debian", "web"), "says nothing of an instance"),
        (("missing",), "missing"),
    ],
)
def test_what_is_refused(cli: Cli, words: tuple[str, ...], says: str) -> None:
    done = cli("audit", *words)
    assert (done.code, done.out) == (125, "") and says in done.err


def test_every_mistake_is_told_at_once(cli: Cli) -> None:
    done = cli("audit", "--level", "jail", "--image", "debian", "web")
    assert done.err.count("hint:") >= 1 and "jail" in done.err and "one thing at a time" in done.err
