"""Copying files into and out of instances, running or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from bulkhead.agent import copying
from bulkhead.agent.files import Files
from bulkhead.engine import snapshotting
from bulkhead.engine.context import Context
from bulkhead.engine.holding import file_session, held
from bulkhead.engine.resources import Resources
from bulkhead.errors import Conflict, Refused
from bulkhead.model import Instance, State

_HINTS = {State.PAUSED: "unpause it first: its files are reached by a process of its own"}


class Copier:
    """Opens a file session of the agent: of the one that runs the workload, or of one that only holds the root."""

    def __init__(self, context: Context, resources: Resources) -> None:
        self._context = context
        self._resources = resources

    def copy_out(self, instance: Instance, path: str) -> Iterator[bytes]:
        """A tar archive of `path`, in portions."""
        with self._files(instance) as files:
            yield from copying.copy_out(files, path)

    def copy_in(self, instance: Instance, path: str, stream: BinaryIO) -> None:
        """Unpack a tar archive below the directory `path`."""
        with self._files(instance) as files:
            copying.copy_in(files, stream, path)

    @contextmanager
    def _files(self, instance: Instance) -> Iterator[Files]:
        if instance.spec.system:
            raise Refused(
                f"{instance.spec.name} is an unmodified system: its files are its own kernel's business",
                hint="scp through a published port, or bulkhead exec",
            )
        if instance.spec.program:
            raise Refused(
                f"{instance.spec.name} is a unikernel: it has no files that anybody else could reach",
                hint="give it its files when it is made: bulkhead build --unikernel --keep PATH",
            )
        with ExitStack() as always:
            if instance.state is not State.RUNNING:
                always.enter_context(self._held(instance))
            yield always.enter_context(file_session(self._context, instance))

    @contextmanager
    def _held(self, instance: Instance) -> Iterator[None]:
        """The root of an instance that does not run; nobody can start it meanwhile."""
        context, spec = self._context, instance.spec
        with context.locks.hold(spec.id), ExitStack() as always:
            instance = context.state.get(spec.id)
            if instance.state not in (State.CREATED, State.EXITED):
                raise Conflict(
                    f"instance {spec.name} is {instance.state}",
                    hint=_HINTS.get(instance.state, "try again in a moment"),
                )
            snapshotting.require_no_memory(context, instance)
            always.enter_context(held(context, self._resources, instance))
            yield
