"""Carries out limit programs in Python, as the agent does in C, and runs programs under them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bulkhead.agent.operations import Code, Operation
from bulkhead.host import cgroups
from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts
from bulkhead.limits import Ended, LimitProgram, interpret_reports, program, update
from bulkhead.model import Plan

PLAN = Plan(memory=64 << 20, cpus=1, disk=64 << 20, pids=64)


def only_on(layout: Layout, controller: str, version: int) -> None:
    """End the test where the host has the controller in another version: what that one does has a test of its own.

    Hosts with cgroup v1 or both run those for v2 in a guest (test_nested.py).
    """
    if layout.version(controller) != version:
        pytest.skip(f"for cgroup v{version}: this host has {controller} as v{layout.version(controller)}")


def carry_out(operations: Iterable[Operation]) -> list[str]:
    """Do what the operations say; the reports. OSError where one that is not optional fails."""
    reports: list[str] = []
    for operation in operations:
        try:
            _carry_out(operation, reports)
        except OSError:
            if not operation.optional:
                raise
    return reports


def _carry_out(operation: Operation, reports: list[str]) -> None:
    path = Path(str(operation.arguments[0]))
    match operation.code:
        case Code.MKDIR:
            path.mkdir(exist_ok=True)
        case Code.WRITE:
            descriptor = os.open(path, os.O_WRONLY)
            try:
                os.write(descriptor, str(operation.arguments[1]).encode())
            finally:
                os.close(descriptor)
        case Code.READ:
            reports.append(path.read_text())
        case Code.RMDIR:
            deadline = time.monotonic() + 2
            while path.is_dir():
                try:
                    path.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.001)
        case _:
            raise AssertionError(f"{operation.describe()} is not for limits")


@dataclass
class Limited:
    """An instance that is nothing but its cgroups."""

    plan: Plan
    cgroup: str
    layout: Layout
    facts: HostFacts
    cpuset: tuple[int, ...] = ()
    device: tuple[int, int] | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def group(self) -> str:
        """Below each tree."""
        return f"{self.cgroup}/{self.id}"

    @property
    def program(self) -> LimitProgram:
        """What its start carries out."""
        return program(
            self.plan,
            cgroup=self.cgroup,
            instance_id=self.id,
            layout=self.layout,
            facts=self.facts,
            cpuset=self.cpuset,
            device=self.device,
        )

    def prepare(self) -> None:
        """Make the cgroups."""
        carry_out(self.program.prepare)

    def start(self, code: str, *arguments: str, enter: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Run Python code as a process that has put itself in: first into `enter`, then where the program says."""
        joins = " ".join((*enter, *self.program.join))
        shell = f'for file in {joins}; do echo 0 > "$file" || exit 99; done; exec "$@"'
        argv = ["sh", "-c", shell, "sh", sys.executable, "-I", "-S", "-c", code, *arguments]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, code: str, *arguments: str, enter: Sequence[str] = ()) -> tuple[int, str]:
        """Run Python code to its end: (exit status, output)."""
        process = self.start(code, *arguments, enter=enter)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def change(self, plan: Plan) -> None:
        """Another plan while it runs."""
        operations = update(
            self.plan,
            plan,
            cgroup=self.cgroup,
            instance_id=self.id,
            layout=self.layout,
            facts=self.facts,
            cpuset=self.cpuset,
            device=self.device,
        )
        carry_out(operations)
        self.plan = plan

    def finish(self) -> Ended:
        """Kill what is left, read the reports, remove the cgroups."""
        cgroups.kill(self.layout, self.group)
        return interpret_reports(carry_out(self.program.finish))

    def read(self, controller: str, name: str) -> str:
        """A file of one of its cgroups."""
        return (self.layout.path(controller, self.group) / name).read_text().strip()


Make = Callable[..., Limited]
"""The fixture `make`: a plan (PLAN) and fields of Limited to an instance whose cgroups are there."""


def first_line(process: subprocess.Popen[str]) -> str:
    """What it says when it is on its way."""
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    """Reap it, once it was killed."""
    process.communicate(timeout=30)
