"""A RUN: an instance of its own for one command, with the layers so far below a blank disk; what it has written."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bulkhead.agent import frames
from bulkhead.agent.explain import explain
from bulkhead.agent.frames import AttachFlag, Frame, Type, Window
from bulkhead.agent.session import Session
from bulkhead.engine import bundles
from bulkhead.engine.builds.order import Alive
from bulkhead.engine.carrying import Carrier
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import BulkheadError, HostError, NotFound, Problem, Unavailable
from bulkhead.events import quiet
from bulkhead.images import Image
from bulkhead.model import Exit, Isolation, Mount, Plan, Scratch, Spec

POLL_SECONDS = 0.5
GIVE_BACK = 1 << 16
Output = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One command."""

    image: Image
    """Its layers are the root's; the rest says what it is called."""
    argv: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    workdir: str
    isolation: Isolation
    network: str
    plan: Plan
    mounts: tuple[Mount, ...] = ()
    scratch: tuple[Scratch, ...] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended. `upper` is its overlay's upper directory while it lasts."""

    exit: Exit
    upper: Path | None


class Runner:
    """Runs commands of builds. Thread-safe."""

    def __init__(self, context: Context, lifecycle: Lifecycle, *, tenant: str) -> None:
        self._tenant = tenant
        self._context = context
        self._lifecycle = lifecycle
        self._carrier = Carrier(context, lifecycle.resources)

    def problems(self, job: Job) -> list[Problem]:
        """Everything that this host cannot do for such a command."""
        spec = self._spec(job)
        return self._context.driver_of(spec).check(spec)

    @contextmanager
    def run(self, job: Job, output: Output, alive: Alive) -> Iterator[Ran]:
        """Run one to its end; all of it is gone when the block ends.

        Raises AgentError where it cannot be executed, BrokenPipeError where nobody waits for it any more.
        """
        spec = self._spec(job)
        with ExitStack() as always:
            instance = self._lifecycle.create(spec, job.image)
            always.callback(self._delete, spec.id)
            checkpoint("build.created")
            listener = _Listener(output, alive)
            always.callback(listener.close)
            self._lifecycle.start(instance, on_launch=listener.attach)
            checkpoint("build.running")
            listener.listen()
            checkpoint("build.ended")
            ended = self._exit(spec.id)
            upper = None if ended.code else self._upper(spec.id, always)
            always.callback(self._finish, spec.id)
            yield Ran(ended, upper)

    def _exit(self, instance_id: str) -> Exit:
        """How it ended. Nothing is released yet: what it has written is read where it is, before it is on any disk."""
        context, bundle = self._context, self._context.bundle_dir(instance_id)
        instance, handle = context.state.get(instance_id), bundles.read_handle(bundle)
        found = context.driver(instance).inspect(bundle, handle) if handle else None
        if found is None or found.exit is None:
            raise HostError(f"{instance.spec.name} ended without a trace")
        return found.exit

    def _upper(self, instance_id: str, always: ExitStack) -> Path:
        """What it has changed; where a guest's kernel has written that, a copy which the host has made."""
        if self._context.state.get(instance_id).spec.isolation is Isolation.VM:
            self._lifecycle.finish(instance_id)
            return always.enter_context(self._carrier.copied(self._context.state.get(instance_id), quiet))
        disk = self._context.disks.attach(instance_id, self._context.bundle_dir(instance_id) / bundles.DISK)
        return disk / "upper"

    def _finish(self, instance_id: str) -> None:
        """Let go of what it held; its data is of no more use."""
        with suppress(NotFound):
            self._context.disks.abandon(instance_id)
            self._lifecycle.finish(instance_id)

    def _spec(self, job: Job) -> Spec:
        identifier = secrets.token_hex(16)
        own_name = job.isolation is not Isolation.CHROOT
        return Spec(
            id=identifier,
            name=f"build-{identifier[:12]}",
            tenant=self._tenant,
            image=job.image.references[0] if job.image.references else job.image.digest,
            image_digest=job.image.digest,
            architecture=job.image.architecture,
            isolation=job.isolation,
            plan=job.plan,
            argv=job.argv,
            env=job.env,
            workdir=job.workdir,
            user=job.user,
            hostname="build" if own_name else identifier[:12],
            network=job.network,
            mounts=job.mounts,
            scratch=job.scratch,
            build=True,
            created=time.time(),
        )

    def _delete(self, instance_id: str) -> None:
        with suppress(NotFound):
            self._lifecycle.delete(self._context.state.get(instance_id), force=True)


class _Listener:
    """Takes the output of a workload from before its start on, until it ends."""

    def __init__(self, output: Output, alive: Alive) -> None:
        self._output = output
        self._alive = alive
        self._session: Session | None = None
        self._stream = 0
        self._windows = {channel: Window() for channel in (frames.Channel.STDOUT, frames.Channel.STDERR)}

    def attach(self, agent: Path) -> None:
        """Before the start: see to it that nothing is missed."""
        self._session = session = Session.connect(agent)
        self._stream = session.open(Type.ATTACH, int(AttachFlag.OUTPUT).to_bytes(4, "little"))
        answer = session.answer(self._stream, 10.0)
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), ())

    def listen(self) -> None:
        """Until the end."""
        assert self._session is not None
        while True:
            try:
                frame = self._session.next(self._stream, POLL_SECONDS)
            except TimeoutError:
                self._check()
                continue
            except Unavailable:
                return  # the engine finds out what became of it
            if frame.type is Type.EXIT:
                return
            if frame.type is Type.DATA:
                self._take(self._session, frame)

    def _take(self, session: Session, frame: Frame) -> None:
        channel = frames.Channel(frame.channel)
        if channel is frames.Channel.STDIN:
            raise frames.ProtocolError("the agent sent output on the channel of the input")
        window = self._windows[channel]
        window.spend(len(frame.payload))
        self._check()
        self._output(frame.payload)
        used = frames.CREDIT - window.left
        if used >= GIVE_BACK:
            window.refill(used)
            session.send(Frame(Type.CREDIT, self._stream, used.to_bytes(4, "little"), channel))

    def _check(self) -> None:
        if not self._alive():
            raise BrokenPipeError("nobody waits for the build any more")

    def close(self) -> None:
        """Give the connection up."""
        if self._session:
            with suppress(BulkheadError):
                self._session.close()


def shown_words(words: Sequence[str]) -> str:
    """A command for messages."""
    text = " ".join(words)
    return text if len(text) <= 200 else f"{text[:197]}..."
