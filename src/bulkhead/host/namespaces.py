"""Network namespaces without a name: made by a thread, held by a file descriptor, gone with the last user.

Only a thread's own namespaces are ever changed, and that thread ends right after: no other code can find itself in
the wrong one, and nothing has to be undone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from bulkhead.errors import HostError
from bulkhead.host import syscalls

T = TypeVar("T")


class _Task(Generic[T]):
    """A function's result or error, brought over from another thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._results: list[T] = []

    def run(self) -> T:
        thread = threading.Thread(target=self._work, name="namespace")
        thread.start()
        thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _work(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:  # raised again by run()
            self._error = error


def make(configure: Callable[[int], T]) -> tuple[int, T]:
    """Make a network namespace and call `configure` with a descriptor of it, in a thread that is inside.

    Returns the descriptor, which the caller closes, and what `configure` returned. The namespace belongs to the
    host's user namespace: who is root in a container can look at it and not change it.
    """

    def work() -> tuple[int, T]:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return descriptor, configure(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    return _Task(work).run()


def inside(descriptor: int, function: Callable[[], T]) -> T:
    """Call `function` in a thread that is in the network namespace `descriptor` is open on."""

    def work() -> T:
        syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
        return function()

    return _Task(work).run()


def open_of(pid: int) -> int:
    """A descriptor of the network namespace of a process; the caller closes it. HostError when it has ended."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"the network namespace of process {pid} cannot be opened: {error.strerror}") from error


def set_sysctls(values: dict[str, str]) -> None:
    """Write settings below /proc/sys/net of the calling thread's network namespace."""
    for name, value in values.items():
        path = f"/proc/sys/net/{name}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"{path} cannot be opened: {error.strerror}", hint=_hint(name)) from error
        try:
            os.write(descriptor, value.encode())
        except OSError as error:
            raise HostError(f"{path} cannot be set to {value!r}: {error.strerror}") from error
        finally:
            os.close(descriptor)


def _hint(name: str) -> str:
    return "networks need a kernel with IPv6" if name.startswith("ipv6") else ""
