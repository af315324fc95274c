"""Unikernels for the tests, built with the compiler that is there; and what they are made of."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.abilities import require

SOURCES = Path(__file__).with_name("unikernel")
SAYS = "one program and nothing else: "


def banner(directory: Path, *, multiboot: bool = False) -> Path:
    """A kernel of some hundred bytes that says a line, and does what its command line asks for."""
    require("gcc")
    name = "multiboot" if multiboot else "pvh"
    made, linked = directory / f"{name}.elf", ("-Ttext=0x101000", "-z", "noexecstack", "--build-id=none")
    head = ("--section-start=.head=0x100000",) if multiboot else ("--section-start=.note.Xen=0x100000",)
    flags = ("-m32", "-nostdlib", "-static", "-ffreestanding", *(("-DMULTIBOOT",) if multiboot else ()))
    words = [f"-Wl,{word}" for word in ("-e", "start", "-N", *linked, *head)]
    subprocess.run(["gcc", *flags, *words, "-o", made, SOURCES / "banner.S"], check=True)
    return made


def server(directory: Path) -> Path:
    """A static program that serves HTTP on port 8080; "exit N" says who it is and ends with N, TERM ends it with 7."""
    return _static("server", directory)


def obedient(directory: Path) -> Path:
    """A static program that does what the contract of drivers asks of a workload, by its first word."""
    return _static("contract", directory)


def _static(name: str, directory: Path) -> Path:
    require("gcc")
    made = directory / name
    subprocess.run(["gcc", "-Os", "-static", "-s", "-o", made, SOURCES / f"{name}.c"], check=True)
    return made
