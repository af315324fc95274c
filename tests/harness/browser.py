"""A browser for the web page: Debian's Chromium, in the sandbox of the daemon that serves the page."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.daemon import Daemon
from tests.harness.leaks import LIVE
from tests.harness.namespaces import in_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "/usr/bin/chromium"
OPTIONS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-gpu",
    # What memory guests have may fill /dev/shm.
    "--disable-dev-shm-usage",
    # No process for a page that may be opened next: it would look like one that a test left behind.
    "--disable-features=SpareRendererForSitePerProcess",
)
PORTION = 1 << 16
LAUNCH = 180_000
"""Milliseconds that its start may take, on a host that does much else."""


@contextmanager
def chromium(daemon: Daemon, directory: Path) -> Iterator[Browser]:
    """A browser whose network is the daemon's."""
    from playwright.sync_api import sync_playwright

    launcher = directory / "chromium"
    began = directory / "pid"
    launcher.write_text(f'#!/bin/sh\necho $$ >{began}\nexec nsenter -t {daemon.sandbox.pid} -n -- {CHROMIUM} "$@"\n')
    launcher.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(launcher), args=list(OPTIONS), timeout=LAUNCH)
        holder = int(began.read_text())
        LIVE[holder] = ("", directory)
        try:
            yield browser
        finally:
            browser.close()
            LIVE.pop(holder)


@contextmanager
def forwarded(daemon: Daemon) -> Iterator[str]:
    """The unix socket on a port of the sandbox's loopback, as `ssh -L` forwards it; the address of the page."""

    def listen() -> socket.socket:
        return socket.create_server(("127.0.0.1", 0), backlog=64)

    listener = in_network(f"/proc/{daemon.sandbox.pid}/ns/net", listen)
    threading.Thread(target=_accept, args=(listener, daemon), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        # Closing alone would not wake the thread that accepts.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, daemon: Daemon) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            threading.Thread(target=_serve, args=(client, server, str(daemon.config.socket_path)), daemon=True).start()


def _serve(client: socket.socket, server: socket.socket, path: str) -> None:
    with client, server:
        try:
            server.connect(path)
        except OSError:
            return
        back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
        back.start()
        _pass_on(client, server)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(PORTION):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
