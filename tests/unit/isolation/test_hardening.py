"""Capabilities, limits and environments."""

from __future__ import annotations

import resource

from bulkhead.isolation import capabilities, hardening
from bulkhead.isolation.capabilities import Cap

NO_LIMIT = resource.RLIM_INFINITY


def test_masks_and_names() -> None:
    assert capabilities.mask({Cap.CHOWN, Cap.SYS_ADMIN}) == 0x200001
    assert capabilities.names(0x200001) == ["CAP_CHOWN", "CAP_SYS_ADMIN"]
    assert capabilities.names(1 << 63) == ["CAP_63"]
    assert [cap.value for cap in Cap] == list(range(41))


def test_containers_lack_what_docker_gives_away() -> None:
    assert len(capabilities.CONTAINER) == 11
    assert not capabilities.CONTAINER & {Cap.NET_RAW, Cap.MKNOD, Cap.AUDIT_WRITE, Cap.SYS_ADMIN, Cap.SYS_PTRACE}


def test_chroots_lack_what_is_about_the_running_system() -> None:
    never = {
        Cap.SYS_MODULE,
        Cap.SYS_RAWIO,
        Cap.SYS_BOOT,
        Cap.SYS_TIME,
        Cap.SYSLOG,
        Cap.BPF,
        Cap.NET_ADMIN,
        Cap.SYS_PTRACE,
    }
    assert not capabilities.CHROOT & never
    assert capabilities.CONTAINER < capabilities.CHROOT


def test_limits_are_cut_down_to_the_hosts() -> None:
    def limits(host: dict[int, int]) -> dict[int, tuple[int, int]]:
        return {int(op.arguments[0]): (op.arguments[1], op.arguments[2]) for op in hardening.rlimits(host)}  # type: ignore[misc]

    assert limits({}) == hardening.RLIMITS
    cut = limits({resource.RLIMIT_NOFILE: 1000, resource.RLIMIT_NPROC: 50, resource.RLIMIT_CORE: NO_LIMIT})
    assert cut[resource.RLIMIT_NOFILE] == (1000, 1000)
    assert cut[resource.RLIMIT_NPROC] == (50, 50)
    assert cut[resource.RLIMIT_CORE] == (0, NO_LIMIT)


def test_environment() -> None:
    assert hardening.environment(["A=1", "A=2", "B"]) == [f"PATH={hardening.PATH}", "A=2", "B="]
    assert "TERM=xterm" in hardening.environment([], tty=True)
    assert "HOSTNAME=h" in hardening.environment([], hostname="h", container=True)
    assert not [entry for entry in hardening.environment([], hostname="h") if entry.startswith("HOSTNAME")]


def test_terminals_go_by_processes() -> None:
    """Few enough that no instance has the kernel's 3,072, enough for people in a small one."""
    assert [hardening.most_terminals(pids) for pids in (1, 64, 512, 100_000)] == [16, 16, 128, 256]
