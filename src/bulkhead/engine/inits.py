"""What `--init system` makes of a request: the command, the terminal, how it is stopped. Its wall is the drivers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from bulkhead.errors import Problem
from bulkhead.host.cgroups import Layout
from bulkhead.images import ImageConfig
from bulkhead.model import CreateRequest, Isolation, Spec

INIT = "/sbin/init"
INITS = frozenset({"/init", "/lib/systemd/systemd", "/sbin/init", "/usr/lib/systemd/systemd", "/usr/sbin/init"})
"""Programs that an image may name itself."""
STOP_SIGNAL = "SIGRTMIN+3"
"""systemd's "halt", from its container interface. TERM makes it start itself anew."""
STOP_SECONDS, SYSTEM_STOP_SECONDS = 10.0, 90.0
"""A system ends its services first, each within systemd's 90 s."""


def is_system(request: CreateRequest | Spec) -> bool:
    """Whether a whole system is asked for."""
    return request.init == "system"


def command_line(request: CreateRequest, config: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command as Docker joins them: a given entrypoint drops the image's command.

    Of a system it is the init, where neither the user nor the image names another.
    """
    if request.entrypoint is not None:
        return (*request.entrypoint, *request.command)
    if is_system(request):
        return request.command or (_own(config) if _names_init(config) else (INIT,))
    return (*config.entrypoint, *(request.command or config.cmd))


def user(request: CreateRequest, config: ImageConfig) -> str:
    """Who runs it: an init is root's, whoever the image's own command is for."""
    return request.user if request.user is not None else "" if is_system(request) else config.user


def stop_signal(request: CreateRequest, config: ImageConfig) -> str:
    """What ends it in order."""
    if is_system(request):
        return request.stop_signal or (config.stop_signal if _names_init(config) else "") or STOP_SIGNAL
    return request.stop_signal or config.stop_signal or "SIGTERM"


def stop_seconds(request: CreateRequest) -> float:
    """How long that may take before it is ended by force."""
    if request.stop_timeout is not None:
        return request.stop_timeout
    return SYSTEM_STOP_SECONDS if is_system(request) else STOP_SECONDS


def problems(request: CreateRequest | Spec, level: Isolation, layout: Layout) -> list[Problem]:
    """What this host lacks for a system."""
    if is_system(request) and level is Isolation.CONTAINER and layout.unified is None:
        what = "a system manages cgroups of version 2, and this host has none mounted"
        return [Problem(what, "mkdir /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified")]
    return []


def _own(config: ImageConfig) -> tuple[str, ...]:
    return (*config.entrypoint, *config.cmd)


def _names_init(config: ImageConfig) -> bool:
    words: Sequence[str] = _own(config)
    return bool(words) and str(PurePosixPath(words[0])) in INITS
