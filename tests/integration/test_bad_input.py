"""What is wrong is told: all of it, in words, with a hint and an exit code; and nothing is left behind."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.namespaces import in_network
from tests.integration.lives import PLAN, state, with_image

RUN = ("run", "--rm", *PLAN)
HOURS = ("busybox", "sleep", "1000")


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    """A daemon with the image busybox; whatever a test asks for, only that and the default network is there after."""
    daemon = with_image(shared_daemon, busybox_tar, "busybox")
    before = kept(daemon)
    yield daemon
    daemon.clear()
    assert kept(daemon) == before
    assert list(daemon.config.instances_dir.iterdir()) == []
    assert "Traceback" not in daemon.log()


@pytest.fixture
def web(bulkhead: Daemon) -> Iterator[Daemon]:
    """With a running instance `web` that uses a port, a volume and a network, and `off` which never ran."""
    bulkhead.cli("network", "create", "blue")
    options = ["--name", "web", "-p", "8080:80", "-v", "used:/data", "--network", "blue"]
    bulkhead.cli("run", "-d", *options, *PLAN, *HOURS)
    bulkhead.cli("create", "--name", "off", *PLAN, *HOURS)
    yield bulkhead
    bulkhead.clear()
    bulkhead.cli("volume", "rm", "used")
    bulkhead.cli("network", "rm", "blue")


def kept(daemon: Daemon) -> list[str]:
    """Names of all that outlives instances."""
    return [daemon.cli(what, "ls", "-q").stdout for what in ("image", "volume", "network", "plan")]


def refused(daemon: Daemon, arguments: list[str], *told: str, code: int = 125, stdin: bytes = b"") -> str:
    """Run a command that fails with `code` and says every one of the patterns; what it said."""
    done = daemon.cli(*arguments, check=False, stdin=stdin)
    assert (done.returncode, [what for what in told if not re.search(what, done.stderr)]) == (code, []), done.stderr
    return done.stderr


# --- run and create


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["no/such:1"], ["no image 'no/such:1'", "hint: .*bulkhead image ls"]),
        (["busybx"], ["no image 'busybx'", "hint: did you mean busybox"]),
        (["Bad Name"], ["'Bad Name' is not a name", "hint: "]),
        (["x:y:z"], ["'y:z' is not a tag", "hint: "]),
        (["busybox@sha256:zz"], ["'sha256:zz' is not a digest", "hint: sha256: and 64"]),
        (["--stop-signal", "NOPE", "busybox"], ["'NOPE' is not a signal", "hint: "]),
        (["--restart", "always", "--rm", "busybox"], ["--rm and --restart always"]),
        (["--env-file", "/no/file", "busybox"], ["/no/file: No such file"]),
        (["-v", "/no/where:/x", "busybox"], ["/no/where does not exist", "hint: make it first"]),
        (["-v", "b@d:/x", "busybox"], ["'b@d' is neither a path nor a volume's name"]),
        (["-v", "used:rel", "busybox"], ["'rel', where it is to be mounted"]),
        (["-v", "/etc:/", "busybox"], ["nothing can be mounted at /", "hint: choose another target"]),
        (["-v", "/etc:/x", "-v", "/usr:/x", "busybox"], ["/x is mounted twice"]),
        (["-v", "/etc/fstab:/tmp", "busybox", "true"], ["/etc/fstab", "on the directory /tmp", "hint: .* is a file"]),
        (["-v", "/etc:/bin/sh", "busybox", "true"], ["on the file /bin/sh", "hint: .* is a directory"]),
        (["-p", "8081:80", "-p", "8081:81", "busybox"], ["8081/tcp is asked for twice"]),
        (["-p", "192.0.2.77:9090:80", "busybox"], ["192.0.2.77", "not an address of this host", "hint: "]),
        (["-p", "[::1]:9090:80", "busybox"], [r"\[::1\]:9090/tcp cannot be published", "hint: -p 127.0.0.1:9090:80"]),
        (["--network", "none", "-p", "1:1", "busybox"], ["ports cannot be published with network 'none'"]),
        (["--isolation", "unikernel", "busybox"], ["is a rootfs, not a unikernel", "hint: bulkhead build --unikernel"]),
        (["--colour", "busybox"], ["unrecognized arguments: --colour", "hint: see bulkhead run --help"]),
        (["-u", "nobodyhere", "busybox", "true"], ["user nobodyhere", "hint: .*/etc/passwd"]),
        (["-w", "/etc/passwd", "busybox", "true"], ["/etc/passwd", "Not a directory", "hint: "]),
    ],
)
def test_a_run_that_cannot_be(bulkhead: Daemon, options: list[str], told: list[str]) -> None:
    refused(bulkhead, ["run", *PLAN, *options], *told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            "--name a,b --memory x --cpus -1 --pids 0 --bandwidth q --restart maybe -w rel --isolation jail -p x -v ::",
            ["'a,b'", "--memory 'x'", "-1", "--pids 0", "'q'", "maybe", "'rel'", "'jail'", "-p 'x'", "'::'"],
        ),
        ("--memory 1K --disk 1M --ghz 900", ["memory 1024", "disk 1048576", "ghz 900"]),
        ("--memory 1K --cpus 900 -v /no/where:/x -v /etc:/proc", ["memory 1024", "cpus 900", "/no/where", "at /proc"]),
        ("--memory 1X --cpus 900 --network nonet", ["--memory '1X'", "cpus 900", "'nonet'"]),
        ("--cpus 900 --plan nope -v /x --stop-signal NO", ["'/x'", "cpus 900", "nope", "'NO' is not a signal"]),
        ("--memory 900T --cpus 900", ["memory", "cpus 900", "hint: at most --cpus"]),
        (
            "--plan nope --network nonet -v /no/where:/x --isolation unikernel",
            ["nope", "'nonet'", "/no/where", "unikernel"],
        ),
    ],
)
def test_everything_wrong_is_told_at_once(bulkhead: Daemon, options: str, told: list[str]) -> None:
    refused(bulkhead, ["run", *options.split(), "busybox"], *told)


@pytest.mark.parametrize("wall", ["chroot", "container"])
@pytest.mark.parametrize(
    ("program", "code"), [("/no/such", 127), ("nosuch", 127), ("/etc/passwd", 126), ("/etc/not-executable", 126)]
)
def test_a_program_that_cannot_run_keeps_the_instance_to_look_at(
    bulkhead: Daemon, wall: str, program: str, code: int
) -> None:
    refused(bulkhead, [*RUN, "--isolation", wall, "busybox", program], re.escape(program), "hint: ", code=code)
    bulkhead.cli("create", "--name", "odd", "--isolation", wall, *PLAN, "busybox", program)
    refused(bulkhead, ["start", "odd"], re.escape(program), code=code)
    assert state(bulkhead, "odd") == "created"
    assert bulkhead.json("inspect", "odd")[0]["exit"]["code"] == code
    bulkhead.cli("rm", "odd")


def test_everything_wrong_is_told_at_once_by_the_api(bulkhead: Daemon) -> None:
    wrong = {"memory": 1024, "cpus": 900, "iops": 1}
    bulkhead.cli("create", "--name", "given", *PLAN, *HOURS)
    for method, path, body in (
        ("POST", "/v1/instances", {"image": "nix", "plan": wrong}),
        ("POST", "/v1/plans", {"name": "odd", "plan": {**wrong, "name": "default"}}),
        ("PATCH", "/v1/instances/given", {"plan": wrong}),
    ):
        answer = bulkhead.api(method, path, body)
        told = " | ".join(problem["what"] for problem in answer.body["problems"])
        assert answer.status == 422
        assert [word for word in ("memory 1024", "cpus 900", "iops 1") if word not in told] == [], told
    assert "disk is missing" in str(bulkhead.api("POST", "/v1/plans", {"name": "odd", "plan": wrong}).body)


# --- what is taken, in use, or not there


def test_a_port_that_another_program_has(bulkhead: Daemon) -> None:
    namespace = f"/proc/{bulkhead.sandbox.pid}/ns/net"
    with in_network(namespace, lambda: socket.create_server(("0.0.0.0", 9090))):
        refused(bulkhead, [*RUN, "-p", "9090:80", "busybox", "true"], "9090/tcp is taken by .*pid", "hint: ")
    bulkhead.cli(*RUN, "-p", "9090:80", "busybox", "true")


def test_what_clashes_with_an_instance(web: Daemon) -> None:
    refused(web, ["run", "--name", "web", *PLAN, "busybox", "true"], "name web is taken", "hint: choose another")
    refused(web, [*RUN, "-p", "8080:80", "busybox", "true"], "8080/tcp is taken by instance", "hint: ")
    refused(web, ["start", "web"], "web is running")
    refused(web, ["rm", "web"], "web is running", "hint: .*rm -f web")
    refused(web, ["volume", "rm", "used"], "used is used by web", "hint: ")
    refused(web, ["network", "rm", "blue"], "blue is used by web", "hint: ")
    refused(
        web,
        ["image", "rm", "busybox"],
        "busybox is used by 2 instances .*(web, off|off, web)",
        "hint: bulkhead rm .*off",
    )
    refused(web, ["kill", "-s", "WAT", "web"], "'WAT' is not a signal")
    refused(web, ["exec", "web", "/no/such"], "/no/such", code=127)
    refused(web, ["exec", "web", "/etc/passwd"], "/etc/passwd", code=126)
    refused(web, ["exec", "-u", "nono", "web", "true"], "user nono")
    refused(web, ["exec", "-w", "/not/there", "web", "true"], "directory /not/there: ENOENT", "hint: check -w")
    assert web.cli("exec", "web", "ls", "/not", check=False).returncode == 1
    refused(web, ["update", "--disk", "32M", "web"], "32M is less", "hint: ")
    refused(web, ["cp", "web:/etc", "off:/tmp"], "exactly one side")
    refused(web, ["cp", "-", "web:/tmp"], "tar stream is damaged", stdin=b"garbage" * 200)
    assert web.cli("exec", "web", "echo", "well").stdout == "well\n"


@pytest.mark.parametrize("verb", ["exec", "attach", "kill"])
def test_only_what_runs_can_be_entered(web: Daemon, verb: str) -> None:
    refused(web, [verb, "off", *(["true"] if verb == "exec" else [])], "off is created, not running", "hint: .*start")


@pytest.mark.parametrize(
    "arguments",
    ["start", "stop", "kill", "rm", "wait", "inspect", "logs", "attach", "exec nix true", "stats --no-stream"],
)
def test_what_is_not_there(bulkhead: Daemon, arguments: str) -> None:
    words = arguments.split()
    refused(bulkhead, words if "nix" in words else [*words, "nix"], "no such instance: nix", "hint: .*ps -a")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("volume rm nix", ["no such volume: nix", "hint: "]),
        ("volume create ../x", [r"\.\./x"]),
        ("volume create --size 1 tiny", ["size 1"]),
        ("network rm default", ["default cannot be removed"]),
        ("network create a/b", ["a/b"]),
        ("network create host", ["'host' is the name of a built-in"]),
        ("network create --subnet 10.0.0.0/33 green", ["10.0.0.0/33", "hint: "]),
        ("plan rm default", ["plan default is the default", "hint: "]),
        ("plan create odd --memory 1K --cpus 900", ["memory 1024", "cpus 900"]),
        ("run --memory 1K --cpus 900 nix", ["memory 1024", "cpus 900", "no image 'nix'"]),
        ("image rm nix", ["no image 'nix'"]),
        ("image inspect nix", ["no image 'nix'"]),
        ("ps -f colour", ["'colour' is not K=V", "hint: K is one of"]),
        ("frobnicate", ["unknown command 'frobnicate'", "hint: "]),
    ],
)
def test_names_that_are_no_good(bulkhead: Daemon, arguments: str, told: list[str]) -> None:
    refused(bulkhead, arguments.split(), *told)


# --- images


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda whole: whole[:300_000], "truncated"),
        (lambda whole: whole[:-9_000], "truncated"),
        (lambda whole: os.urandom(5_000), "not a tar"),
        (lambda whole: b"", "truncated"),
        (lambda whole: whole[:512_000] + os.urandom(512) + whole[512_512:], ""),
    ],
    ids=["cut", "end cut off", "noise", "empty", "bytes changed"],
)
def test_a_damaged_archive(
    bulkhead: Daemon, busybox_tar: Path, tmp_path: Path, damage: Callable[[bytes], bytes], told: str
) -> None:
    archive = tmp_path / "damaged.tar"
    archive.write_bytes(damage(busybox_tar.read_bytes()))
    if told:
        refused(bulkhead, ["image", "import", str(archive), "damaged"], told)
        refused(bulkhead, ["image", "import", "-", "damaged"], told, stdin=archive.read_bytes())
    else:
        # Inside of a file nobody can tell.
        bulkhead.cli("image", "import", archive, "damaged")
        bulkhead.cli("image", "rm", "damaged")


def test_archives_that_cannot_be_read(bulkhead: Daemon, busybox_tar: Path, tmp_path: Path) -> None:
    refused(bulkhead, ["image", "import", str(tmp_path / "none.tar"), "none"], "No such file", "hint: ")
    refused(bulkhead, ["image", "import", str(tmp_path), "none"], "neither an index.json nor a manifest.json")
    refused(bulkhead, ["image", "import", str(busybox_tar), "Bad Name"], "'Bad Name' is not a name")
    refused(bulkhead, ["image", "import", "-c", "NONSENSE x", str(busybox_tar), "ok"], "'NONSENSE x'", "hint: one of")


# --- disks


@pytest.mark.parametrize("wall", ["chroot", "container"])
def test_a_full_disk_of_an_instance_is_its_own_trouble(bulkhead: Daemon, wall: str) -> None:
    script = "dd if=/dev/zero of=/big bs=1M; rm /big; echo fine > /x && cat /x"
    done = bulkhead.cli(*RUN, "--isolation", wall, "busybox", "sh", "-c", script)
    assert "No space left on device" in done.stderr
    assert done.stdout == "fine\n"


def test_a_full_disk_of_the_host(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = make_daemon(disk_pool=0)
    daemon.stop()
    directory = str(daemon.config.state_dir)
    daemon.sandbox.run("mount", "-t", "tmpfs", "-o", "size=320M", "small", directory)
    daemon.start()
    with_image(daemon, busybox_tar, "busybox")
    daemon.sandbox.run("sh", "-c", f"cat /dev/zero > {directory}/filler; true")
    told = refused(daemon, [*RUN, "busybox", "true"], "[Nn]o space left|is full", "hint: ")
    assert "bug" not in told
    daemon.sandbox.run("rm", f"{directory}/filler")
    assert daemon.json("ps", "-a", "--format", "json") == []
    assert daemon.cli(*RUN, "busybox", "echo", "well").stdout == "well\n"
    assert "Traceback" not in daemon.log()
    daemon.stop()
    daemon.sandbox.run("umount", directory)
