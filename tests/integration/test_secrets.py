"""Secrets behind every wall: there for the program, and found nowhere else."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from tests.harness import searching
from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, state, until
from tests.integration.machines import IMAGE, SIZE, run, with_machines

WAIT = "trap 'exit 3' TERM; sha256sum </run/secrets/key; while :; do sleep 0.2; done"
INNER = ("--memory", "48M", "--cpus", "0.3", "--pids", "60", "--disk", "64M")
WALLS = {
    "chroot": ("--isolation", "chroot", *PLAN),
    "container": ("--isolation", "container", *PLAN),
    "vm": ("--isolation", "vm", "--network", "none", *SIZE),
    "vm-cold": ("--isolation", "vm", "--no-template", "--network", "none", *SIZE),
    "container-inside": ("--isolation", "container", "--inside", "home", *INNER),
    "chroot-inside": ("--isolation", "chroot", "--inside", "home", *INNER),
}
READ = (
    "/v1/instances",
    "/v1/secrets",
    "/v1/secrets/key",
    "/v1/instances/box",
    "/v1/instances/box/describe",
    "/v1/instances/box/logs",
    "/v1/instances/box/changes",
    "/v1/operations",
    "/v1/trail",
    "/v1/events",
    "/v1/snapshots",
    "/v1/info",
    "/v1/usage",
    "/metrics",
)


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    """A daemon with an image and a kernel; without secrets in the end."""
    yield with_machines(shared_daemon, busybox_tar)
    for each in shared_daemon.json("ps", "-a", "--format", "json"):
        shared_daemon.cli("rm", "-f", each["spec"]["id"], check=False)
    for each in shared_daemon.json("secret", "ls", "--format", "json"):
        shared_daemon.cli("secret", "rm", each["name"])


def keep(daemon: Daemon, name: str, *options: str) -> str:
    """A new value under a name; the value."""
    value = f"hunter2-{secrets.token_hex(16)}"
    assert daemon.cli("secret", "create", *options, name, "-", stdin=value).stdout == f"{name}\n"
    return value


def digest(value: str) -> str:
    """As sha256sum prints it."""
    return sha256(value.encode()).hexdigest()


def found_in(daemon: Daemon, value: str) -> list[str]:
    """Everywhere outside of the instances' memory and the store of secrets where a value can be read."""
    found, config = [], daemon.config
    # In the daemon's namespaces, where instances' disks are mounted; raw disks are files like any other.
    places = (config.state_dir, config.run_dir, config.cache_dir, daemon.log_file)
    search = (sys.executable, searching.__file__)
    runs = [daemon.sandbox.run(*search, str(place), stdin=value) for place in places]
    said = [line for run in runs for line in run.stdout.splitlines()]
    found += [path for path in said if not path.startswith(f"{config.secrets_dir}/")]
    for process in Path("/proc").iterdir():
        for name in ("cmdline", "environ") if process.name.isdigit() else ():
            with suppress(OSError):
                if value.encode() in (process / name).read_bytes():
                    found.append(f"{process}/{name}")
    for path in READ:
        answer = daemon.api("GET", path)
        if value in (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)):
            found.append(f"GET {path}")
    return found


def said(daemon: Daemon, name: str, value: str) -> None:
    """Wait until an instance has read a value."""
    until("the value", lambda: digest(value) in daemon.cli("logs", name).stdout)


def test_the_search_finds_what_is_there(bulkhead: Daemon) -> None:
    value = keep(bulkhead, "key")
    bulkhead.cli(
        "run",
        "-d",
        "--name",
        "box",
        *PLAN,
        "-e",
        f"KEY={value}",
        IMAGE,
        "sh",
        "-c",
        f"echo {value} >/f; sleep 9999; true",
    )
    until("the file", lambda: bulkhead.cli("exec", "box", "cat", "/f", check=False).stdout)
    bulkhead.cli("exec", "box", "sync")
    found = "\n".join(found_in(bulkhead, value))
    for place in ("spec.json", "upper/f", "cmdline", "environ", "GET /v1/instances/box/describe"):
        assert place in found, f"{place} holds it, and the search does not find it:\n{found}"


@pytest.mark.parametrize("wall", WALLS)
def test_a_secret_is_in_the_memory_of_its_instance_alone(bulkhead: Daemon, wall: str) -> None:
    first, word = keep(bulkhead, "key"), keep(bulkhead, "word", "--label", "of=tests")
    options = WALLS[wall]
    if "--inside" in options:
        run(bulkhead, "home", "sleep 100000", "--memory", "256M")
    uses = ("--secret", "key,mode=0400", "--secret", "word,target=/etc/app/word,uid=5,gid=6,mode=440,type=mount")
    bulkhead.cli("run", "-d", "--name", "box", *options, *uses, IMAGE, "sh", "-c", WAIT)
    said(bulkhead, "box", first)
    assert bulkhead.cli("exec", "box", "cat", "/run/secrets/key", "/etc/app/word").stdout == first + word
    shown = bulkhead.cli("exec", "box", "stat", "-c", "%a:%u:%g", "/run/secrets/key", "/etc/app/word").stdout
    assert shown.split() == ["400:0:0", "440:5:6"]
    assert bulkhead.cli("exec", "box", "sh", "-c", "echo x >>/etc/app/word", check=False).returncode == 1
    dry = bulkhead.cli("run", "--dry-run", "--name", "dry", *options, *uses, IMAGE, "true").stdout
    assert f"<secret key, {len(first)} bytes>" in dry and first not in dry
    assert not found_in(bulkhead, first) and not found_in(bulkhead, word)

    refused = bulkhead.cli("secret", "rm", "word", check=False)
    assert refused.returncode == 125 and "secret word is used by box" in refused.stderr
    second = keep(bulkhead, "key", "--replace")
    assert bulkhead.cli("exec", "box", "cat", "/run/secrets/key").stdout == first, "it runs on with what it has"
    bulkhead.cli("restart", "-t", "5", "box")
    said(bulkhead, "box", second)
    if "--inside" not in options and wall != "chroot":
        bulkhead.cli("stop", "box")
        bulkhead.cli("snapshot", "create", "box", "later")
    bulkhead.cli("stop", "-t", "5", "box")
    for value in (first, second, word):
        assert not found_in(bulkhead, value), "a disk, a snapshot, a log or a record has it"
    bulkhead.cli("rm", "-f", "box")
    bulkhead.cli("secret", "rm", "word")


@pytest.mark.parametrize("wall", ["container", "vm"])
def test_as_many_bytes_as_there_may_be(bulkhead: Daemon, wall: str) -> None:
    value = os.urandom(300_000), os.urandom(212_000)
    for name, data in zip(("key", "more"), value, strict=True):
        bulkhead.cli("secret", "create", name, "-", stdin=data)
    uses = ("--secret", "key", "--secret", "more", "-e", f"LONG={'x' * 100_000}")
    script = "sha256sum </run/secrets/key; sha256sum </run/secrets/more"
    out = bulkhead.cli("run", "--rm", *WALLS[wall], *uses, IMAGE, "sh", "-c", script).stdout
    assert re.findall("[0-9a-f]{64}", out) == [sha256(data).hexdigest() for data in value]
    bulkhead.cli("secret", "create", "--replace", "more", "-", stdin=value[1] + b"x")
    refused = bulkhead.cli("run", "--rm", *WALLS[wall], *uses, IMAGE, "true", check=False)
    assert refused.returncode == 125 and "512001" in refused.stderr
    assert bulkhead.json("ps", "-a", "--format", "json") == []


def test_its_memory_is_of_the_plan(bulkhead: Daemon) -> None:
    bulkhead.cli("secret", "create", "key", "-", stdin=os.urandom(500_000))
    for name, uses in {"without": (), "box": ("--secret", "key")}.items():
        bulkhead.cli("run", "-d", "--name", name, *PLAN, *uses, IMAGE, "sleep", "1000")
    used = {each["name"]: each["memory"] for each in bulkhead.api("GET", "/v1/stats").body}
    assert used["box"] - used["without"] > 300_000


def test_it_is_there_again_after_a_restart_by_the_daemon_and_of_it(bulkhead: Daemon) -> None:
    value = keep(bulkhead, "key")
    count = "sha256sum </run/secrets/key; sleep 0.5; exit 1"
    bulkhead.cli(
        "run", "-d", "--name", "box", "--restart", "on-failure:1", *PLAN, "--secret", "key", IMAGE, "sh", "-c", count
    )
    until("two runs", lambda: bulkhead.cli("logs", "box").stdout.count(digest(value)) == 2)
    until("its end", lambda: state(bulkhead, "box") == "exited")
    directory = bulkhead.config.secrets_dir
    assert oct(directory.stat().st_mode)[-3:] == "700"
    kept = list(directory.iterdir())
    assert [oct(path.stat().st_mode)[-3:] for path in kept] == ["600"]
    (directory / f"{'a' * 32}.new").write_text("half of it")
    (directory / ("b" * 32)).write_text("of no record")
    bulkhead.kill9()
    bulkhead.restart()
    assert list(directory.iterdir()) == kept
    bulkhead.cli("start", "box")
    until("a run more", lambda: bulkhead.cli("logs", "box").stdout.count(digest(value)) >= 3)


@pytest.mark.parametrize(
    "link", ["ln -s / /run/secrets", "rmdir /run; ln -s /../../../../../tmp /run", "mkdir -p /run/secrets/key"]
)
def test_an_image_leads_it_nowhere(bulkhead: Daemon, link: str) -> None:
    value = keep(bulkhead, "key")
    bulkhead.cli("run", "--name", "evil", *PLAN, IMAGE, "sh", "-ec", f"mkdir -p /run; {link}")
    bulkhead.cli("snapshot", "create", "evil", "trap")
    words = ("--name", "prey", "--secret", "key", "--from", "evil/trap", "sh", "-c", "sha256sum </run/secrets/key")
    done = bulkhead.cli("run", *words, check=False)
    if "mkdir" in link.partition(";")[0]:
        assert done.returncode == 125 and "directory" in done.stderr and value not in done.stderr
    else:
        assert digest(value) in done.stdout
    assert not found_in(bulkhead, value)
    outside = bulkhead.sandbox.run("sh", "-c", "ls /tmp/secrets /key 2>&1 || true").stdout
    assert "No such file" in outside


def test_what_cannot_be_is_refused_before_anything_is_done(bulkhead: Daemon) -> None:
    value = keep(bulkhead, "key")
    for words, reason in {
        ("--secret", "nope"): "no such secret: nope",
        ("--secret", "key,type=env"): "not put into the environment",
        ("--secret", "key,mode=999"): "no mode",
        ("--secret", "key,uid=root"): "no uid or gid",
        ("--secret", "key", "--secret", "key"): "something else is at /run/secrets/key",
        ("--secret", "key,target=/proc/key"): "nothing can be mounted at /proc/key",
        ("--secret", "key,target=/a/../../key"): "not a plain absolute path",
        ("--secret", "key,target=/data", "-v", "data:/data"): "something else is at /data",
    }.items():
        refused = bulkhead.cli("run", "--name", "box", *PLAN, *words, IMAGE, "true", check=False)
        assert refused.returncode == 125 and reason in refused.stderr, (words, refused.stderr)
    again = bulkhead.cli("secret", "create", "key", "-", stdin=value, check=False)
    assert again.returncode == 125 and "secret key exists" in again.stderr
    for body in (
        {"name": "x", "data": value},
        {"name": "x", "value": value},
        [value],
        {"name": value + "/", "data": ""},
    ):
        answer = bulkhead.api("POST", "/v1/secrets", body)
        assert answer.status == 422 and value not in json.dumps(answer.body), answer
    assert bulkhead.json("ps", "-a", "--format", "json") == []
    assert not found_in(bulkhead, value)
