"""One stage: its base, then its steps, each from a state to the next; what was made before is not made again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

from bulkhead.containerfile import lines, syntax
from bulkhead.containerfile.instructions import Copy, Instruction, Mount, Pairs, Run, Words
from bulkhead.containerfile.stages import SCRATCH, Stage, find_stage
from bulkhead.containerfile.words import expand, expand_document
from bulkhead.engine.builds import configuring, mounting
from bulkhead.engine.builds.commanding import Invocation, invocation
from bulkhead.engine.builds.order import Told
from bulkhead.engine.builds.placing import Manner, Placement, owner_of
from bulkhead.engine.builds.running import Job, Ran
from bulkhead.engine.builds.selecting import Chosen, Text, choose, digest
from bulkhead.engine.builds.shared import Build
from bulkhead.engine.builds.state import StageState
from bulkhead.engine.faults import checkpoint
from bulkhead.errors import AgentError, BuildFailed, ImageError, NotFound, Refused
from bulkhead.images import Image, Layer
from bulkhead.images.rootfs import host_architecture
from bulkhead.images.steps import Made
from bulkhead.images.view import View, components
from bulkhead.images.workshop import Product
from bulkhead.storage import difference

NAMES = (b"etc/resolv.conf", b"etc/hosts", b"etc/hostname")
"""What tells an instance where it is: of no concern to an image."""
NO_IMAGE = "sha256:" + "0" * 64


class StageWork:
    """Carries out one stage."""

    def __init__(self, build: Build, stage: Stage) -> None:
        self._build = build
        self._stage = stage
        self._escape = build.containerfile.escape
        self._shown = stage.name or (stage.shown if len(build.containerfile.stages) > 1 else "")
        self._total = 1 + len(stage.steps)
        self._done = 0
        self._number = 0
        self._began = 0.0
        self._line = stage.start.line.number

    def run(self) -> StageState:
        """All of it. Raises BuildFailed, Refused and ImageError with the line that failed."""
        state, triggers = self._begin()
        self._total += len(triggers)
        for step in (*triggers, *self._stage.steps):
            if not self._build.alive():
                raise BrokenPipeError("nobody waits for the build any more")
            try:
                state = self._step(state, step)
            except ValueError as error:
                raise Refused(f"line {step.line.number}: {step.line.keyword}: {error}") from error
            except (Refused, NotFound, ImageError) as error:
                raise type(error)(f"line {step.line.number}: {error.what}", hint=error.hint) from error
        return state

    def _begin(self) -> tuple[StageState, Sequence[Instruction]]:
        stage, build = self._stage, self._build
        self._announce(f"FROM {stage.base}")
        if stage.base_stage is not None:
            state = replace(build.results[stage.base_stage], arguments={}, own_command=False)
            triggers, state = state.onbuild, replace(state, onbuild=())
        elif stage.base.lower() == SCRATCH:
            state, triggers = StageState(architecture=host_architecture(), image_digest=NO_IMAGE), ()
        else:
            base = build.bases[stage.base]
            image, triggers = base.image, base.onbuild
            state = StageState(
                layers=base.layers,
                config=image.config,
                history=base.history,
                architecture=image.architecture,
                image_digest=image.digest,
                created=image.created or 0.0,
            )
        self._finished("done")
        return state, [step for text in triggers for step in self._trigger(text)]

    def _trigger(self, text: str) -> list[Instruction]:
        read = lines.read(text.encode())
        return syntax.parse_all(read.lines, read.escape)

    # --- steps

    def _step(self, state: StageState, step: Instruction) -> StageState:
        self._line = step.line.number
        self._announce(step.line.shown)
        if isinstance(step, Copy):
            state = self._copy(state, step)
        elif isinstance(step, Run):
            state = self._run(state, step)
        elif isinstance(step, Words) and step.line.keyword == "WORKDIR":
            state = self._workdir(state, step)
        elif isinstance(step, Pairs) and step.line.keyword == "ARG":
            given = self._build.arguments
            state = configuring.declare(state, step, given, self._build.containerfile.arguments, self._escape)
            self._finished("done")
        else:
            state = configuring.configure(state, step, self._escape)
            self._finished("done")
        return state

    def _workdir(self, state: StageState, step: Words) -> StageState:
        wanted = expand(step.words[0], state.variables, self._escape)
        if not wanted:
            raise ValueError("it comes to nothing")
        path = os.path.normpath(os.path.join(state.workdir, wanted))  # noqa: PTH118 - in the image
        path = "/" + path.lstrip("/")
        config = replace(state.config, workdir=path)
        root = self._build.views.of(state.layers)
        parts, found = root.resolve(components(path))
        if found is not None or not parts:
            self._finished("done")
            return state.with_config(config, f"WORKDIR {path}")
        identity = state.step("workdir", path, self._build.epoch)

        def chunks() -> Iterator[bytes]:
            placement = Placement(root, self._manner(owner=(0, 0)))
            placement.directory(parts)
            return placement.layer(self._build.workshop.layout.bounds)

        made = self._made(state, identity, chunks)
        return replace(state.with_layer(made, f"WORKDIR {path}"), config=config)

    def _copy(self, state: StageState, step: Copy) -> StageState:
        variables = state.variables
        target = expand(step.target, variables, self._escape)
        sources = self._sources(state, step)
        chown, chmod = expand(step.chown, variables, self._escape), expand(step.chmod, variables, self._escape)
        if chmod and not _is_octal(chmod):
            raise ValueError(f"--chmod={chmod} is not octal, such as 755")
        what = digest(sources, owners=bool(step.origin))
        where = os.path.join(state.workdir, target)  # noqa: PTH118 - in the image
        said = (where, what, chown, chmod, step.unpack, step.link, self._build.epoch)
        identity = state.step("copy", *said)

        def chunks() -> Iterator[bytes]:
            root = self._build.views.of(state.layers)
            owner = owner_of(chown, root) if chown else None
            mode = int(chmod, 8) if chmod else None
            manner = self._manner(owner=owner, mode=mode, keep_owners=bool(step.origin), unpack=step.unpack)
            placement = Placement(View([]) if step.link else root, manner)
            directories = any(isinstance(source, Chosen) and source.is_directory for source in sources)
            into = target.endswith(("/", "/.", "/..")) or target in (".", "..") or directories
            placement.place(sources, components(where), is_directory=into)
            return placement.layer(self._build.workshop.layout.bounds)

        made = self._made(state, identity, chunks)
        return state.with_layer(made, f"{step.line.keyword} {step.line.rest}")

    def _sources(self, state: StageState, step: Copy) -> list[Chosen | Text]:
        found: list[Chosen | Text] = []
        documents = list(step.heredocs)
        for source in step.sources:
            if documents and source.startswith("<<"):
                document = documents.pop(0)
                text = document.text
                if document.expand:
                    text = expand_document(text, state.variables, self._escape)
                found.append(Text(os.fsencode(document.name), text.encode()))
                continue
            path = expand(source, state.variables, self._escape)
            view, what = self._view(step.origin)
            found += choose(view, path, what=what, exclude=step.exclude)
        return found

    def _view(self, origin: str) -> tuple[View, str]:
        """Where files come from, and what that is called."""
        build = self._build
        if not origin:
            if build.files is None:
                raise Refused("there is no context")
            return build.files, "the context"
        stage = find_stage([each for each in build.containerfile.stages if each.number < self._stage.number], origin)
        if stage is not None:
            return build.views.of(build.results[stage.number].layers), f"stage {stage.shown}"
        return build.views.of(build.image(origin).layers), f"image {origin}"

    def _manner(
        self,
        *,
        owner: tuple[int, int] | None,
        mode: int | None = None,
        keep_owners: bool = False,
        unpack: bool = False,
    ) -> Manner:
        build = self._build
        return Manner(owner, keep_owners, mode, int(build.time), build.epoch is not None, unpack)

    # --- RUN

    def _run(self, state: StageState, step: Run) -> StageState:
        build = self._build
        command = invocation(step, state)
        network = {"": build.network, "default": build.network}.get(step.network, step.network)
        mounts = [mounting.expanded(mount, state.variables, self._escape) for mount in step.mounts]
        sources = [self._bound(mount) for mount in mounts if mount.kind == "bind"]
        epoch = {} if build.epoch is None else {"SOURCE_DATE_EPOCH": str(build.epoch)}
        told = state.command_environment(epoch)
        said = (command.argv, sorted(command.scripts.items()), told, state.config.user, state.workdir, network)
        identity = state.step(
            "run", *said, repr(mounts), [digest([source], owners=True) for source in sources], build.epoch
        )
        known = self._known(identity)
        if known is None:
            job = Job(
                image=self._image(state),
                argv=command.argv,
                env=state.command_environment(build.order.proxies, epoch),
                user=state.config.user,
                workdir=state.workdir,
                isolation=build.order.isolation,
                network=network,
                plan=build.plan,
            )
            with mounting.mounted(build, state, mounts, sources, command.scripts) as places:
                job = replace(job, mounts=places.mounts, scratch=places.scratch)
                known = self._execute(state, job, command, identity, places.targets)
        return state.with_layer(known, command.shown)

    def _bound(self, mount: Mount) -> Chosen:
        view, what = self._view(mount.origin)
        return choose(view, mount.source or "/", what=what)[0]

    def _execute(self, state: StageState, job: Job, command: Invocation, identity: str, targets: Sequence[str]) -> Made:
        build = self._build
        try:
            with build.runner.run(job, self._output, build.alive) as ran:
                if ran.upper is None:
                    self._failed(state, job, ran)
                chunks = difference.layer(
                    ran.upper,
                    latest=build.epoch,
                    stubs=mounting.stubs(build.views.of(state.layers), targets),
                    without=NAMES,
                    most=build.workshop.layout.bounds.total,
                )
                return self._make(state, identity, chunks)
        except AgentError as error:
            what = f"line {self._line}: {command.shown.splitlines()[0][:200]}: {error.what}"
            raise BuildFailed(what, hint=error.hint) from error

    def _failed(self, state: StageState, job: Job, ran: Ran) -> NoReturn:
        """Tell which step it was, with an image of the state before where that is wanted."""
        build, code = self._build, ran.exit.code
        before = self._keep(state) if build.order.keep_failed else ""
        run = {
            "env": list(job.env),
            "user": job.user,
            "workdir": job.workdir,
            "network": job.network,
            "isolation": str(job.isolation),
        }
        seconds = time.monotonic() - self._began
        build.tell(Told("failed", self._number, self._shown, "", "", seconds, code, before, run))
        why = "was out of memory" if ran.exit.oom else f"ended with code {code}"
        look = "`bulkhead build --on-failure shell` opens a shell in the state before it"
        hint = "give it more --memory" if ran.exit.oom else look
        raise BuildFailed(f"line {self._line}: RUN {why}", hint=hint)

    def _keep(self, state: StageState) -> str:
        product = Product(
            layers=state.layers,
            config=replace(state.config, entrypoint=(), cmd=(state.shell[0],)),
            onbuild=(),
            history=state.history,
            architecture=state.architecture,
            created=self._build.time,
        )
        return self._build.workshop.finish(product, ())

    def _image(self, state: StageState) -> Image:
        layout = self._build.workshop.layout
        return Image(
            digest=state.image_digest,
            references=(self._stage.base,),
            architecture=state.architecture,
            created=None,
            size=0,
            config=state.config,
            layers=tuple(Layer(made.key, layout.erofs_path(made.key), 0) for made in state.layers),
        )

    # --- layers

    def _known(self, identity: str) -> Made | None:
        """What the step made before, held."""
        build = self._build
        if build.order.no_cache:
            return None
        made = build.hold.step(lambda: build.workshop.find(identity), lambda found: found.key)
        if made is not None:
            self._finished("cached")
        return made

    def _made(self, state: StageState, identity: str, chunks: Callable[[], Iterable[bytes]]) -> Made:
        """The layer of a step, from the cache or made now."""
        known = self._known(identity)
        if known is not None:
            return known
        return self._make(state, identity, chunks())

    def _make(self, state: StageState, identity: str, chunks: Iterable[bytes]) -> Made:
        build = self._build
        with build.workshop.make(identity, chunks, state.layers, build.time) as made:
            build.hold.layer(made.key)
            checkpoint("build.layer")
        checkpoint("build.step")
        self._finished("done")
        return made

    # --- telling

    def _announce(self, text: str) -> None:
        self._number, self._began = self._build.number(), time.monotonic()
        self._done += 1
        place = f"{self._done}/{self._total}"
        self._build.tell(Told("begin", self._number, self._shown, place, text))

    def _finished(self, kind: str) -> None:
        seconds = time.monotonic() - self._began
        told = Told("cached" if kind == "cached" else "done", self._number, self._shown, seconds=seconds)
        self._build.tell(told)

    def _output(self, data: bytes) -> None:
        text = data.decode(errors="replace")
        self._build.tell(Told("output", self._number, self._shown, text=text))


def _is_octal(text: str) -> bool:
    return len(text) <= 5 and text.isdecimal() and not set(text) - set("01234567")
