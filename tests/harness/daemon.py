"""A daemon of the test's own: `bulkhead serve` in a sandbox, with its own configuration, and a client for it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead.config import Config
from tests.harness.heritage import Estate, give_host
from tests.harness.leaks import LIVE, Scope, Snapshot, held, leftovers, snapshot, unfinished
from tests.harness.namespaces import Outside, Sandbox
from tests.harness.naming import make_config, temporary_directory

BULKHEAD = Path(sys.executable).parent / "bulkhead"
START_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API."""

    status: int
    body: Any


class Daemon:
    """A daemon and what it works on. `settings` are fields of Config that differ from the harness's usual ones.

    It begins with what `estate` has, and with nothing of its host where it is to be `strange` there.
    """

    def __init__(
        self,
        *,
        network: str = "private",
        env: Mapping[str, str] | None = None,
        estate: Estate | None = None,
        strange: bool = False,
        **settings: object,
    ) -> None:
        self.directory = temporary_directory()
        self.config = make_config(self.directory, **settings)
        if not strange:
            give_host(self.config)
        if estate:
            estate.give(self.config)
        self.config_file = self.directory / "config.toml"
        self.config_file.write_text(_toml(self.config))
        self.log_file = self.directory / "daemon.log"
        self.sandbox = Sandbox(network=network)
        self.outside = Outside.beside(self.sandbox) if network == "private" else None
        self.scope = Scope(
            pid=self.sandbox.pid,
            own_network=network == "private",
            directories=(self.config.instances_dir, self.config.snapshots_dir),
            ancestor=self.sandbox.pid,
            only=(self.config.cgroup, self.directory),
        )
        self._before: Snapshot = snapshot(self.scope)
        self._env = dict(env or {})
        self.pid = 0

    # --- its life

    def start(self, *, env: Mapping[str, str] | None = None) -> None:
        """Start the daemon and wait until it answers; `env` is for this start alone."""
        argv = [str(BULKHEAD), "serve"]
        told = {**self.environment(), **(env or {})}
        self.pid = self.sandbox.spawn(argv, env=told, output=self.log_file, kind="daemon")
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            status = self.sandbox.status(self.pid)
            if status is not None:
                raise AssertionError(f"the daemon ended with {status} instead of starting:\n{self.log()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the daemon does not answer after {START_SECONDS:g} s:\n{self.log()}")
            time.sleep(0.02)

    def stop(self) -> int:
        """Ask it to end, as a service manager does; its exit code. The instances run on."""
        if self.pid == 0:
            return 0
        pid, self.pid = self.pid, 0
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return self.sandbox.wait(pid)

    def kill9(self) -> None:
        """End it at once, in the middle of whatever it does."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it has ended by itself (a crash that was asked for); its exit code."""
        pid, self.pid = self.pid, 0
        return self.sandbox.wait(pid, timeout)

    def restart(self, *, env: Mapping[str, str] | None = None) -> None:
        """Stop it, if it runs, and start it again in the same namespaces."""
        self.stop()
        self.start(env=env)

    # --- talking to it

    def environment(self) -> dict[str, str]:
        """What the daemon and its clients are started with."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BULKHEAD_CONFIG": str(self.config_file),
            # A daemon that a command started would run outside of the sandbox.
            "BULKHEAD_AUTOSTART": "no",
            # Another build of the agent than the checkout's.
            **{key: os.environ[key] for key in ("BULKHEAD_AGENT",) if key in os.environ},
            **self._env,
        }

    def cli(
        self, *arguments: str | Path, check: bool = True, stdin: str | bytes = "", timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `bulkhead ARGUMENTS`. With `check`, an exit code other than 0 fails the test with all that was said."""
        done = subprocess.run(
            [str(BULKHEAD), *map(str, arguments)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=self.environment(),
            timeout=timeout,
            check=False,
        )
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and done.returncode != 0:
            words = " ".join(map(str, arguments))
            raise AssertionError(f"bulkhead {words}: exit code {done.returncode}\n{text.stdout}{text.stderr}")
        return text

    def json(self, *arguments: str) -> Any:
        """What `bulkhead ARGUMENTS` printed, read as JSON."""
        return json.loads(self.cli(*arguments).stdout)

    def api(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout: float = 60.0,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """One request over the unix socket. The answer's body is read as JSON where it is JSON, else as text."""
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(timeout)
        try:
            connection.sock.connect(str(self.config.socket_path))
            payload = None if body is None else json.dumps(body)
            kinds = {"Content-Type": "application/json"} if payload else {}
            connection.request(method, path, payload, {**kinds, **headers})
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.headers.get_content_type()
            return Answer(
                answer.status, json.loads(data) if kind.endswith(("/json", "+json")) and data else data.decode()
            )
        finally:
            connection.close()

    def log(self) -> str:
        """What the daemon has said so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # --- the end

    def share(self) -> None:
        """Let it live over several tests: its leaks are looked for when it ends, not after each of them."""
        LIVE[self.sandbox.pid] = (self.config.cgroup, self.directory)

    def clear(self) -> None:
        """Remove every instance."""
        for instance in self.api("GET", "/v1/instances").body:
            if "reason" in instance:  # it is on a host of the fleet that does not answer
                continue
            answer = self.api("DELETE", f"/v1/instances/{instance['spec']['id']}?force=true")
            assert answer.status in (200, 204, 404), answer

    def leaked(self) -> list[str]:
        """Remove every instance and network, stop the daemon, and list what is left in its sandbox and of its names."""
        LIVE.pop(self.sandbox.pid, None)
        if self.pid == 0:
            self.start()
        self.clear()
        for network in self.api("GET", "/v1/networks").body:
            if network["name"] != "default":
                tenant = "" if network["tenant"] == "default" else f"{network['tenant']}@"
                answer = self.api("DELETE", f"/v1/networks/{tenant}{network['name']}")
                assert answer.status in (200, 204), answer
        templates = self.config.cache_dir / "templates"
        deadline = time.monotonic() + START_SECONDS
        while list(unfinished(templates)) and time.monotonic() < deadline:
            time.sleep(0.1)  # it is making one
        # A guest that is kept warm has a tap and a template's memory for as long as the daemon lives.
        found = [] if self.config.warm_memory else held(self.pid, templates)
        rows = {row["resource"]: row["sold"] for row in self.api("GET", "/v1/host").body["resources"]}
        found += [f"{rows[name]} of {name} sold to nobody" for name in ("memory", "cpu") if rows[name]]
        self.stop()
        return [*found, *unfinished(templates), *leftovers(self._before, self.scope)]

    def close(self) -> None:
        """End everything, whatever state it is in. Idempotent."""
        LIVE.pop(self.sandbox.pid, None)
        self.sandbox.close()
        if self.outside:
            self.outside.close()
        remove_cgroups(self.config.cgroup)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        """Whether it serves: before that, connections are accepted and wait for the recovery pass."""
        try:
            return self.api("GET", "/v1/ping").status == 200
        except OSError:
            return False


def _toml(config: Config) -> str:
    lines, tables = [], []
    for key, value in config.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for table in value:
                tables += [f"[[{key}]]", *(f"{name} = {json.dumps(each)}" for name, each in table.items())]
        elif isinstance(value, dict):
            tables += [f"[{key}]", *(f"{name} = {json.dumps(each)}" for name, each in value.items())]
        elif value != []:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def remove_cgroups(name: str) -> None:
    """Remove what a failed test left, so that it fails alone."""
    for tree in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for directory, _, _ in os.walk(tree / name, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
