"""Watching an instance: every program and every file that it opens, whoever opens it, and nothing of the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkhead.client import Client
from tests.harness.daemon import Daemon
from tests.integration.lives import with_image

SIZE = ("--memory", "64M", "--cpus", "1", "--disk", "64M")
SCRIPT = "#!/bin/sh\ncat /etc/hostname > /dev/null\n( cat < /etc/group > /dev/null )\n"


@pytest.fixture
def watched(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon with an image."""
    return with_image(shared_daemon, busybox_tar, "busybox")


class Seen:
    """What a watch has told."""

    def __init__(self) -> None:
        self.programs: dict[int, tuple[int, str]] = {}
        self.files: set[tuple[int, str]] = set()

    def take(self, line: dict[str, int | str]) -> None:
        """One line."""
        step = int(line["step"])
        if "program" in line:
            self.programs[step] = (int(line["by"]), str(line["program"]))
        else:
            self.files.add((step, str(line["path"])))


@contextmanager
def watching(daemon: Daemon, name: str) -> Iterator[Seen]:
    """Watch an instance to the end of the block."""
    seen = Seen()
    with (
        Client(str(daemon.config.socket_path)) as client,
        client.stream("GET", f"/v1/instances/{name}/watch") as answer,
    ):
        lines = answer.json_lines()
        assert next(lines) == {}
        reader = threading.Thread(target=lambda: [seen.take(line) for line in lines])
        reader.start()
        try:
            yield seen
        finally:
            assert daemon.api("DELETE", f"/v1/instances/{name}/watch").status == 204
            reader.join(60)
            assert not reader.is_alive()


@pytest.mark.parametrize("level", ["chroot", "container"])
def test_who_opens_what(watched: Daemon, level: str) -> None:
    watched.cli("run", "-d", "--name", "room", "--isolation", level, *SIZE, "busybox", "sleep", "1000")
    watched.cli("run", "-d", "--name", "other", *SIZE, "busybox", "sh", "-c", "while :; do cat /etc/passwd; done")
    watched.cli("exec", "-i", "room", "sh", "-c", "cat > /tmp/it; chmod 755 /tmp/it", stdin=SCRIPT)
    with watching(watched, "room") as seen:
        watched.cli("exec", "room", "sh", "-c", "/tmp/it; read line < /etc/os-release; true")
    shells = [step for step, (by, program) in seen.programs.items() if by == 0]
    assert len(shells) == 1
    shell = shells[0]
    (script,) = [step for step, (by, program) in seen.programs.items() if program == "/tmp/it"]
    assert seen.programs[script][0] == shell
    assert (shell, "/etc/os-release") in seen.files
    copies = {step for step, (by, program) in seen.programs.items() if by == script}
    assert len(copies) == 2, "one by the script, one by a child of its"
    assert {path for step, path in seen.files if step in copies} >= {"/etc/hostname"}
    assert (script, "/etc/group") in seen.files, "a child that has executed nothing is part of its parent's step"
    assert not [path for _, path in seen.files if path == "/etc/passwd"], "other instances are not watched"


def test_a_watch_that_ends_lets_everybody_go_on(watched: Daemon) -> None:
    watched.cli("run", "-d", "--name", "room", *SIZE, "busybox", "sh", "-c", "while :; do cat /etc/hosts; done")
    path = "/v1/instances/room/watch"
    with Client(str(watched.config.socket_path)) as client:
        with client.stream("GET", path) as answer:
            lines = answer.json_lines()
            for _ in range(50):
                next(lines)
            assert watched.api("GET", path).status == 409, "once at a time"
        # The client has gone without a word.
        assert watched.cli("exec", "room", "cat", "/etc/os-release").stdout == "ID=busybox\n"
    watched.kill9()
    watched.start()
    assert watched.cli("exec", "room", "cat", "/etc/os-release").stdout == "ID=busybox\n"


def test_what_cannot_be_watched_is_told(watched: Daemon) -> None:
    watched.cli("create", "--name", "room", *SIZE, "busybox", "true")
    assert watched.api("GET", "/v1/instances/room/watch").status in (200, 409)
    answer = watched.api("GET", "/v1/instances/room/watch").body
    assert "not running" in (json.dumps(answer) if not isinstance(answer, str) else answer)
