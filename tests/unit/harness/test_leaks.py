"""The leak check finds what it is for. Everything made here is removed again by the test itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead.host import mounts
from bulkhead.network import taps
from tests.harness.abilities import require
from tests.harness.leaks import Scope, Snapshot, diff, held, leftovers, snapshot, unfinished
from tests.harness.namespaces import Outside, Sandbox
from tests.harness.naming import LINK_PREFIX, PREFIX, RUN, make_config

ASLEEP = f"import time; time.sleep(1000)  # {PREFIX}"
DISOWN = (
    "import subprocess, sys; to = subprocess.DEVNULL; "
    f"subprocess.Popen([sys.executable, '-c', {ASLEEP!r}], start_new_session=True, stdout=to, stderr=to)"
)


@pytest.fixture
def found_by(tmp_path: Path) -> Callable[[Callable[[], Callable[[], object]]], list[str]]:
    """What the check finds after something was done; what was returned undoes it, and nothing is left then."""
    scope = Scope(directories=(tmp_path,), base=tmp_path)

    def look(act: Callable[[], Callable[[], object]]) -> list[str]:
        require("root")
        before = snapshot(scope)
        undo = act()
        try:
            found = leftovers(before, scope, patience=0)
        finally:
            undo()
        assert leftovers(before, scope) == []
        return found

    return look


Look = Callable[[Callable[[], Callable[[], object]]], list[str]]


def run(*argv: str | Path) -> Callable[[], object]:
    return lambda: subprocess.run([str(word) for word in argv], check=True, capture_output=True)


def test_nothing_is_nothing(found_by: Look) -> None:
    assert found_by(lambda: lambda: None) == []


def test_a_file(found_by: Look, tmp_path: Path) -> None:
    def act() -> Callable[[], object]:
        (tmp_path / "left").touch()
        return (tmp_path / "left").unlink

    assert found_by(act) == [f"file: {tmp_path}/left"]


def test_a_mount(found_by: Look, tmp_path: Path) -> None:
    def act() -> Callable[[], object]:
        run("mount", "-t", "tmpfs", "left", tmp_path)()
        return run("umount", tmp_path)

    assert found_by(act) == [f"mount: {tmp_path} (tmpfs left)"]


def test_a_second_mount_at_the_same_place(tmp_path: Path, found_by: Look) -> None:
    run("mount", "-t", "tmpfs", "left", tmp_path)()
    try:
        test_a_mount(found_by, tmp_path)
    finally:
        run("umount", tmp_path)()


def test_a_link_with_a_name_of_this_run(found_by: Look) -> None:
    def act() -> Callable[[], object]:
        run("ip", "link", "add", f"{LINK_PREFIX}left", "type", "bridge")()
        return run("ip", "link", "del", f"{LINK_PREFIX}left")

    assert found_by(act) == [f"link: {LINK_PREFIX}left"]


def test_rules_in_a_table_of_this_run(found_by: Look) -> None:
    def act() -> Callable[[], object]:
        run("nft", f"add table inet {PREFIX}_left; add chain inet {PREFIX}_left input")()
        return run("nft", f"delete table inet {PREFIX}_left")

    found = found_by(act)
    assert len(found) == 2
    assert all(line.startswith("nftables: ") and f"{PREFIX}_left" in line for line in found)


def test_a_network_namespace_held_open(found_by: Look) -> None:
    def act() -> Callable[[], object]:
        descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
        return lambda: os.close(descriptor)

    (found,) = found_by(act)
    assert found.startswith("network namespace: net:[")


def test_a_cgroup_in_any_hierarchy(found_by: Look) -> None:
    trees = [entry.target for entry in mounts.table() if entry.kind in ("cgroup", "cgroup2")]
    made = trees[-1] / f"{PREFIX}-left" / "deep"

    def act() -> Callable[[], object]:
        made.mkdir(parents=True)

        def undo() -> None:
            made.rmdir()
            made.parent.rmdir()

        return undo

    assert found_by(act) == [f"cgroup: {made.parent}", f"cgroup: {made}"]


def test_a_loop_device(found_by: Look, tmp_path: Path) -> None:
    require("loop devices", "losetup")
    backing = tmp_path / "disk"
    backing.write_bytes(b"\0" * 65536)

    def act() -> Callable[[], object]:
        done = subprocess.run(["losetup", "-f", "--show", backing], check=True, capture_output=True, text=True)
        return run("losetup", "-d", done.stdout.strip())

    (found,) = found_by(act)
    assert found.endswith(str(backing))


def test_a_process_and_one_that_has_been_disowned(found_by: Look) -> None:
    def act() -> Callable[[], object]:
        run(sys.executable, "-c", DISOWN)()
        (pid,) = [int(entry.name) for entry in Path("/proc").iterdir() if _command(entry).endswith(ASLEEP)]
        return lambda: os.kill(pid, 9)

    (found,) = found_by(act)
    assert ASLEEP in found


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_differences_are_counted() -> None:
    before = Snapshot({"mount": Counter({"/a": 1, "/b": 1})})
    after = Snapshot({"mount": Counter({"/a": 3, "/c": 1}), "link": Counter()})
    assert diff(before, after) == ["mount: /a (2 times)", "mount: /c"]


# --- sandboxes


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    require("root", "mount namespaces", "cgroups", "nsenter", "ip")
    made = Sandbox()
    yield made
    made.close()


def test_a_sandbox_has_namespaces_of_its_own(sandbox: Sandbox) -> None:
    for name in ("mnt", "net"):
        assert Path(f"/proc/{sandbox.pid}/ns/{name}").readlink() != Path(f"/proc/self/ns/{name}").readlink()
    assert sandbox.run("ls", "/sys/class/net").stdout == "lo\n"
    assert "state UNKNOWN" in sandbox.run("ip", "link", "show", "lo").stdout
    assert sandbox.run("ls", "/sys/fs/cgroup").stdout


def test_what_is_left_in_a_sandbox_is_seen_and_ends_with_it(tmp_path: Path, sandbox: Sandbox) -> None:
    scope = Scope(pid=sandbox.pid, own_network=True, ancestor=sandbox.pid)
    before = snapshot(scope)
    pid = sandbox.spawn([sys.executable, "-c", DISOWN], env={}, output=tmp_path / "log")
    assert sandbox.wait(pid) == 0
    sandbox.run("mount", "-t", "tmpfs", "left", str(tmp_path))
    sandbox.run("ip", "link", "add", "left", "type", "bridge")
    found = sorted(line.split(":")[0] for line in leftovers(before, scope, patience=0))
    assert found == ["link", "mount", "process"]
    (orphan,) = sandbox.processes()
    sandbox.close()
    assert not Path(f"/proc/{orphan}").exists()
    assert not mounts.is_mounted(tmp_path)


def test_the_status_of_what_was_spawned(tmp_path: Path, sandbox: Sandbox) -> None:
    pid = sandbox.spawn(["/bin/sh", "-c", "echo said; exit 7"], env={}, output=tmp_path / "log")
    assert sandbox.wait(pid) == 7
    assert (tmp_path / "log").read_text() == "said\n"
    pid = sandbox.spawn(["/bin/sleep", "1000"], env={}, output=tmp_path / "log")
    assert sandbox.status(pid) is None
    os.kill(pid, 9)
    assert sandbox.wait(pid) == -9


def test_a_client_outside_reaches_the_sandbox_and_the_other_way_round(sandbox: Sandbox) -> None:
    require("busybox")
    outside = Outside.beside(sandbox)
    try:
        serve = f"{BUSYBOX} nc -l -p 8080 -e {BUSYBOX} echo hello"
        server = subprocess.Popen(["nsenter", "-t", str(sandbox.pid), "-n", *serve.split()])
        with outside.connect(outside.inside4, 8080) as connection:
            assert connection.recv(16) == b"hello\n"
        assert server.wait() == 0
        with outside.listen(8081) as listener:
            client = subprocess.Popen(
                ["nsenter", "-t", str(sandbox.pid), "-n", BUSYBOX, "nc", outside.outside4, "8081"],
                stdin=subprocess.DEVNULL,
            )
            accepted, (address, _) = listener.accept()
            accepted.close()
            assert address == outside.inside4
            client.wait()
    finally:
        outside.close()


BUSYBOX = "/bin/busybox"


# --- names


def test_names_of_a_run_are_its_own(tmp_path: Path) -> None:
    first, second = make_config(tmp_path / "a"), make_config(tmp_path / "b", disk_pool=0)
    assert second.disk_pool == 0
    assert RUN in first.cgroup
    for field in ("cgroup", "nft_table", "uid_base", "state_dir", "run_dir", "cache_dir"):
        assert getattr(first, field) != getattr(second, field)


def test_a_sandbox_in_the_hosts_network() -> None:
    require("root", "mount namespaces")
    sandbox = Sandbox(network="host")
    try:
        assert Path(f"/proc/{sandbox.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        assert Path(f"/proc/{sandbox.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    finally:
        sandbox.close()


def test_memory_of_a_guest_and_a_tap(tmp_path: Path) -> None:
    """What a daemon holds in descriptors; each template may have its memory once."""
    require("root", "mount namespaces")
    before = held(os.getpid(), tmp_path, patience=0)
    memory, namespace = os.memfd_create("ram"), taps.make_alone(owner=0)
    try:
        found = [line for line in held(os.getpid(), tmp_path, patience=0) if line not in before]
        assert [line.split(" in ")[0] for line in found] == [
            "memory held by the daemon: /memfd:ram (deleted) (1 times)",
            "tap tap0",
        ]
        (tmp_path / "template").mkdir()
        assert list(unfinished(tmp_path)) == [f"file: {tmp_path}/template, of a template that is none"]
        (tmp_path / "template" / "key.json").touch()
        assert list(unfinished(tmp_path)) == []
        found = [line for line in held(os.getpid(), tmp_path, patience=0) if line not in before]
        assert [line.split(" in ")[0] for line in found] == ["tap tap0"]
        os.utime(tmp_path / "template" / "key.json", (0, 0))
        assert any("/memfd:ram" in line for line in held(os.getpid(), tmp_path, patience=0)), "it was not used"
    finally:
        os.close(memory)
        os.close(namespace)
    assert held(os.getpid(), tmp_path, patience=0) == before
