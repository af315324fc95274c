"""A unikernel's computer: what its command line says in each form, what is refused, how its end is told."""

from __future__ import annotations

import socket
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.errors import AgentError
from bulkhead.isolation import program, unikernel
from bulkhead.isolation.base import Bundle, ProgramBoot, Saved
from bulkhead.isolation.guest import Moment
from bulkhead.model import Address, Exit, Isolation, KernelType, Plan, Program, Spec

ADDRESS = Address(
    network="default",
    ipv4="10.1.2.3",
    prefix4=20,
    gateway4="10.1.0.1",
    ipv6="fd00::3",
    prefix6=64,
    gateway6="fd00::1",
    mac="02:00:00:00:00:03",
)


def spec(kind: KernelType = "other", *, argv: tuple[str, ...] = (), own: bool = False, disk: bool = False) -> Spec:
    return Spec(
        id="0" * 32,
        name="one",
        image="uk",
        image_digest="sha256:" + "0" * 64,
        isolation=Isolation.UNIKERNEL,
        program=Program(kernel="/k", cmdline="quiet", type=kind, own=own, disk=disk),
        plan=Plan(memory=8 << 20, cpus=0.5, disk=16 << 20, iops=100),
        argv=argv,
        hostname="one",
        network="default",
        created=time.time(),
    )


def line(kind: KernelType, *argv: str, address: Address | None = ADDRESS) -> str:
    asked = spec(kind, argv=argv)
    assert asked.program
    return program.kernel_line(asked, asked.program, address)


def test_each_kind_is_told_its_address_in_its_own_words() -> None:
    mask = "255.255.240.0"
    ipv4 = f"ip=10.1.2.3::10.1.0.1:{mask}:one:eth0:off:10.1.0.1"
    assert line("linux", "a b", "") == f'quiet {ipv4} ip6=fd00::3/64,fd00::1 -- "a b" ""'
    assert line("unikraft", "x") == "quiet netdev.ip=10.1.2.3/20:10.1.0.1:10.1.0.1 -- x"
    assert line("mirage", "x") == "quiet --ipv4=10.1.2.3/20 --ipv4-gateway=10.1.0.1 x"
    assert line("other", "x") == "quiet x"
    assert line("linux", address=None) == "quiet"


def test_given_words_replace_those_of_the_image() -> None:
    asked = spec("unikraft", argv=("mine",))
    told = Program(kernel="/k", cmdline="a=1 -- theirs", type="unikraft")
    assert program.kernel_line(asked, told, None) == "a=1 -- mine"
    assert program.kernel_line(spec("unikraft"), told, None) == "a=1 -- theirs"


def test_what_cannot_stand_on_the_line_is_refused_at_once() -> None:
    found = program.problems(spec(argv=('a"b', "a\nb", "a\\b", "fine")).model_copy(update={"tty": True}))
    assert len(found) == 4 and all(problem.hint for problem in found)
    assert next(problem.what for problem in program.problems(spec("linux", argv=("x" * 3000,)))).startswith(
        "the command"
    )


@pytest.mark.parametrize("own", [False, True])
def test_the_computer_has_what_was_asked_for(own: bool) -> None:
    boot = ProgramBoot(
        vmm=Path("/vmm"), accelerator="tcg", kernel=Path("/k"), initrd=None, disk=Path("/d") if own else None, tap="t0"
    )
    bundle = Bundle(Path("/bundle"), spec("linux", own=own, disk=own), address=ADDRESS, program=boot)
    words = " ".join(program.command_line(bundle))
    assert "-m 8388608B" in words and "-S" in words and "tap,id=net0,ifname=t0" in words
    assert ("isa-debug-exit" in words) is not own
    assert ("virtio-blk-pci" in words) is own
    assert ("name=bulkhead.code" in words) is own
    given = {inside for _, inside, read_only in program.files(bundle) if not read_only}
    assert given == ({program.CODE, program.DISK} if own else set())


def test_one_from_a_template_is_the_same_computer_and_hears_who_it_is() -> None:
    """What the kernel is told is the template's: the migration would find another computer."""
    asked = spec("linux", argv=("a b", ""), own=True, disk=True)
    boot = ProgramBoot(vmm=Path("/vmm"), accelerator="tcg", kernel=Path("/k"), initrd=None, disk=None, tap="t0")
    template = Bundle(Path("/t"), asked.model_copy(update={"argv": ()}), program=replace(boot, ram=Path("/ram")))
    started = Bundle(
        Path("/b"), asked, address=ADDRESS, program=replace(boot, disk=Path("/d"), saved=Saved(3, Path("/state")))
    )
    lines = [program.command_line(bundle) for bundle in (template, started)]
    appended = {line[line.index("-append") + 1] for line in lines}
    assert appended == {f"quiet {program.WAITS}"}
    devices = [[line[at + 1].split(",")[0] for at, word in enumerate(line) if word == "-device"] for line in lines]
    assert devices[0] == devices[1]
    assert "-incoming" in lines[1] and "-incoming" not in lines[0]
    message = program.told(started, Moment(5 * 10**9 + 7, b"e" * 64))
    assert int.from_bytes(message[:4], "little") == len(message) - 4
    assert message.endswith(b"a b\0\0") and b"10.1.2.3/20" in message and b"e" * 64 in message


@pytest.mark.parametrize(("said", "right"), [(b"R", True), (b"A", False), (b"RRRRRRRR", True), (b"", False)])
def test_what_the_small_init_may_say(said: bytes, right: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with nullcontext() if right else pytest.raises(AgentError):
            unikernel._hear(ours, b"R", 5)


def test_a_small_init_that_says_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(AgentError, match="said nothing"):
        unikernel._hear(ours, b"R", 0.01)


@pytest.mark.parametrize(("qemu", "code"), [(0, 0), (83, 0), (11, 5), (1, 1), (2, 2), (255, 127)])
def test_what_the_code_of_qemu_means(qemu: int, code: int) -> None:
    assert unikernel._of_qemu(Exit(code=qemu)).code == code


@pytest.mark.parametrize(
    ("told", "code"), [(b"7\n", 7), (b"255\n", 255), (b"256\n", 255), (b"", 255), (b"x" * 4000, 255), (b"\xb2", 255)]
)
def test_what_the_small_init_says_is_a_number_or_nothing(tmp_path: Path, told: bytes, code: int) -> None:
    (tmp_path / program.CODE_FILE).write_bytes(told)
    found = unikernel._told(tmp_path, Exit(code=0))
    assert found.code == code
    assert bool(found.error) is (told not in (b"7\n", b"255\n"))


def test_without_a_word_it_is_lost(tmp_path: Path) -> None:
    assert unikernel._told(tmp_path, Exit(code=0)).code == 255
