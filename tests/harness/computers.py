"""A whole system of 512 bytes: it speaks on its serial port, restarts, switches itself off, obeys its power button."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.abilities import require

HELLO = "system is up"
SIZE = 32 << 20
_CODE = 440
"""Bytes before the partition table."""
_SOURCE = f"""
.code16
        cli
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %ss
        mov $0x7c00, %sp
        mov $0x602, %dx        # ACPI: tell of the power button
        mov $0x100, %ax
        out %ax, %dx
        mov $hello, %si
say:    lodsb
        test %al, %al
        jz listen
        call put
        jmp say
listen: mov $0x600, %dx
        in %dx, %ax
        test $1, %ah
        jnz off
        mov $0x3fd, %dx
        in %dx, %al
        test $1, %al
        jz listen
        mov $0x3f8, %dx
        in %dx, %al
        cmp $'r', %al
        je again
        cmp $'q', %al
        je off
        call put
        jmp listen
put:    push %ax
        mov $0x3fd, %dx
busy:   in %dx, %al
        test $0x20, %al
        jz busy
        pop %ax
        mov $0x3f8, %dx
        out %al, %dx
        ret
again:  mov $0xfe, %al
        out %al, $0x64
        jmp again
off:    mov $0x604, %dx
        mov $0x2000, %ax
        out %ax, %dx
        jmp off
hello:  .asciz "{HELLO}\\r\\n"
"""


def make(disk: Path) -> Path:
    """The disk: raw, with a BIOS's partition table. It repeats what is typed; `r` restarts it, `q` switches it off."""
    require("as", "ld", "sfdisk")
    source, program = disk.with_suffix(".s"), disk.with_suffix(".o")
    source.write_text(_SOURCE)
    subprocess.run(["as", "--32", "-o", program, source], check=True)
    code = disk.with_suffix(".bin")
    argv: list[str | Path] = [
        "ld",
        "-m",
        "elf_i386",
        "-Ttext=0x7c00",
        "--oformat=binary",
        "-e",
        "0x7c00",
        "-o",
        code,
        program,
    ]
    subprocess.run(argv, check=True)
    assert code.stat().st_size <= _CODE
    with disk.open("wb") as file:
        file.truncate(SIZE)
    table = b"label: dos\nsize=8MiB, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, check=True, capture_output=True)
    with disk.open("r+b") as file:
        file.write(code.read_bytes())
    return disk
