"""QEMU alone: the same guest without a jail, a supervisor or an instance, from a template's files or booted."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.timing import Unusable, environment, find, output
from bulkhead.agent.frames import Frame, Type, encode, start_payload
from bulkhead.isolation.base import Boot, Bundle, NoLimits
from bulkhead.isolation.guest import Moment, start_request
from bulkhead.model import Address, Spec

PATIENCE = 60.0
TAP = "bench-qemu"
ADDRESS = Address(
    network="bench",
    ipv4="198.18.99.2",
    prefix4=24,
    gateway4="198.18.99.1",
    ipv6="fd42:99::2",
    prefix6=64,
    gateway6="fd42:99::1",
    mac="02:69:00:00:99:02",
)
STOCK_MEMORY = "512M"
"""Its initramfs does not fit into less with its unpacked self beside it."""
STOCK_READY = b"Spawning shell within the initramfs"
HERE = "/run/vm"
"""Where the jail that the command line was made for has its files."""


class Monitor:
    """QEMU's monitor, with nothing between it and the clock."""

    def __init__(self, path: Path) -> None:
        self._socket = connect(path)
        self._lines = self._socket.makefile("r")
        self._lines.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> object:
        """A command's answer. Raises Unusable."""
        return self._ask(command, arguments, [])

    def hand_over(self, descriptor: int, name: str) -> None:
        """Give QEMU a descriptor under a name."""
        self._ask("getfd", {"fdname": name}, [descriptor])

    def _ask(self, command: str, arguments: dict[str, object], descriptors: list[int]) -> object:
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        socket.send_fds(self._socket, [text], descriptors)
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise Unusable(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Bare:
    """A guest as a running instance's hypervisor was told to make it: its files copied, its jail left out.

    `pid` is that hypervisor's, `template` the directory of the template that it came from.
    """

    def __init__(self, pid: int, template: Path, directory: Path) -> None:
        self._directory = directory
        self._program = find("qemu-system-x86_64", "qemu-system-x86")
        for name in ("kernel", "initrd", "disk", "layers/0"):
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(Path(f"/proc/{pid}/root{HERE}/{name}"), target)
        for name in ("ram", "state"):
            copy(template / name, directory / name)
        (directory / "sockets").mkdir()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[1:-1]
        inside = [word.replace(f"{HERE}/", f"{directory}/") for word in words]
        self._restored = [re.sub(r"mem-path=[^,]*", f"mem-path={directory}/ram", word) for word in inside]

    def restore(self) -> float:
        """Milliseconds from before QEMU is started to the agent's answer, from the template."""
        with ExitStack() as stack:
            start = time.perf_counter()
            return self._answered(self._restore(self._restored, stack), start)

    @contextmanager
    def running(self, spec: str) -> Iterator[str]:
        """A guest in which a machine's program runs, `spec` being that machine's as JSON; yields its address.

        Its tap is in this network namespace, without a bridge.
        """
        words = [re.sub(r"^tap,id=([^,]*),ifname=[^,]*", rf"tap,id=\1,ifname={TAP}", word) for word in self._restored]
        own = Spec.model_validate_json(spec)
        files = Boot(self._directory, self._directory, self._directory, Path("disk"), (Path("layer"),), "tcg", tap=TAP)
        bundle = Bundle(self._directory, own, address=ADDRESS, boot=files)
        with ExitStack() as stack:
            monitor = self._restore(words, stack)
            for line in ("addr add {0}/24 dev {1}", "link set {1} up"):
                output([find("ip", "iproute2"), *line.format(ADDRESS.gateway4, TAP).split()])
            monitor("cont")
            with Agent(self._directory / "sockets/agent.sock") as agent:
                agent.ask(Type.INFO)
                agent.ask(Type.START, start_payload(start_request(bundle, NoLimits(), Moment.present())))
                yield ADDRESS.ipv4

    def boot(self) -> float:
        """As `restore`, from nothing."""
        with ExitStack() as stack:
            words = list(self._restored)
            for flag in ("-incoming", "-object"):
                at = words.index(flag)
                del words[at : at + 2]
            words = [word.replace(",memory-backend=ram", "") for word in words]
            start = time.perf_counter()
            return self._answered(self._start(words, stack), start)

    def _restore(self, words: Sequence[str], stack: ExitStack) -> Monitor:
        monitor = self._start(words, stack)
        monitor("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
        with (self._directory / "state").open("rb") as state:
            monitor.hand_over(state.fileno(), "state")
        monitor("migrate-incoming", uri="fd:state")
        while True:
            status = monitor("query-status")
            if isinstance(status, dict) and status["status"] != "inmigrate":
                return monitor

    def _start(self, words: Sequence[str], stack: ExitStack) -> Monitor:
        for path in (self._directory / "sockets").iterdir():
            path.unlink()
        process = subprocess.Popen(
            [self._program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment()
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        return Monitor(self._directory / "sockets/qmp.sock")

    def _answered(self, monitor: Monitor, start: float) -> float:
        monitor("cont")
        with Agent(self._directory / "sockets/agent.sock") as agent:
            agent.ask(Type.INFO)
            return (time.perf_counter() - start) * 1000


class Agent:
    """The guest's agent, asked one thing after the other."""

    def __init__(self, path: Path) -> None:
        self._socket = connect(path)
        self._socket.settimeout(PATIENCE)
        self._asked = 0

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: Type, payload: bytes = b"") -> None:
        """A request that is answered by OK. Raises Unusable."""
        self._asked += 1
        self._socket.sendall(encode(Frame(kind, self._asked, payload)))
        answer = self._socket.recv(1 << 16)
        if struct.unpack("<IBB", answer[:6])[2] != Type.OK:
            raise Unusable(f"the guest's agent answered {kind.name} with {answer[12:].decode(errors='replace')!r}")


class Stock:
    """QEMU with a distribution's kernel and the initramfs that its own tools have made, both taken from `root`.

    It has come as far as our guests' agent when it would mount a root file system: its modules are loaded.
    """

    def __init__(self, root: Path, directory: Path) -> None:
        self._program = find("qemu-system-x86_64", "qemu-system-x86")
        self._kernel, self._initrd = directory / "vmlinuz", directory / "initrd.img"
        with tarfile.open(root) as tar:
            for start, target in (("vmlinuz-", self._kernel), ("initrd.img-", self._initrd)):
                names = [name for name in tar.getnames() if Path(name).name.startswith(start) and "boot" in name]
                if not names:
                    raise Unusable(f"{root} has no {start}*")
                source = tar.extractfile(max(names))
                if source is None:
                    raise Unusable(f"{names} of {root} are no files")
                target.write_bytes(source.read())

    def boot(self, accelerator: str) -> float:
        """Milliseconds from before QEMU is started to the initramfs's shell."""
        words = [
            "-accel",
            accelerator,
            "-cpu",
            "max" if accelerator == "tcg" else "host",
            "-machine",
            "q35",
            "-smp",
            "1",
        ]
        words += ["-m", STOCK_MEMORY, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += ["-serial", "stdio", "-kernel", str(self._kernel), "-initrd", str(self._initrd)]
        words += ["-append", "console=ttyS0 quiet break=mountroot"]
        start, said = time.perf_counter(), b""
        process = subprocess.Popen(
            [self._program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )
        try:
            assert process.stdout is not None
            while STOCK_READY not in said:
                part = os.read(process.stdout.fileno(), 4096)
                if not part or time.perf_counter() - start > PATIENCE:
                    raise Unusable(f"the distribution's initramfs did not come up: {said[-200:]!r}")
                said += part
            return (time.perf_counter() - start) * 1000
        finally:
            process.kill()
            process.communicate()


def copy(source: Path, target: Path) -> None:
    """With its holes."""
    output([find("cp", "coreutils"), "--sparse=always", "--no-preserve=mode", str(source), str(target)])


def connect(path: Path) -> socket.socket:
    """A connection to a socket that is about to be there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise Unusable(f"nobody listens at {path}") from error
            time.sleep(0.0005)
            continue
        return connection
