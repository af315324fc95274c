"""The unmodified system: an operating system of its own, from its firmware on, on a jailed QEMU.

The agent on the host supervises QEMU, whose stdin and output are the serial port. Nothing of Bulkhead's is in the
guest: it ends by its power button, and runs commands where it has a guest agent.
"""

from __future__ import annotations

import shutil
import signal as signals
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import ExecRequest, Start
from bulkhead.agent.launch import NETNS_NEW, NETNS_PATH
from bulkhead.agent.session import Session
from bulkhead.config import Config
from bulkhead.errors import AgentError, HostError, Problem, Refused, Unavailable
from bulkhead.host import processes
from bulkhead.host.guest_agent import GuestAgent
from bulkhead.host.qmp import Qmp, connect_below
from bulkhead.isolation import hardware, jail, vmm
from bulkhead.isolation.base import Bundle, Change, Command, Handle, Probe
from bulkhead.isolation.console import last_words
from bulkhead.isolation.jail import Cell
from bulkhead.isolation.supervised import KILL_SECONDS, Outside, Supervised, common_problems, start_flags
from bulkhead.model import UID_RANGE, Isolation, Spec
from bulkhead.quantities import parse_signal

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of a command with an environment of its own, which takes the place of the guest agent's."""
FLUSH_SECONDS = 60.0
OUTPUT = 1 << 18
"""Bytes of each output of a command that are passed on."""
_NO_ACCESS = "an unmodified system's files are its own kernel's business"


class SystemDriver(Supervised):
    """Runs unmodified systems under an agent each. `ability` finds out whether QEMU works here."""

    isolation = Isolation.VM

    def __init__(self, config: Config, outside: Outside, *, ability: Callable[[], Probe]) -> None:
        super().__init__(config, outside)
        self._ability = ability

    def probe(self) -> Probe:
        """Whether VMs work here, and with what."""
        return self._ability()

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that such a computer cannot do for `spec`."""
        problems = common_problems(spec)
        if spec.system:
            problems += hardware.problems(spec, spec.system)
        if spec.network == "host":
            problems.append(Problem("a VM cannot have the host's network", "leave --network out, or use none"))
        return problems

    def start_request(self, bundle: Bundle) -> Start:
        """QEMU in its jail, the workload of the agent."""
        _, boot = hardware.require_system(bundle)
        limits, spec, given = bundle.limits, bundle.spec, hardware.files(boot)
        written = [path for path, _, read_only in given if not read_only and path.exists()]
        cell = Cell(boot.vmm, given, kvm=boot.accelerator == "kvm", tap=bool(boot.tap), terminal=spec.tty)
        largest = max((path.stat().st_size for path in written), default=0)
        return Start(
            flags=start_flags(spec),
            clone_flags=jail.CLONED,
            unshare_flags=jail.UNSHARED,
            id_base=jail.uid_start(bundle),
            id_count=UID_RANGE,
            log_size=self._config.log_size,
            log_files=self._config.log_files,
            netns=NETNS_PATH if bundle.netns_fd is not None else NETNS_NEW,
            join=tuple(limits.join),
            kill=limits.kill,
            prepare=tuple(limits.prepare),
            stage=tuple(jail.stage_cell(bundle, self._stage, cell)),
            inside=tuple(jail.inside(hardware.command_line(bundle), largest=largest, terminal=spec.tty)),
            finish=tuple(limits.finish),
        )

    def hold_request(self, bundle: Bundle) -> Start:
        """Refused."""
        raise Refused(_NO_ACCESS, hint="bulkhead exec, or ssh and scp through a published port")

    def command_request(self, spec: Spec, join: Sequence[str], command: Command) -> ExecRequest:
        """Refused: no client is joined to a command; see `collect`."""
        raise Refused("a command cannot be joined to in an unmodified system", hint="leave out -i and -t")

    def begin(
        self, session: Session, bundle: Bundle, request: Start, on_launch: Callable[[Path], None] | None
    ) -> tuple[int, dict[str, str]]:
        """QEMU in its jail, then the computer is switched on."""
        jail.open_sockets(bundle, vmm.QMP, hardware.GUEST_AGENT)
        pid, more = super().begin(session, bundle, request, on_launch)
        try:
            with Qmp.open(bundle.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
                jail.seal_sockets(bundle)
                monitor.execute("cont")
        except HostError as error:
            raise AgentError(f"the virtual machine was not switched on: {error.what}", hint=_told(bundle)) from error
        except Unavailable as error:
            raise AgentError("QEMU did not start", hint=_told(bundle) or error.what) from error
        return pid, more

    def press_power(self, bundle: Path) -> None:
        """As on hardware: what that does is the system's business. Raises Unavailable, HostError."""
        with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
            monitor.execute("system_powerdown")

    def stop(self, bundle: Path, handle: Handle, *, signal: str, timeout: float) -> None:
        """Press the power button, after `timeout` seconds pull the plug; with KILL at once."""
        if parse_signal(signal) != signals.SIGKILL:
            self.resume(bundle, handle)
            with suppress(Unavailable, HostError):  # QEMU is ending, or it is stuck: time will tell
                self.press_power(bundle)
        with suppress(AgentError):
            super().stop(bundle, handle, signal=signal, timeout=timeout)
        if processes.start_time(handle.supervisor_pid) == handle.supervisor_started:
            self.delete(bundle, handle.data["id"])

    def end(self, session: Session, number: int, timeout: float) -> None:
        """Wait for what the power button leads to; a signal would be QEMU's own. After `timeout` seconds KILL."""
        if number != signals.SIGKILL and session.ended(session.watch(), timeout=timeout):
            return
        super().end(session, signals.SIGKILL, KILL_SECONDS)

    def delete(self, bundle: Path, instance_id: str) -> None:
        """Leave nothing of a run, also after a crash in the middle of a start."""
        super().delete(bundle, instance_id)
        shutil.rmtree(bundle / vmm.DIRECTORY, ignore_errors=True)

    def flush(self, bundle: Path, handle: Handle) -> None:
        """Let the system write what it keeps in memory to its disk, by its guest agent.

        Where there is none its disk is as after a loss of power, which file systems are made for.
        """
        until = time.monotonic() + FLUSH_SECONDS
        with suppress(AgentError, Unavailable), self._agent(bundle) as agent:
            agent.run(("sync",), alive=lambda: time.monotonic() < until)

    def _agent(self, bundle: Path) -> GuestAgent:
        return GuestAgent(connect_below(bundle / vmm.DIRECTORY, hardware.GUEST_AGENT))

    def resize(self, bundle: Path, handle: Handle, change: Change) -> None:
        """What holds QEMU on the host, and its disk's limits; the computer itself stays what it is."""
        super().resize(bundle, handle, change)
        with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
            limits = vmm.throttle(change.new)
            monitor.execute("qom-set", {"path": f"/objects/{vmm.LIMITS}", "property": "limits", "value": limits})

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


def _told(bundle: Bundle) -> str:
    said = last_words(bundle.directory / "log")
    return f"it said: {said}" if said else ""
