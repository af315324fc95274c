"""The seccomp filter of containers: seccomp.toml compiled to BPF.

The filter has two parts. The first, assembled here, refuses calls for the values of their arguments; what it does not
refuse flows into the second, made by libseccomp, which holds the list of what is allowed. A call whose arguments are
never looked at stays in the kernel's cache of calls that are always allowed (Linux 5.11) and costs nothing.
"""

from __future__ import annotations

import errno
import struct
import tempfile
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from bulkhead.errors import Unavailable
from bulkhead.model import Init

LOW_HALF = 0xFFFFFFFF
"""The kernel takes these arguments as 32 bits: what is in the upper half of the register must not hide them."""
BINARY_TREE = 2
MAX_INSTRUCTIONS = 4096
UNKNOWN = -1
"""__NR_SCMP_ERROR. Names of the other architecture's calls resolve to other negative numbers."""
I386 = ("i386", "386")
AUDIT_ARCH = {"x86_64": 0xC000003E, "x86": 0x40000003}

# linux/filter.h: instruction classes with their modes, and offsets in struct seccomp_data.
_INSTRUCTION = struct.Struct("<HBBI")
_LOAD, _RETURN, _GOTO = 0x20, 0x06, 0x05
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand: struct sock_filter."""
_SKIP: Instruction = (_GOTO, 0, 0, 0)
"""Placeholder of a jump to the end of the rule or section that it is in."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Condition(_Part):
    """What the low half of an argument is: one of `values`, `between` two (included), or has any bit of a mask."""

    argument: int
    values: tuple[int, ...] = ()
    between: tuple[int, int] | None = None
    any_bit_of: int = 0

    def assemble(self) -> list[Instruction]:
        """Code that goes on behind its end where the condition holds; where not, its last step skips the rule."""
        if self.between:
            first, last = self.between
            tests = [(_AT_LEAST, 0, 1, first), (_GREATER, 0, 1, last)]
        else:
            kinds = [(_EQUAL, value) for value in self.values] + [(_ANY_BIT, self.any_bit_of)] * bool(self.any_bit_of)
            tests = [(kind, len(kinds) - at, 0, value) for at, (kind, value) in enumerate(kinds)]
        return [(_LOAD, 0, 0, _ARGUMENTS + 8 * self.argument), *tests, _SKIP]


class RefuseIf(_Part):
    """A call that is refused where all `conditions` hold. Its numbers; None where an architecture lacks it."""

    call: str
    why: str
    x86_64: int | None = None
    x86: int | None = None
    errno: str = "EPERM"
    conditions: tuple[Condition, ...] = ()
    unless_i386_image: bool = False
    init: Init | None = None
    """The kind of instance that it is for; None: for all."""

    def assemble(self, number: int) -> list[Instruction]:
        """Code that refuses, or goes on behind its end."""
        tests = [instruction for condition in self.conditions for instruction in condition.assemble()]
        refusal = (_RETURN, 0, 0, _ERRNO | getattr(errno, self.errno))
        return _skipping([(_LOAD, 0, 0, _NUMBER), (_EQUAL, 1, 0, number), _SKIP, *tests, refusal])


class System(_Part):
    """What a system may do beyond the rest: groups of calls, taken out of those that are refused."""

    allow: dict[str, tuple[str, ...]]


class Only(_Part):
    """A call that is allowed where the low half of an argument is one of `values`."""

    call: str
    argument: int
    values: tuple[int, ...]


class Profile(_Part):
    """seccomp.toml."""

    allow: dict[str, tuple[str, ...]]
    allow_for_i386_images: dict[str, tuple[str, ...]]
    only: tuple[Only, ...]
    refuse: dict[str, tuple[str, ...]]
    refuse_if: tuple[RefuseIf, ...]
    system: System

    def allowed(self, architecture: str, init: Init = "none") -> set[str]:
        """Names of all calls that an image of this architecture may make, some of them not with every argument."""
        groups = [self.allow, self.allow_for_i386_images] if architecture in I386 else [self.allow]
        groups += [self.system.allow] if init == "system" else []
        return {name for group in groups for names in group.values() for name in names} | {o.call for o in self.only}

    def refused(self) -> set[str]:
        """Names of the calls that answer EPERM."""
        return {name for names in self.refuse.values() for name in names}


@lru_cache(maxsize=1)
def profile() -> Profile:
    """The profile as data."""
    text = resources.files("bulkhead.isolation").joinpath("seccomp.toml").read_text()
    return Profile.model_validate(tomllib.loads(text))


@lru_cache(maxsize=4)
def program(architecture: str, init: Init = "none") -> bytes:
    """The filter for images of an architecture ("amd64", "i386"), as an array of struct sock_filter.

    Raises Unavailable where libseccomp is missing.
    """
    try:
        import pyseccomp  # looks for its library when it is imported
    except (ImportError, OSError, RuntimeError) as error:
        raise Unavailable(f"libseccomp is missing: {error}", hint="apt install libseccomp2") from error
    rules = profile()
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in _refusals(rules, architecture, init))
    code += _allowances(pyseccomp, rules, architecture, init)
    if len(code) > MAX_INSTRUCTIONS * _INSTRUCTION.size:
        raise ValueError(f"the seccomp filter has {len(code) // _INSTRUCTION.size} instructions, too many")
    return code


@lru_cache(maxsize=1)
def halting() -> bytes:
    """A filter that allows everything but `reboot` to halt: an init that may not, and is in a container, exits."""
    only = profile().model_copy(update={"refuse_if": [rule for rule in profile().refuse_if if rule.call == "reboot"]})
    code = [*_refusals(only, "amd64", "system"), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def _refusals(rules: Profile, architecture: str, init: Init) -> list[Instruction]:
    """Refuses by arguments, for each architecture of a call; what it does not refuse comes out at its end."""
    code: list[Instruction] = []
    for name, audit_arch in AUDIT_ARCH.items():
        section: list[Instruction] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, audit_arch), _SKIP]
        for rule in rules.refuse_if:
            number = rule.x86_64 if name == "x86_64" else rule.x86
            if rule.init not in (None, init):
                continue
            if number is not None and not (rule.unless_i386_image and architecture in I386):
                section += rule.assemble(number)
        code += _skipping(section)
    return code


def _skipping(code: list[Instruction]) -> list[Instruction]:
    """The code with every placeholder made a jump to its end."""
    return [(_GOTO, 0, 0, len(code) - at - 1) if step == _SKIP else step for at, step in enumerate(code)]


def _allowances(library: ModuleType, rules: Profile, architecture: str, init: Init) -> bytes:
    """Lets pass what is listed. The rest answers EPERM where it is known to be refused, ENOSYS where it is not."""
    made = library.SyscallFilter(library.ERRNO(errno.ENOSYS))
    # A foreign architecture's call, x32's above all, is one that this kernel does not have.
    made.set_attr(library.Attr.ACT_BADARCH, library.ERRNO(errno.ENOSYS))
    made.set_attr(library.Attr.CTL_OPTIMIZE, BINARY_TREE)
    for wanted in (library.Arch.X86_64, library.Arch.X86):
        if not made.exist_arch(wanted):
            made.add_arch(wanted)
    allowed = rules.allowed(architecture, init)
    for name in _known(library, allowed - {only.call for only in rules.only}):
        made.add_rule(library.ALLOW, name)
    for only in rules.only:
        for value in only.values:
            made.add_rule(library.ALLOW, only.call, library.Arg(only.argument, library.MASKED_EQ, LOW_HALF, value))
    for name in _known(library, rules.refused() - allowed):
        made.add_rule(library.ERRNO(errno.EPERM), name)
    return _export(made)


def _known(library: ModuleType, names: Iterable[str]) -> list[str]:
    """Those that this libseccomp has heard of; any other call is denied by default."""
    return [name for name in sorted(names) if library.resolve_syscall(library.Arch.X86_64, name) != UNKNOWN]


def _export(made: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
