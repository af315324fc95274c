"""What the API needs of the engine, and the bridge from the event loop to the engine's threads.

The engine is synchronous and safe to use from any thread. Short calls go through one pool of threads; what may last
(logs that are followed, archives, imports) through another, so that watchers never starve the calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import BinaryIO, ParamSpec, Protocol, TypeVar, cast

from starlette.requests import HTTPConnection

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import ExecRequest
from bulkhead.api.auth import principal_of
from bulkhead.api.catalogs import Images, Networks, Plans, Registries, Snapshots
from bulkhead.api.needs import (
    Audits,
    Billing,
    Exposer,
    Rooms,
    Secrets,
    Temporaries,
    Tenants,
    Usages,
    Users,
    Volumes,
    Watches,
)
from bulkhead.engine.builds.order import BuildOrder, Tell
from bulkhead.engine.context import Locks
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.operations import Operations
from bulkhead.errors import Conflict, NotFound, Unavailable
from bulkhead.events import Event, Progress
from bulkhead.isolation.base import Ability
from bulkhead.model import CreateRequest, Exit, Instance, Isolation, PlanRequest, RestartPolicy, State
from bulkhead.moves import Moved
from bulkhead.store.access import Access
from bulkhead.tenancy import acting

P = ParamSpec("P")
T = TypeVar("T")

CALL_THREADS = 64
LONG_THREADS = 512
"""Most logs, events, archives and imports at the same time; one more is refused."""
MOST_VIEWS = 4096

Alive = Callable[[], bool]
"""Asked at least once a second by what follows something; False: nobody listens any more, so end."""


class LogLine(Protocol):
    """One entry of a log. `when` in seconds since the epoch; `partial`: the line goes on in the next entry."""

    @property
    def when(self) -> float: ...
    @property
    def stream(self) -> str: ...
    @property
    def text(self) -> bytes: ...
    @property
    def partial(self) -> bool: ...


class Engine(Protocol):
    """The engine as the API sees it. `ref` is a name, an id or the unique beginning of an id (4 digits or more)."""

    @property
    def images(self) -> Images: ...
    @property
    def registries(self) -> Registries: ...
    @property
    def plans(self) -> Plans: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def volumes(self) -> Volumes: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def snapshots(self) -> Snapshots: ...
    @property
    def rooms(self) -> Rooms: ...
    @property
    def temporaries(self) -> Temporaries: ...
    @property
    def audits(self) -> Audits: ...
    @property
    def watches(self) -> Watches: ...
    @property
    def operations(self) -> Operations: ...
    @property
    def usage(self) -> Usages: ...
    @property
    def tenants(self) -> Tenants: ...
    @property
    def users(self) -> Users: ...
    @property
    def access(self) -> Access: ...
    @property
    def billing(self) -> Billing: ...
    @property
    def exposer(self) -> Exposer: ...

    def create(self, request: CreateRequest, *, at_once: bool = False) -> Instance: ...
    def build(self, order: BuildOrder, files: Iterator[bytes], *, tell: Tell, alive: Alive) -> object:
        """Carry a Containerfile out; the image. `files` is its context, a tar."""

    def dry_run(self, request: CreateRequest) -> str:
        """What a start would do, in words; nothing is changed."""

    def start(self, ref: str, *, on_launch: Callable[[Path], None] | None = None) -> Instance:
        """Run the workload. `on_launch` gets agent.sock after the driver has connected to it, before START is sent."""

    def stop(self, ref: str, *, timeout: float | None = None, signal: str | None = None) -> Instance: ...
    def kill(self, ref: str, *, signal: str = "SIGKILL") -> Instance: ...
    def pause(self, ref: str) -> Instance: ...
    def unpause(self, ref: str) -> Instance: ...
    def delete(self, ref: str, *, force: bool = False) -> str: ...
    def wait(self, ref: str) -> Future[Exit]:
        """How it ends; resolved when the end is in the store and, with auto_remove, all of it is gone."""

    def get(self, ref: str) -> Instance: ...
    def list(self) -> Sequence[Instance]: ...
    def describe(self, ref: str) -> Mapping[str, object]:
        """Everything `inspect` shows: the record, the limits in force, what is not isolated, paths."""

    def update(self, ref: str, plan: PlanRequest, *, restart: RestartPolicy | None = None) -> Instance: ...
    def move(
        self,
        ref: str,
        level: Isolation,
        *,
        plan: PlanRequest,
        network: str | None,
        within: float,
        progress: Progress,
    ) -> Moved: ...
    def stats(self, refs: Sequence[str] | None) -> Sequence[object]:
        """What running instances use now; see docs/reference/http-api.md for the keys."""

    def prepare_attach(self, ref: str) -> Path:
        """agent.sock of a running instance."""

    def prepare_exec(
        self,
        ref: str,
        *,
        argv: Sequence[str],
        env: Sequence[str],
        user: str | None,
        workdir: str | None,
        tty: bool,
        stdin: bool,
    ) -> tuple[Path, ExecRequest]:
        """agent.sock of a running instance and what EXEC is to carry."""

    def collects(self, ref: str) -> bool:
        """Whether commands in an instance are run to their end (`collect`), since no client can be joined to them."""

    def collect(
        self,
        ref: str,
        *,
        argv: Sequence[str],
        env: Sequence[str],
        user: str | None,
        workdir: str | None,
        tty: bool,
        stdin: bool,
        alive: Alive,
    ) -> Collected:
        """Run a command in such an instance to its end; at most 256 KiB of each output."""

    def logs(
        self, ref: str, *, since: float, until: float, tail: int | None, follow: Alive | None
    ) -> Iterator[LogLine]: ...
    def events(self, *, since: float, until: float | None, follow: Alive | None, after: int = 0) -> Iterable[Event]: ...
    def copy_out(self, ref: str, path: str) -> Iterator[bytes]:
        """A tar archive of `path`, in portions."""

    def copy_in(self, ref: str, path: str, stream: BinaryIO) -> None:
        """Unpack a tar archive below the directory `path`."""

    def doctor(self) -> Sequence[Ability]: ...
    def walls(self) -> Mapping[str, object]:
        """The levels and the rules for them; see docs/reference/http-api.md for the keys."""

    def info(self) -> Mapping[str, object]: ...
    def host(self) -> Mapping[str, object]:
        """What of the host is sold, used and free; see docs/reference/http-api.md for the keys."""


class Whole(Engine, Protocol):
    """The engine as whoever sees everything gets it."""

    @property
    def fleet(self) -> Member: ...
    def seen_by(self, tenant: str) -> Engine:
        """The engine as a tenant sees it: its own things alone, and nothing that reaches the host."""


class Service:
    """The engine with the threads that it is called in, as whoever sees everything gets it; see `seen_by`."""

    def __init__(self, engine: Whole) -> None:
        self.engine: Engine = engine
        self._view = engine.seen_by
        self._calls = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="call")
        self._long = ThreadPoolExecutor(LONG_THREADS, thread_name_prefix="long")
        self._long_running = 0
        self._tenants: dict[str, Service] = {}
        self.editing = Locks()
        """Held by edits, by what they are about."""
        self.stopping = asyncio.Event()
        """Set when the daemon ends: whatever follows something gives up."""

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of the engine's calls in a thread."""
        work = partial(copy_context().run, acting.carried_out, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._calls, work)

    def begin_long(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run what may last as long as somebody listens. Raises Unavailable when too many do already."""
        if self._long_running >= LONG_THREADS:
            raise Unavailable(f"{LONG_THREADS} long requests are being served already", hint="end some and try again")
        self._long_running += 1
        work = partial(copy_context().run, acting.carried_out, partial(function, *args, **kwargs))
        future = asyncio.get_running_loop().run_in_executor(self._long, work)
        future.add_done_callback(self._end_long)
        return future

    def _end_long(self, _: asyncio.Future[T]) -> None:
        self._long_running -= 1

    def seen_by(self, tenant: str | None) -> Service:
        """The same threads with the engine as a tenant sees it; None: this."""
        if tenant is None:
            return self
        from bulkhead.api.shares import TenantService

        found = self._tenants.get(tenant)
        if found is None:
            if len(self._tenants) >= MOST_VIEWS:
                self._tenants.pop(next(iter(self._tenants)))
            found = self._tenants[tenant] = TenantService(self, self._view(tenant))
        return found

    def stop(self) -> None:
        """From the loop: end whatever lasts, so that its requests do."""
        self.stopping.set()

    def close(self) -> None:
        """Let the threads go; what is running ends by itself soon."""
        self.stopping.set()
        self._calls.shutdown(wait=False)
        self._long.shutdown(wait=False, cancel_futures=True)


def service_of(connection: HTTPConnection) -> Service:
    """The service of the application that a request belongs to, as whoever makes it gets it."""
    return cast(Service, connection.app.state.service).seen_by(principal_of(connection).tenant)


def create_and_start(
    engine: Engine,
    request: CreateRequest,
    *,
    on_create: Callable[[Instance], None] = lambda _: None,
    on_launch: Callable[[Path], None] | None = None,
) -> Instance:
    """Create and start as one operation: when it cannot be started, nothing of it is left."""
    instance = engine.create(request, at_once=True)
    try:
        on_create(instance)
        return engine.start(instance.spec.id, on_launch=on_launch)
    except BaseException as error:
        with suppress(NotFound):
            taken = isinstance(error, Conflict) and on_launch is None
            if taken and (now := engine.get(instance.spec.id)).state is State.RUNNING:
                return now  # somebody else was first
            engine.delete(instance.spec.id, force=True)
        raise
