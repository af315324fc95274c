"""The files of an instance that does not run: its root is made and held, and nothing runs in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bulkhead.agent.files import Files
from bulkhead.agent.session import SOCKET, Session
from bulkhead.engine import bundles
from bulkhead.engine.context import Context
from bulkhead.engine.resources import Resources
from bulkhead.errors import Refused
from bulkhead.isolation.base import Holds
from bulkhead.model import Instance

HOLD_SECONDS = 5.0


@contextmanager
def held(context: Context, resources: Resources, instance: Instance) -> Iterator[None]:
    """Hold the root of an instance; the caller sees to it that nobody starts it. Raises AgentError, Refused."""
    spec = instance.spec
    driver = context.driver(instance)
    if not isinstance(driver, Holds):
        hint = "what it serves on a published port can be reached" if spec.powered else "start it first"
        raise Refused(
            f"files of {spec.name} cannot be reached: nobody of Bulkhead's is in a {spec.isolation}", hint=hint
        )
    directory = context.bundle_dir(instance)
    with ExitStack() as always:
        always.callback(bundles.forget_run, directory)
        bundle = resources.acquire_files(instance, undo=always, always=always)
        handle = driver.hold(bundle)
        always.callback(driver.delete, directory, spec.id)
        always.callback(driver.stop, directory, handle, signal="SIGKILL", timeout=HOLD_SECONDS)
        yield


@contextmanager
def file_session(context: Context, instance: Instance) -> Iterator[Files]:
    """The files of an instance that runs or is held."""
    with Session.connect(context.bundle_dir(instance) / SOCKET) as session, ExitStack() as always:
        files = Files(session)
        always.callback(files.close)
        yield files
