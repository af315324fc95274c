"""The unmodified system: an operating system of its own, from its firmware on, on a jailed QEMU.

The agent on the host supervises QEMU, whose stdin and output are the serial port. Nothing of Bulkhead's is in the
guest: it ends by its power button, and runs commands where it has a guest agent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import Start
from bulkhead.agent.session import Session
from bulkhead.errors import AgentError, Problem, Refused, Unavailable
from bulkhead.host.guest_agent import GuestAgent
from bulkhead.host.qmp import Qmp, connect_below
from bulkhead.isolation import expecting, hardware, jail, vmm
from bulkhead.isolation.base import Bundle, Command, Handle
from bulkhead.isolation.departing import DISK_SOCKET
from bulkhead.isolation.jail import Cell
from bulkhead.isolation.migrating import OTHER_VERSION, Migrating, machine_of
from bulkhead.isolation.powered import Powered, network_problems
from bulkhead.isolation.supervised import common_problems
from bulkhead.model import Isolation, Spec
from bulkhead.moves import Blueprint

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of a command with an environment of its own, which takes the place of the guest agent's."""
FLUSH_SECONDS = 60.0
_HYPERVISOR, _ACCELERATOR, _CPU_MODEL = "hypervisor", "accelerator", "cpu_model"
OUTPUT = 1 << 18
"""Bytes of each output of a command that are passed on."""


class SystemDriver(Migrating, Powered):
    """Runs unmodified systems under an agent each."""

    isolation = Isolation.VM
    sockets = (vmm.QMP, hardware.GUEST_AGENT, DISK_SOCKET)
    node, agent = hardware.NODE, False
    no_command = ("a command cannot be joined to in an unmodified system", "leave out -i and -t")

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that such a computer cannot do for `spec`."""
        problems = common_problems(spec)
        if spec.system:
            problems += hardware.problems(spec, spec.system)
        return problems + network_problems(spec)

    def start_request(self, bundle: Bundle) -> Start:
        """QEMU in its jail, the workload of the agent."""
        _, boot = hardware.require_system(bundle)
        cell = Cell(
            boot.vmm,
            hardware.files(boot),
            kvm=boot.accelerator == "kvm",
            tap=bool(boot.tap),
            terminal=bundle.spec.tty,
        )
        return self.powered_request(bundle, cell, hardware.command_line(bundle))

    def begin(
        self, session: Session, bundle: Bundle, request: Start, on_launch: Callable[[Path], None] | None
    ) -> tuple[int, dict[str, str]]:
        """The handle tells what runs it."""
        _, boot = hardware.require_system(bundle)
        pid, more = super().begin(session, bundle, request, on_launch)
        return pid, {
            **more,
            _HYPERVISOR: boot.vmm.name,
            _ACCELERATOR: boot.accelerator,
            _CPU_MODEL: bundle.spec.cpu_model,
        }

    def switch_on(self, monitor: Qmp, bundle: Bundle) -> None:
        """Let it run, or wait for what another host's machine is."""
        _, boot = hardware.require_system(bundle)
        if boot.incoming:
            expecting.open_door(monitor, self.node)
            jail.seal_sockets(bundle)
            return
        super().switch_on(monitor, bundle)

    def describe(self, bundle: Path, handle: Handle) -> Blueprint:
        """What another host has to make. Raises Refused where this one cannot go while it runs."""
        if _HYPERVISOR not in handle.data:
            raise Refused(OTHER_VERSION, hint="move it with --stop")
        return machine_of(
            bundle,
            accelerator=handle.data[_ACCELERATOR],
            hypervisor=handle.data[_HYPERVISOR],
            cpu_model=handle.data.get(_CPU_MODEL, ""),
        )

    def expect(self, bundle: Bundle, machine: Blueprint) -> Handle:
        """The very same computer, which waits. Raises AgentError, HostError."""
        _, boot = hardware.require_system(bundle)
        waiting = replace(bundle, system=replace(boot, incoming=True))
        return self._launch(waiting, self.start_request(waiting), None)

    def flush(self, bundle: Path, handle: Handle) -> None:
        """Let the system write what it keeps in memory to its disk, by its guest agent.

        Where there is none its disk is as after a loss of power, which file systems are made for.
        """
        until = time.monotonic() + FLUSH_SECONDS
        with suppress(AgentError, Unavailable), self._agent(bundle) as agent:
            agent.run(("sync",), alive=lambda: time.monotonic() < until)

    def _agent(self, bundle: Path) -> GuestAgent:
        return GuestAgent(connect_below(bundle / vmm.DIRECTORY, hardware.GUEST_AGENT))

    def collect(self, bundle: Path, command: Command, *, alive: Callable[[], bool]) -> Collected:
        """Run a command by the guest agent."""
        if problems := _command_problems(command):
            raise Refused(problems)
        env = (PATH, *command.env) if command.env else ()
        with self._agent(bundle) as agent:
            done = agent.run(command.argv, env=env, alive=alive)
        more = done.truncated or max(len(done.stdout), len(done.stderr)) > OUTPUT
        return Collected(done.code, done.stdout[:OUTPUT], done.stderr[:OUTPUT], truncated=more)


def _command_problems(command: Command) -> list[Problem]:
    console = "use the serial console (bulkhead attach), or ssh through a published port"
    asked = (
        (command.tty, "terminal (-t)", console),
        (command.stdin, "stdin (-i)", console),
        (command.user is not None, "user of its own (-u)", "name su or runuser in the command"),
        (command.workdir is not None, "working directory (-w)", "name sh -c 'cd ...' in the command"),
    )
    return [Problem(f"a guest agent gives a command no {what}", hint) for given, what, hint in asked if given]
