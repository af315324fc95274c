"""The unikernel: one application and its runtime as the guest of a jailed QEMU, and nobody else inside."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from bulkhead.agent.frames import Start
from bulkhead.errors import AgentError, HostError, Problem, Unavailable
from bulkhead.host.qmp import Qmp, connect_below
from bulkhead.isolation import program, saving, vmm
from bulkhead.isolation.base import Bundle, Handle, Inspection
from bulkhead.isolation.guest import Moment
from bulkhead.isolation.jail import Cell
from bulkhead.isolation.powered import Powered, network_problems
from bulkhead.isolation.supervised import LOST_CODE, common_problems
from bulkhead.model import Exit, Isolation, Spec

DEBUG_EXIT_DONE = 83
"""QEMU's exit code where Solo5 ends in order: it writes 41 to isa-debug-exit, which makes (41 << 1) | 1 of it."""
_TOLD = 64
_READY, _HEARD = b"R", b"A"
READY_SECONDS, HEARD_SECONDS = 60.0, 20.0
"""Within which one that is to become a template has booted, and one from a template has heard who it is."""


class UnikernelDriver(Powered):
    """Runs unikernels under an agent each. With a small init of Bulkhead's in it, one tells of its exit code."""

    isolation = Isolation.UNIKERNEL
    sockets = (vmm.QMP, program.ASK)
    no_command = (
        "there is nobody in a unikernel who could run a command",
        "bulkhead logs shows what it says; as a container or a VM the application can be looked into",
    )

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that such a computer cannot do for `spec`."""
        return [*common_problems(spec), *program.problems(spec), *network_problems(spec)]

    def start_request(self, bundle: Bundle) -> Start:
        """QEMU in its jail, the workload of the agent."""
        _, boot = program.require_program(bundle)
        cell = Cell(boot.vmm, program.files(bundle), kvm=boot.accelerator == "kvm", tap=bool(boot.tap))
        ram_fd = vmm.ram_fd(bundle) if boot.saved else None
        argv = program.command_line(bundle)
        return self.powered_request(bundle, cell, argv, least=program.CODE_SIZE, ram_fd=ram_fd)

    def create(self, bundle: Bundle) -> None:
        """Nothing: all that it needs is made at each start."""

    def start(self, bundle: Bundle, **options: object) -> Handle:
        """Boot it, or go on from a template; what a run before has told is forgotten."""
        own = program.require_program(bundle)[0].own
        if own:
            _forget_code(bundle)
        handle = super().start(bundle, **options)  # type: ignore[arg-type]
        return replace(handle, data={**handle.data, "own": "yes" if own else ""})

    def inherited(self, bundle: Bundle) -> tuple[int, ...]:
        """The memory of the template to start from."""
        saved = program.require_program(bundle)[1].saved
        return (saved.ram,) if saved else ()

    def switch_on(self, monitor: Qmp, bundle: Bundle) -> None:
        """Let it run; one from a template is told who it is, and has heard it."""
        _, boot = program.require_program(bundle)
        if boot.saved is None:
            super().switch_on(monitor, bundle)
            return
        saving.load(monitor, boot.saved.state)
        with connect_below(bundle.directory / vmm.DIRECTORY, program.ASK) as port:
            super().switch_on(monitor, bundle)
            port.sendall(program.told(bundle, Moment.present()))
            _hear(port, _HEARD, HEARD_SECONDS)

    def make_template(self, bundle: Bundle, state: Path) -> None:
        """Boot one to where it waits to be told who it is; leave its memory in `boot.ram`, its devices in `state`.

        Nothing of it runs afterwards. Raises AgentError, HostError, Unavailable.
        """
        directory = bundle.directory
        with ExitStack() as always:
            always.callback(self.delete, directory, bundle.spec.id)
            _forget_code(bundle)
            self._launch(bundle, self.start_request(bundle), None)
            with connect_below(directory / vmm.DIRECTORY, program.ASK) as port:
                _hear(port, _READY, READY_SECONDS)
                with Qmp.open(directory / vmm.DIRECTORY, vmm.QMP) as monitor:
                    saving.save(monitor, state)

    def press_power(self, bundle: Path) -> None:
        """Ask Bulkhead's small init to end its program; of others' unikernels press the power button."""
        with suppress(OSError, Unavailable, HostError), connect_below(bundle / vmm.DIRECTORY, program.ASK) as asked:
            asked.sendall(b"T")
            return
        super().press_power(bundle)

    def inspect(self, bundle: Path, handle: Handle) -> Inspection:
        """Whether it runs; how it ended."""
        found = super().inspect(bundle, handle)
        if found.exit is None or found.exit.signal or found.exit.error:
            return found
        own = bool(handle.data.get("own"))
        return replace(found, exit=_told(bundle, found.exit) if own else _of_qemu(found.exit))


def _forget_code(bundle: Bundle) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(bundle.directory / program.CODE_FILE, flags, 0o600))


def _hear(port: socket.socket, wanted: bytes, seconds: float) -> None:
    """Wait for the small init's word. Raises AgentError when another comes, or none in time."""
    port.settimeout(seconds)
    try:
        word = port.recv(1)
    except OSError as error:
        raise AgentError(f"the unikernel said nothing within {seconds:g} s", hint="bulkhead logs") from error
    if word != wanted:
        raise AgentError("the unikernel ended, or said what it was not asked for", hint="bulkhead logs")


def _of_qemu(ended: Exit) -> Exit:
    """What QEMU's exit code says of a guest that may have used isa-debug-exit."""
    if ended.code == DEBUG_EXIT_DONE:
        return ended.model_copy(update={"code": 0})
    return ended.model_copy(update={"code": ended.code >> 1}) if ended.code > 1 and ended.code & 1 else ended


def _told(bundle: Path, ended: Exit) -> Exit:
    """What the small init has said: a number, or nothing where its kernel has not come so far."""
    with suppress(FileNotFoundError), (bundle / program.CODE_FILE).open("rb") as file:
        text = file.read(_TOLD).strip()
        if text.isdigit() and int(text) <= 0xFF:
            return ended.model_copy(update={"code": int(text)})
    what = "the unikernel ended without a word of its program's exit code"
    return ended.model_copy(update={"code": LOST_CODE, "error": what})
