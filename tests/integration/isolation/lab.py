"""Instances straight from the drivers: images made by hand, hostile ones above all, without a daemon."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import BulkheadError
from bulkhead.host import mounts
from bulkhead.isolation.base import Bundle, Command, Handle, MountedVolume
from bulkhead.isolation.chroot import ChrootDriver
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.rooted import Rooted
from bulkhead.isolation.supervised import Outside
from bulkhead.model import Isolation, Plan, Spec
from tests.harness.abilities import require
from tests.harness.naming import PREFIX, make_config

PROBE_SOURCE = Path(__file__).with_name("probe.c")
APPLETS = (
    "cat chmod chown echo grep head id ln ls mkdir mknod mount readlink rm sh sleep stat sysctl tail test touch true "
    "umount wc"
)
ENTRY = re.compile(r"^\S+ (?:stdout|stderr) ([FP]) ?(.*)$", re.MULTILINE)
PATIENCE = 30.0
Mutation = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A workload that has ended, with all that it wrote."""

    code: int
    output: str

    @property
    def lines(self) -> list[str]:
        """The output's lines."""
        return self.output.splitlines()


@cache
def probe_binary() -> Path:
    """probe.c as a static program, compiled once per run."""
    require("gcc")
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-probe-"))
    binary = made / "probe"
    argv = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-no-pie", "-o", str(binary), str(PROBE_SOURCE)]
    subprocess.run(argv, check=True)
    return binary


def make_root(root: Path) -> None:
    """A small honest image: busybox, the probe, a user."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    shutil.copy2(probe_binary(), root / "bin/probe")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")


class Lab:
    """Makes instances in a tmpfs of its own; everything in it ends with `close`."""

    def __init__(self, directory: Path, isolation: Isolation = Isolation.CONTAINER) -> None:
        require("root", "mount namespaces", "overlay")
        self._stack = ExitStack()
        self.directory = directory
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "lab", str(directory)], check=True)
        # The last supervisor may still be on its way out.
        self._stack.callback(mounts.unmount, directory, patience=10.0)
        self.config = make_config(directory)
        self.outside_dir = directory / "outside"
        """A directory of the host's that no instance may change or see."""
        self.outside_dir.mkdir()
        outside = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
        self.driver: Rooted = (
            ContainerDriver(self.config, outside)
            if isolation is Isolation.CONTAINER
            else ChrootDriver(self.config, outside)
        )
        self._isolation = isolation
        self._layers: dict[Mutation | None, Path] = {}
        self._count = 0

    def close(self) -> None:
        """Unmount."""
        self._stack.close()

    def layer(self, mutate: Mutation | None) -> Path:
        """The small image, changed by `mutate`."""
        if mutate not in self._layers:
            root = self.directory / f"layer{len(self._layers)}"
            make_root(root)
            if mutate:
                mutate(root)
            self._layers[mutate] = root
        return self._layers[mutate]

    def bundle(
        self,
        argv: Sequence[str],
        *,
        image: Mutation | None = None,
        volumes: Iterable[MountedVolume] = (),
        **spec: object,
    ) -> Bundle:
        """An instance that can be started."""
        identifier = secrets.token_hex(16)
        directory = self.directory / identifier
        for name in ("", "disk", "disk/upper", "disk/work"):
            (directory / name).mkdir()
        container = self._isolation is Isolation.CONTAINER
        usual: dict[str, object] = {
            "id": identifier,
            "name": "lab",
            "image": "lab",
            "image_digest": "sha256:" + "0" * 64,
            "isolation": self._isolation,
            "plan": Plan(memory=64 << 20, cpus=1, disk=16 << 20),
            "argv": tuple(argv),
            "hostname": identifier[:12],
            "network": "none" if container else "host",
            "created": time.time(),
        }
        self._count += 1
        return Bundle(
            directory=directory,
            spec=Spec.model_validate({**usual, **spec}),
            layers=(image if isinstance(image, Path) else self.layer(image),),
            disk=directory / "disk",
            volumes=tuple(volumes),
            uid_start=self.config.uid_base + 65536 * self._count if container else None,
            resolv_conf="nameserver 192.0.2.53\n",
            hosts="127.0.0.1\tlocalhost\n",
        )

    def run(self, *argv: str, **options: object) -> Result:
        """Run a workload to its end. Raises what the start raises."""
        bundle = self.bundle(argv, **options)  # type: ignore[arg-type]
        handle = self.driver.start(bundle)
        try:
            return self.wait(bundle, handle)
        finally:
            self.driver.delete(bundle.directory, bundle.spec.id)

    def wait(self, bundle: Bundle, handle: Handle) -> Result:
        """Wait for the end of a workload."""
        try:
            with Session.connect(bundle.directory / SOCKET) as session:
                assert session.ended(session.watch(), timeout=PATIENCE)
        except BulkheadError:
            pass  # it has ended already, and its supervisor with it
        deadline = time.monotonic() + PATIENCE
        while (found := self.driver.inspect(bundle.directory, handle)).running and time.monotonic() < deadline:
            time.sleep(0.005)
        assert found.exit, "it left no exit.json"
        return Result(found.exit.code, read_log(bundle))

    @contextmanager
    def running(self, *argv: str, **options: object) -> Iterator[Running]:
        """An instance that runs meanwhile."""
        bundle = self.bundle(argv or ("sleep", "1000"), **options)  # type: ignore[arg-type]
        handle = self.driver.start(bundle)
        try:
            yield Running(self, bundle, handle)
        finally:
            self.driver.stop(bundle.directory, handle, signal="KILL", timeout=PATIENCE)
            self.driver.delete(bundle.directory, bundle.spec.id)


@dataclass(frozen=True, slots=True)
class Running:
    """An instance that runs."""

    lab: Lab
    bundle: Bundle
    handle: Handle

    def execute(self, *argv: str, **options: object) -> Result:
        """A command beside the workload, to its end."""
        command = Command(argv=argv, **options)  # type: ignore[arg-type]
        request = self.lab.driver.exec_request(self.bundle.spec, self.handle, command)
        with Session.connect(self.bundle.directory / SOCKET) as session:
            done = session.exec_collect(request, timeout=PATIENCE)
        return Result(done.code, (done.stdout + done.stderr).decode())

    def log(self, *, until: str) -> str:
        """What it has written, once `until` is in it."""
        deadline = time.monotonic() + PATIENCE
        while until not in (text := read_log(self.bundle)):
            assert time.monotonic() < deadline, text
            time.sleep(0.005)
        return text


def read_log(bundle: Bundle) -> str:
    """The text in an instance's log; a part of a line (P) goes on in the next entry."""
    log = bundle.directory / "log"
    entries = ENTRY.findall(log.read_text()) if log.exists() else []
    return "".join(text + ("\n" if kind == "F" else "") for kind, text in entries)


def namespace(kind: str, pid: int | str = "self") -> str:
    """What names a process's namespace, as readlink(1) prints it."""
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
