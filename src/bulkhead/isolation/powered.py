"""What the computers without Bulkhead's agent inside have in common: an unmodified system's, and a unikernel's.

The agent on the host supervises QEMU, whose stdin and output are the serial port. What runs in it ends by its power
button.
"""

from __future__ import annotations

import shutil
import signal as signals
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from bulkhead.agent.frames import ExecRequest, Start
from bulkhead.agent.launch import NETNS_NEW, NETNS_PATH
from bulkhead.agent.session import Session
from bulkhead.config import Config
from bulkhead.errors import AgentError, HostError, Problem, Refused, Unavailable
from bulkhead.host import processes
from bulkhead.host.qmp import Qmp
from bulkhead.isolation import jail, vmm
from bulkhead.isolation.base import Bundle, Change, Command, Handle, Probe
from bulkhead.isolation.console import last_words
from bulkhead.isolation.jail import Cell
from bulkhead.isolation.supervised import KILL_SECONDS, Outside, Supervised, start_flags
from bulkhead.model import UID_RANGE, Isolation, Spec
from bulkhead.quantities import parse_signal


class Powered(Supervised):
    """Runs such computers under an agent each. `ability` finds out whether QEMU works here."""

    sockets: ClassVar[tuple[str, ...]] = (vmm.QMP,)
    """What QEMU makes in the directory of its sockets."""
    no_command: ClassVar[tuple[str, str]]
    """Why no command can be run, and what can be done instead."""

    def __init__(self, config: Config, outside: Outside, *, ability: Callable[[], Probe]) -> None:
        super().__init__(config, outside)
        self._ability = ability

    def probe(self) -> Probe:
        """Whether VMs work here, and with what."""
        return self._ability()

    def exec_request(self, spec: Spec, handle: Handle, command: Command) -> ExecRequest:
        """Refused."""
        what, hint = self.no_command
        raise Refused(what, hint=hint)

    def powered_request(
        self, bundle: Bundle, cell: Cell, argv: Sequence[str], *, least: int = 0, ram_fd: int | None = None
    ) -> Start:
        """QEMU in its jail, the workload of the agent. `least`: bytes that a file of its may have at any rate.

        `ram_fd`: the descriptor of a template's memory.
        """
        limits, spec = bundle.limits, bundle.spec
        written = [path for path, _, read_only in cell.files if not read_only and path.exists()]
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
            inside=tuple(jail.inside(argv, largest=max(largest, least), ram_fd=ram_fd, terminal=spec.tty)),
            finish=tuple(limits.finish),
        )

    def begin(
        self, session: Session, bundle: Bundle, request: Start, on_launch: Callable[[Path], None] | None
    ) -> tuple[int, dict[str, str]]:
        """QEMU in its jail, then the computer is switched on."""
        jail.open_sockets(bundle, *self.sockets)
        pid, more = super().begin(session, bundle, request, on_launch)
        try:
            with Qmp.open(bundle.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
                self.switch_on(monitor, bundle)
        except HostError as error:
            raise AgentError(f"the virtual machine was not switched on: {error.what}", hint=_told(bundle)) from error
        except Unavailable as error:
            raise AgentError("QEMU did not start", hint=_told(bundle) or error.what) from error
        return pid, more

    def switch_on(self, monitor: Qmp, bundle: Bundle) -> None:
        """Let it run, from nothing. Raises AgentError, HostError, Unavailable."""
        jail.seal_sockets(bundle)
        monitor.execute("cont")

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

    def resize(self, bundle: Path, handle: Handle, change: Change) -> None:
        """What holds QEMU on the host, and its disk's limits; the computer itself stays what it is."""
        super().resize(bundle, handle, change)
        with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
            limits = vmm.throttle(change.new)
            monitor.execute("qom-set", {"path": f"/objects/{vmm.LIMITS}", "property": "limits", "value": limits})


def network_problems(spec: Spec) -> list[Problem]:
    """A computer has a network card, or it has none."""
    if spec.network != "host":
        return []
    what = "VM" if spec.isolation is Isolation.VM else spec.isolation
    return [Problem(f"a {what} cannot have the host's network", "leave --network out, or use none")]


def _told(bundle: Bundle) -> str:
    said = last_words(bundle.directory / "log")
    return f"it said: {said}" if said else ""
