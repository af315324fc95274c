"""Calls that need no privilege."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bulkhead.host import syscalls


def test_sealed_memfd_cannot_be_changed() -> None:
    """Not by writing, growing, shrinking or opening it again."""
    descriptor = syscalls.sealed_memfd("agent", b"#!/bin/true\n" * 100)
    try:
        assert os.pread(descriptor, 12, 0) == b"#!/bin/true\n"
        for attempt in (lambda: os.pwrite(descriptor, b"x", 0), lambda: os.ftruncate(descriptor, 0)):
            with pytest.raises(PermissionError):
                attempt()
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        try:
            with pytest.raises(PermissionError):
                os.write(again, b"x")
        finally:
            os.close(again)
    finally:
        os.close(descriptor)


def test_pidfd_of_a_process() -> None:
    """Signals reach it, and nothing else once it has gone."""
    process = subprocess.Popen(["sleep", "60"])
    descriptor = syscalls.pidfd_open(process.pid)
    assert descriptor is not None
    try:
        assert syscalls.pidfd_signal(descriptor, signal.SIGKILL)
        assert process.wait(timeout=10) == -signal.SIGKILL
        assert not syscalls.pidfd_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
    assert syscalls.pidfd_open(process.pid) is None


def test_failures_carry_the_errno() -> None:
    """A bad descriptor, a missing path."""
    with pytest.raises(syscalls.CallError, match="open_tree /nonexistent: ENOENT") as caught:
        os.close(syscalls.open_tree("/nonexistent", clone=False))
    assert caught.value.errno == 2
    with pytest.raises(syscalls.CallError, match="setns 9999: EBADF"):
        syscalls.setns(9999)


def test_turns_are_asked_for_and_inherited() -> None:
    """By what a process starts; nobody else's are changed."""
    mine, reader = syscalls.slice_of(0), "import sys; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", reader], stdin=subprocess.PIPE)
    try:
        given = syscalls.set_slice(process.pid, 200_000)
        if not given:
            pytest.skip("this kernel has no turns of a chosen length (Linux 6.12)")
        assert given == syscalls.slice_of(process.pid) == 200_000
        assert syscalls.slice_of(0) == mine
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        process.communicate(timeout=60)
    code = "import sys; from bulkhead.host.syscalls import *; set_slice(0, 300000); import subprocess as s;"
    code += "s.run([sys.executable, '-c', 'from bulkhead.host.syscalls import slice_of; print(slice_of(0))'])"
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert said.stdout == "300000\n"


def test_who_is_not_scheduled_as_usual_keeps_what_it_has() -> None:
    """A thread that runs when nothing else does has no turns."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        assert syscalls.set_slice(process.pid, 200_000) == 0
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    finally:
        process.kill()
        process.wait()


def test_turns_of_a_process_that_is_gone() -> None:
    with pytest.raises(syscalls.CallError, match="sched_getattr"):
        syscalls.set_slice(1 << 22, 200_000)
