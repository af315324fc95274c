"""Calls that need no privilege."""

from __future__ import annotations

import os
import signal
import subprocess

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
