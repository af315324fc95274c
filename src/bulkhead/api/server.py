"""Serving the API on a unix socket: one daemon per socket, owned by root and one group, gone in order."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import grp
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from bulkhead.agent.session import short_path
from bulkhead.api.app import create_app
from bulkhead.api.auth import SocketDoor
from bulkhead.api.browsers import BrowserGuard
from bulkhead.api.peers import Peers
from bulkhead.api.service import Service, Whole
from bulkhead.api.tcp import NetworkServer, bound
from bulkhead.api.trail import flush
from bulkhead.api.wire import MAX_MESSAGE, SocketWire, Wire
from bulkhead.config import Config
from bulkhead.engine.fleet.member import Member
from bulkhead.errors import Conflict, Refused
from bulkhead.host.syscalls import set_slice
from bulkhead.limits import SLICE

log = logging.getLogger(__name__)
SWITCH_SECONDS = 0.0005
_COLLECT_AFTER = (700, 10, 10)
"""Python's own; a command line's is larger."""
BACKLOG = 1024
GRACE_SECONDS = 5
"""How long requests that are being served may take once the daemon is told to end."""
KEEP_ALIVE_SECONDS = 75
PID_FILE = "daemon.pid"


class Daemon(Whole, Protocol):
    """The engine with its own beginning and end."""

    def recover(self) -> Sequence[str]:
        """Make the host agree with the store; what had to be mended, in words."""

    def close(self) -> None:
        """Let go of everything; the instances run on."""


def serve(config: Config, build: Callable[[Config], Daemon]) -> None:
    """Run the daemon until it gets TERM or INT. Instances outlive it. Raises Conflict when another one lives."""
    # Many short turns: what a client waits for is not held up by what fills the pools.
    sys.setswitchinterval(SWITCH_SECONDS)
    # Here, since everything inherits it that the daemon will start: supervisors, instances, hypervisors.
    set_slice(0, SLICE)
    with listening(config) as listener, bound(config.listen) as network:
        # Clients that connect from here on wait for the recovery.
        engine = build(config)
        try:
            engine.recover()  # logs what it repairs
            app = create_app(engine)
            # What was loaded stays for good: collections that go through all of it would hold requests up.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECT_AFTER)
            try:
                others = [NetworkServer(app, listen, opened) for listen, opened in network]
                Server(app, others).run(sockets=[listener])
            finally:
                app.state.service.close()
                flush(engine.access)
        finally:
            engine.close()


class Server(uvicorn.Server):
    """uvicorn without its idle ticks, that tells the service manager and ends long requests first."""

    def __init__(self, app: FastAPI, others: Sequence[NetworkServer] = ()) -> None:
        self._others, self._peers = others, Peers(app, app.state.fleet)
        self._fleet: Member = app.state.fleet
        super().__init__(
            uvicorn.Config(
                BrowserGuard(SocketDoor(app)),
                loop="uvloop",
                http=Wire,
                ws=SocketWire,
                ws_max_size=MAX_MESSAGE,
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._service: Service = app.state.service
        self._end = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """TERM and INT end the server in order (uvicorn would raise them again afterwards)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, then say so to the service manager."""
        await super().startup(sockets)
        for other in self._others:
            await other.open()
        await self._peers.begin()
        notify("READY=1")
        log.info("serving")

    async def main_loop(self) -> None:
        """Wait for the end. There are no headers to refresh and no requests to count, so nothing ticks."""
        await self._end.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what lasts (followed logs, attached terminals), then the rest."""
        notify("STOPPING=1")
        log.info("stopping; instances run on")
        self._service.stop()
        self._fleet.hurry()
        for other in self._others:
            await other.end()
        await self._peers.end()
        await super().shutdown(sockets)


@contextmanager
def listening(config: Config) -> Iterator[socket.socket]:
    """The daemon's socket, with its directories, pid file and lock. Raises Conflict when another daemon lives."""
    make_directories(config)
    with _only_daemon(config), _bound(config.socket_path, config.socket_group) as listener:
        pid_file = config.run_dir / PID_FILE
        pid_file.write_text(f"{os.getpid()}\n")
        try:
            yield listener
        finally:
            pid_file.unlink(missing_ok=True)


def make_directories(config: Config) -> None:
    """What the daemon works in. Nobody else may look inside; the socket's group may pass to the socket."""
    group = _group(config.socket_group)
    for directory in (config.state_dir, config.cache_dir):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in {config.run_dir, config.socket_path.parent}:
        if directory == config.run_dir or not directory.exists():
            # Disks and volumes are mounted below run_dir: who may pass here reaches their files.
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(directory, -1, group)
            directory.chmod(0o750)


@contextmanager
def _only_daemon(config: Config) -> Iterator[None]:
    """The lock that one daemon holds on its state while it lives; the kernel gives it up with the process."""
    lock = os.open(config.state_dir / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Conflict(
            f"another daemon uses {config.state_dir}", hint=f"its pid is in {config.run_dir / PID_FILE}"
        ) from error
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _bound(path: Path, group_name: str) -> Iterator[socket.socket]:
    """A listening socket at `path`, in place of one that nobody listens on any more."""
    group = _group(group_name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with listener, short_path(path) as name:
        _remove_stale(path, name)
        # Nobody else can connect between bind and chown.
        mask = os.umask(0o177)
        try:
            listener.bind(name)
        finally:
            os.umask(mask)
        try:
            os.chown(path, -1, group)
            path.chmod(0o660)
            listener.listen(BACKLOG)
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_stale(path: Path, name: str) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise Conflict(f"{path} is not a socket", hint="remove it, or name another socket in the configuration")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise Conflict(f"a daemon answers at {path} already", hint="stop it first, or use another --config")


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise Refused(f"socket_group {name!r} does not exist", hint=f"make it with groupadd {name}") from error


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto(state.encode(), name)
        except OSError as error:
            log.warning("the service manager at %s does not take %s: %s", address, state, error)
