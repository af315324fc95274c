"""The seccomp filter, run by an interpreter: what it answers to every call that matters, on both architectures."""

from __future__ import annotations

import errno
import struct
import sys
from pathlib import Path

import pyseccomp
import pytest

from bulkhead.errors import Unavailable
from bulkhead.isolation import seccomp
from tests.unit.isolation import bpf

DOCKER_DENIED = [
    name
    for line in Path(__file__).with_name("docker_denied.txt").read_text().splitlines()
    if not line.startswith("#")
    for name in line.split()
]
ARCHES = {bpf.X86_64: pyseccomp.Arch.X86_64, bpf.I386: pyseccomp.Arch.X86}
IMAGES = ("amd64", "i386")
NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
HIGH = 1 << 32
CLONE = {bpf.X86_64: 56, bpf.I386: 120}
IOCTL = {bpf.X86_64: 16, bpf.I386: 54}
SETSOCKOPT = {bpf.X86_64: 54, bpf.I386: 366}
PIPE2 = {bpf.X86_64: 293, bpf.I386: 331}
SOCKET = {bpf.X86_64: 41, bpf.I386: 359}
SOCKETPAIR = {bpf.X86_64: 53, bpf.I386: 360}
SOCKETCALL = 102


def answer(image: str, arch: int, number: int, *args: int) -> str:
    """ "ALLOW" or the name of the errno."""
    value = bpf.run(seccomp.program(image), arch=arch, number=number, args=args)
    if value == bpf.ALLOW:
        return "ALLOW"
    assert value & 0xFFFF0000 == bpf.ERRNO
    return errno.errorcode[value & 0xFFFF]


def numbers(name: str) -> dict[int, int]:
    """The call's number on each architecture that has it."""
    found = {arch: pyseccomp.resolve_syscall(library, name) for arch, library in ARCHES.items()}
    return {arch: number for arch, number in found.items() if number >= 0}


def test_at_most_300_calls_are_allowed() -> None:
    assert len(seccomp.profile().allowed("amd64") | seccomp.profile().allowed("i386")) <= 300


def test_no_name_is_listed_twice_or_unknown() -> None:
    rules = seccomp.profile()
    groups = (*rules.allow.values(), *rules.allow_for_i386_images.values(), *rules.refuse.values())
    listed = [name for names in groups for name in names]
    assert len(listed) == len(set(listed))
    assert [name for name in listed if pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name) == -1] == []


@pytest.mark.parametrize("image", IMAGES)
def test_every_listed_call_is_allowed(image: str) -> None:
    for name in seccomp.profile().allowed(image):
        for arch, number in numbers(name).items():
            family = 1 if name in ("socket", "socketpair") else 0
            assert answer(image, arch, number, family) == "ALLOW", name


@pytest.mark.parametrize("image", IMAGES)
def test_all_that_docker_denies_is_denied(image: str) -> None:
    assert len(DOCKER_DENIED) > 90
    for name in DOCKER_DENIED:
        for arch, number in numbers(name).items():
            assert answer(image, arch, number) in ("EPERM", "ENOSYS"), name


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    "name",
    ["io_uring_setup", "io_uring_enter", "userfaultfd", "keyctl", "add_key", "bpf", "perf_event_open", "unshare",
     "setns", "mount", "pidfd_getfd", "process_vm_readv", "open_by_handle_at", "modify_ldt"],
)  # fmt: skip
def test_refused_calls_say_eperm(image: str, name: str) -> None:
    for arch, number in numbers(name).items():
        assert answer(image, arch, number) == "EPERM"


@pytest.mark.parametrize("image", IMAGES)
def test_calls_that_nobody_knows_do_not_exist(image: str) -> None:
    for arch in ARCHES:
        assert answer(image, arch, 9999) == "ENOSYS"
    assert answer(image, bpf.X86_64, 435) == "ENOSYS", "clone3: libc falls back to clone, whose flags can be seen"


@pytest.mark.parametrize("image", IMAGES)
def test_x32_and_foreign_architectures_do_not_exist(image: str) -> None:
    for number in (0, 1, 41, 56, 59, 520):
        assert answer(image, bpf.X86_64, number | bpf.X32_BIT) == "ENOSYS"
    assert answer(image, 0xC00000B7, 63) == "ENOSYS", "aarch64"


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("arch", ARCHES)
def test_no_new_namespaces_by_clone(image: str, arch: int) -> None:
    for flag in NAMESPACES:
        for value in (flag, flag | 17, flag | 0x3D0F00, flag | HIGH):
            assert answer(image, arch, CLONE[arch], value) == "EPERM"
    assert answer(image, arch, CLONE[arch], 0x3D0F00) == "ALLOW", "a thread of pthread_create"
    assert answer(image, arch, CLONE[arch], 0x01200011) == "ALLOW", "fork"


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("arch", ARCHES)
def test_upper_halves_do_not_hide_arguments(image: str, arch: int) -> None:
    for high in (0, HIGH, 0xFFFFFFFF << 32):
        assert answer(image, arch, IOCTL[arch], 0, 0x5412 | high) == "EPERM", "TIOCSTI"
        assert answer(image, arch, IOCTL[arch], 0, 0x541C | high) == "EPERM", "TIOCLINUX"
        assert answer(image, arch, IOCTL[arch], 0, 0x5423 | high) == "EPERM", "TIOCSETD"
        assert answer(image, arch, PIPE2[arch], 0, 0x80 | high) == "EINVAL", "O_NOTIFICATION_PIPE"
        assert answer(image, arch, PIPE2[arch], 0, 0x80880 | high) == "EINVAL", "with O_CLOEXEC and O_NONBLOCK"
        assert answer(image, arch, SOCKET[arch], 2, 0x80006 | high) == "ESOCKTNOSUPPORT", "DCCP"
        assert answer(image, arch, SETSOCKOPT[arch], 3, 6 | high, 31 | high) == "EPERM", "TCP_ULP"
        assert answer(image, arch, SOCKET[arch], 40 | high) == "EAFNOSUPPORT", "vsock"
        assert answer(image, arch, SOCKET[arch], 16 | high, 3, 9 | high) == "EINVAL", "netlink audit"


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("arch", ARCHES)
def test_ordinary_sockets_and_options_pass(image: str, arch: int) -> None:
    allowed = [family for family in range(64) if answer(image, arch, SOCKET[arch], family) == "ALLOW"]
    assert allowed == [0, 1, 2, 10, 16]
    assert answer(image, arch, SOCKET[arch], 0xFFFFFFFF) == "EAFNOSUPPORT"
    assert answer(image, arch, SOCKET[arch], 16, 3, 0) == "ALLOW", "netlink route"
    assert answer(image, arch, SETSOCKOPT[arch], 3, 6, 1) == "ALLOW", "TCP_NODELAY"
    assert answer(image, arch, SETSOCKOPT[arch], 3, 1, 31) == "ALLOW", "SO_SNDBUFFORCE"
    assert answer(image, arch, SOCKETPAIR[arch], 1) == "ALLOW"
    assert answer(image, arch, SOCKETPAIR[arch], 30) == "EAFNOSUPPORT", "TIPC"
    assert answer(image, arch, IOCTL[arch], 0, 0x5413) == "ALLOW", "TIOCGWINSZ"


def test_socketcall_is_for_i386_images_alone() -> None:
    for part in range(22):
        assert answer("amd64", bpf.I386, SOCKETCALL, part) == "ENOSYS"
        assert answer("i386", bpf.I386, SOCKETCALL, part) == "ALLOW"


@pytest.mark.parametrize("image", IMAGES)
def test_personalities(image: str) -> None:
    for arch, number in numbers("personality").items():
        for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
            assert answer(image, arch, number, value) == "ALLOW"
        for value in (0x40000, 0x0100000, 0x0400000, 4):
            assert answer(image, arch, number, value) == "ENOSYS"


def test_the_filter_fits_the_kernel() -> None:
    for image in IMAGES:
        code = list(struct.iter_unpack("<HBBI", seccomp.program(image)))
        assert len(code) <= 4096
        for at, (what, yes, no, value) in enumerate(code):
            jump = value if what == 0x05 else max(yes, no) if what & 7 == 5 else 0
            assert at + 1 + jump < len(code) or what == 0x06


def test_calls_without_conditions_never_load_arguments() -> None:
    """What the kernel's cache of always allowed calls needs: no path of such a call reads an argument."""
    for name in ("read", "write", "futex", "epoll_wait", "recvfrom", "sendto", "openat", "close", "accept4"):
        for arch, number in numbers(name).items():
            outcomes = {answer("amd64", arch, number, *([value] * 6)) for value in (0, 6, 31, 40, 0x5412, 2**64 - 1)}
            assert outcomes == {"ALLOW"}


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(Unavailable) as caught:
        seccomp.program.__wrapped__("amd64")
    assert "libseccomp2" in caught.value.hint


SYSTEM_CALLS = ("mount", "umount2", "pivot_root", "move_mount", "fsopen", "setns", "sethostname", "setdomainname")
NEW_USER = 0x10000000
UNSHARE = {bpf.X86_64: 272, bpf.I386: 310}
REBOOT = {bpf.X86_64: 169, bpf.I386: 88}
RESTART, RESTART2, HALT, POWER_OFF, KEXEC = 0x01234567, 0xA1B2C3D4, 0xCDEF0123, 0x4321FEDC, 0x45584543


def system_answer(arch: int, number: int, *args: int) -> str:
    value = bpf.run(seccomp.program("amd64", "system"), arch=arch, number=number, args=args)
    return "ALLOW" if value == bpf.ALLOW else errno.errorcode[value & 0xFFFF]


@pytest.mark.parametrize("arch", ARCHES)
def test_a_system_mounts_and_makes_namespaces_but_no_user_namespace(arch: int) -> None:
    for name in SYSTEM_CALLS:
        assert answer("amd64", arch, numbers(name)[arch]) == "EPERM", name
        assert system_answer(arch, numbers(name)[arch]) == "ALLOW", name
    for flag in NAMESPACES:
        expected = "EPERM" if flag == NEW_USER else "ALLOW"
        for high in (0, HIGH):
            assert system_answer(arch, CLONE[arch], flag | 17 | high) == expected
            assert system_answer(arch, UNSHARE[arch], flag | high) == expected
    assert system_answer(arch, UNSHARE[arch], NEW_USER | 0x20000) == "EPERM"
    assert system_answer(arch, 435) == "ENOSYS", "clone3 hides its flags"


@pytest.mark.parametrize("arch", ARCHES)
def test_a_system_may_restart_and_nothing_else_of_reboot(arch: int) -> None:
    for command, expected in ((RESTART, "ALLOW"), (RESTART2, "ALLOW"), (HALT, "EPERM"), (POWER_OFF, "EPERM")):
        assert system_answer(arch, REBOOT[arch], 0, 0, command) == expected
    assert system_answer(arch, REBOOT[arch], 0, 0, KEXEC) == "EPERM"
    assert system_answer(arch, REBOOT[arch], 0, 0, HALT | HIGH) == "EPERM"
    halting = seccomp.halting()
    for args, value in (((0, 0, HALT), bpf.ERRNO | errno.EPERM), ((0, 0, RESTART), bpf.ALLOW)):
        assert bpf.run(halting, arch=arch, number=REBOOT[arch], args=args) == value
    assert bpf.run(halting, arch=arch, number=numbers("mount")[arch], args=()) == bpf.ALLOW


def test_a_system_is_refused_what_any_container_is_besides() -> None:
    beyond = seccomp.profile().allowed("amd64", "system") - seccomp.profile().allowed("amd64")
    assert beyond == {name for names in seccomp.profile().system.allow.values() for name in names}
    assert not beyond & {"bpf", "keyctl", "open_by_handle_at", "perf_event_open", "userfaultfd", "quotactl", "swapon"}
    for arch in ARCHES:
        assert system_answer(arch, SOCKET[arch], 17) == "EAFNOSUPPORT"
        assert system_answer(arch, IOCTL[arch], 0, 0x5412) == "EPERM"
