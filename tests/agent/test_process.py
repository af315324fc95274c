"""What is set on the process itself: user, groups, capabilities, limits, seccomp."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import struct
from pathlib import Path

import pytest

from bulkhead.agent.operations import Code, simple
from bulkhead.agent.probe import find_probe
from tests.agent.box import Box, command
from tests.agent.wire import Failure

NET_BIND, CHOWN, SETPCAP, SYS_ADMIN = 1 << 10, 1 << 0, 1 << 8, 1 << 21
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
MKDIR = 83


def status(box: Box, *operations: object) -> dict[str, str]:
    """/proc/self/status of a process that the operations were applied to."""
    _, out, err = box.run("cat", "/proc/self/status", before_exec=operations)
    assert err == b""
    return dict(line.split(":\t", 1) for line in out.decode().splitlines() if ":\t" in line)


@pytest.mark.parametrize(
    ("spec", "extra", "uid", "gid", "groups"),
    [
        ("", (), 0, 0, []),
        ("root", (), 0, 0, []),
        ("user", (), 1000, 1000, [4, 50]),
        ("1000", (), 1000, 1000, [4, 50]),
        ("user:www", (), 1000, 33, []),
        ("user:7", (), 1000, 7, []),
        ("4711", (), 4711, 0, []),
        ("4711:4712", (), 4711, 4712, []),
        ("www", (7, 8), 33, 33, [4, 7, 8, 50]),
        ("65535:65535", (), 65535, 65535, []),
    ],
)
def test_user(  # noqa: PLR0917
    box: Box, spec: str, extra: tuple[int, ...], uid: int, gid: int, groups: list[int]
) -> None:
    found = status(box, simple(Code.USER, spec, *extra))
    assert found["Uid"].split() == [str(uid)] * 4
    assert found["Gid"].split() == [str(gid)] * 4
    assert sorted(map(int, found["Groups"].split())) == groups
    assert int(found["CapEff"], 16) == 0 or uid == 0


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("nobody", errno.ENOENT),
        ("user:nothing", errno.ENOENT),
        ("4294967295", errno.EINVAL),
        ("99999999999999999999999", errno.EINVAL),
        ("0:4294967296", errno.EINVAL),
        ("-1", errno.ENOENT),
    ],
)
def test_a_user_that_is_not_there(box: Box, spec: str, error: int) -> None:
    connection = box.launch()
    with pytest.raises(Failure) as caught:
        connection.start(box.request("true", before_exec=[simple(Code.USER, spec)]))
    assert (caught.value.code, caught.value.errno) == (Code.USER, error)


def test_a_uid_outside_the_map(box: Box) -> None:
    connection = box.launch()
    with pytest.raises(Failure) as caught:
        connection.start(box.request("true", before_exec=[simple(Code.USER, "65536")]))
    assert (caught.value.code, caught.value.errno) == (Code.EXEC, errno.EINVAL)


@pytest.mark.parametrize(
    ("spec", "env", "home"), [("user", (), "/home/user"), ("4711", (), "/"), ("user", ("HOME=/x",), "/x")]
)
def test_home(box: Box, spec: str, env: tuple[str, ...], home: str) -> None:
    before = [simple(Code.USER, spec), *([simple(Code.ENV, *env)] if env else [])]
    assert box.sh("echo $HOME", before_exec=before)[1].decode().strip() == home


def test_stdio_can_be_opened_by_name(box: Box) -> None:
    code, out, err = box.sh(
        "echo one >/proc/self/fd/1; echo two >/proc/self/fd/2", before_exec=[simple(Code.USER, "user")]
    )
    assert (code, out, err) == (0, b"one\n", b"two\n")


def test_capabilities_of_root(box: Box) -> None:
    mask = NET_BIND | CHOWN
    found = status(box, simple(Code.CAPS, mask, mask, mask, 0, 0))
    names = ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")
    assert [int(found[name], 16) for name in names] == [mask, mask, mask, 0, 0]


def test_capabilities_of_a_user(box: Box) -> None:
    found = status(box, simple(Code.USER, "user"), simple(Code.CAPS, NET_BIND, NET_BIND, NET_BIND, NET_BIND, NET_BIND))
    names = ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")
    assert [int(found[name], 16) for name in names] == [NET_BIND] * 5
    found = status_again(box, simple(Code.USER, "user"), simple(Code.CAPS, NET_BIND, NET_BIND, NET_BIND, 0, 0))
    assert [int(found[name], 16) for name in names] == [NET_BIND, 0, 0, 0, 0]


def status_again(box: Box, *operations: object) -> dict[str, str]:
    box.agent.socket.unlink()
    return status(box, *operations)


def test_no_securebits_are_left(box: Box) -> None:
    found = status(box, simple(Code.USER, "user"), simple(Code.CAPS, NET_BIND, 0, 0, 0, 0))
    assert int(found["CapPrm"], 16) == 0
    assert found["NoNewPrivs"] == "0"


def test_no_new_privs_and_umask(box: Box) -> None:
    found = status(box, simple(Code.NO_NEW_PRIVS), simple(Code.UMASK, 0o077))
    assert (found["NoNewPrivs"], found["Umask"]) == ("1", "0077")


def test_limits(box: Box) -> None:
    limits = [
        simple(Code.RLIMIT, resource.RLIMIT_NOFILE, 77, 99),
        simple(Code.RLIMIT, resource.RLIMIT_CORE, 0, 0),
    ]
    _, out, _ = box.run("cat", "/proc/self/limits", before_exec=limits)
    lines = {line[:26].strip(): line[26:].split() for line in out.decode().splitlines()}
    assert lines["Max open files"][:2] == ["77", "99"]
    assert lines["Max core file size"][:2] == ["0", "0"]


def test_a_limit_above_what_the_host_allows(box: Box) -> None:
    above = int(Path("/proc/sys/fs/nr_open").read_text()) + 1
    connection = box.launch()
    with pytest.raises(Failure) as caught:
        connection.start(box.request("true", before_exec=[simple(Code.RLIMIT, resource.RLIMIT_NOFILE, 1, above)]))
    assert (caught.value.code, caught.value.errno) == (Code.RLIMIT, errno.EPERM)


def test_the_score_of_the_workload_and_of_an_exec(box: Box) -> None:
    connection = box.launch()
    connection.start(box.request("sleep", "1000", before_exec=[simple(Code.OOM_SCORE, 321)]))
    assert Path(f"/proc/{connection.info()['pid']}/oom_score_adj").read_text() == "321\n"
    shown = connection.exec(command("cat", "/proc/self/oom_score_adj", before_exec=[simple(Code.OOM_SCORE, 400)]))
    assert shown.out == b"400\n"


def seccomp_without_mkdir() -> bytes:
    """Loads the number of the call, refuses mkdir with EPERM."""
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, MKDIR), (0x06, 0, 0, ERRNO | 1), (0x06, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def test_seccomp(box: Box) -> None:
    code, out, err = box.run("mkdir", "/x", before_exec=[simple(Code.SECCOMP, seccomp_without_mkdir())])
    assert code != 0 and b"not permitted" in err, out


def test_seccomp_comes_with_no_new_privs(box: Box) -> None:
    found = status(box, simple(Code.SECCOMP, seccomp_without_mkdir()), simple(Code.CAPS, 0, 0, 0, 0, 0))
    assert (found["Seccomp"], found["NoNewPrivs"], found["CapEff"]) == ("2", "1", "0" * 16)


def test_seccomp_without_no_new_privs(box: Box) -> None:
    """Loaded while it still is root: also for a user, whose set-id programs go on working."""
    first = simple(Code.SECCOMP_FIRST, seccomp_without_mkdir())
    found = status(box, first, simple(Code.USER, "user"), simple(Code.CAPS, 0, 0, 0, 0, 0))
    assert (found["Seccomp"], found["NoNewPrivs"], found["CapEff"]) == ("2", "0", "0" * 16)


def test_a_missing_program_is_told_through_seccomp(box: Box) -> None:
    connection = box.launch()
    with pytest.raises(Failure) as caught:
        connection.start(box.request("none", before_exec=[simple(Code.SECCOMP, seccomp_without_mkdir())]))
    assert (caught.value.code, caught.value.errno) == (Code.EXEC, errno.ENOENT)


def test_a_broken_seccomp_program(box: Box) -> None:
    connection = box.launch()
    broken = struct.pack("<HBBI", 0x15, 5, 5, 1)
    with pytest.raises(Failure) as caught:
        connection.start(box.request("true", before_exec=[simple(Code.SECCOMP, broken)]))
    assert (caught.value.code, caught.value.errno) == (Code.EXEC, errno.EINVAL)


def test_a_program_that_comes_with_the_request(box: Box) -> None:
    """Run from memory that nobody can change, its own root included; the instance has no file of it at any time."""
    program = simple(Code.PROGRAM, find_probe().read_bytes())
    code, out, _ = box.run("/no/such/file", "look", before_exec=[program, simple(Code.CAPS, 0, 0, 0, 0, 0)])
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith(b'{"fact":"probe"') and lines[-1].startswith(b'{"fact":"end"')
    assert sorted(path.name for path in box.upper.rglob("*") if path.is_file()) == []


def test_a_program_is_sealed(box: Box) -> None:
    connection = box.launch()
    program = simple(Code.PROGRAM, find_probe().read_bytes())
    # It waits for an address that nobody has, so that there is time to look at it.
    pid = connection.start(box.request("look", "look", "192.0.2.1", before_exec=[program]))
    with open(f"/proc/{pid}/exe", "rb") as executable:  # noqa: PTH123 - a link that is no path
        seals = fcntl.fcntl(executable, fcntl.F_GET_SEALS)
    assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")  # noqa: PTH115


@pytest.mark.parametrize(("content", "wanted"), [(b"", errno.EINVAL), (b"not a program", errno.ENOEXEC)])
def test_a_program_that_is_none(box: Box, content: bytes, wanted: int) -> None:
    connection = box.launch()
    with pytest.raises(Failure) as caught:
        connection.start(box.request("x", before_exec=[simple(Code.PROGRAM, content)]))
    assert caught.value.errno == wanted


def test_keyring(box: Box) -> None:
    assert box.run("true", before_exec=[simple(Code.KEYRING)])[0] == 0


def test_an_environment_of_many_operations(box: Box) -> None:
    many = [simple(Code.ENV, *(f"V{first}_{number}=x" for number in range(200))) for first in range(10)]
    code, out, _ = box.run("env", before_exec=many)
    assert code == 0
    assert len(out.splitlines()) == 2001


def test_ids_are_those_of_the_range_on_the_host(box: Box) -> None:
    connection = box.launch()
    pid = connection.start(box.request("sleep", "1000", before_exec=[simple(Code.USER, "user")]))
    assert os.stat(f"/proc/{pid}").st_uid == 1_900_000_000 + 1000  # noqa: PTH116
