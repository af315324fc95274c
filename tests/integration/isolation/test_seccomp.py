"""The filter in the kernel: the same calls without it, behind it alone, and in a container."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bulkhead.isolation import seccomp
from tests.integration.isolation.lab import Lab, probe_binary

ALLOWED = {"tcp_nodelay", "tiocgwinsz", "getpid"}
WORK_FOR_ROOT = {
    "keyctl", "add_key", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "unshare_user", "clone_user",
    "clone_mount", "clone3", "mount", "open_by_handle_at", "process_vm_readv", "kcmp", "pidfd_getfd", "personality",
    "modify_ldt", "setns", "tiocsti", "tiocsti_high",
}  # fmt: skip
"""Calls that this kernel carries out for its root: what refuses them behind the filter is the filter."""
REFUSALS = {"1", "38", "97", "22"}


def answers(output: str) -> dict[tuple[str, str], str]:
    """(call, ABI) -> result."""
    rows = [line.split() for line in output.splitlines()]
    return {(name, abi): result for name, abi, result in rows}


def run_probe(*argv: str) -> dict[tuple[str, str], str]:
    """The probe on the host, in namespaces of its own."""
    command = ["unshare", "--mount", "--uts", "--ipc", str(probe_binary()), *argv]
    return answers(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("image", ["amd64", "i386"])
def test_the_filter_alone_refuses_root(image: str, tmp_path: Path) -> None:
    program = tmp_path / "filter"
    program.write_bytes(seccomp.program(image))
    without, behind = run_probe("calls"), run_probe("calls", str(program))
    assert {name for name, abi in without if without[name, abi] == "ok"} >= WORK_FOR_ROOT
    assert without.keys() == behind.keys()
    for (name, abi), result in behind.items():
        assert result == "ok" if name in ALLOWED else result in REFUSALS, (name, abi, result)


@pytest.mark.parametrize("image", ["amd64", "i386"])
def test_in_a_container(lab: Lab, image: str) -> None:
    done = lab.run("probe", "calls", architecture=image)
    found = answers(done.output)
    assert len(found) > 70
    for (name, abi), result in found.items():
        assert result == "ok" if name in ALLOWED else result in REFUSALS, (name, abi, result)


def test_commands_run_beside_a_workload_are_behind_it_too(lab: Lab) -> None:
    with lab.running() as instance:
        found = answers(instance.execute("probe", "calls").output)
    assert found["unshare_user", "x86_64"] == found["keyctl", "i386"] == "1"
    assert found["getpid", "i386"] == "ok"
