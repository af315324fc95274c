"""Finding out whether a level works on this host, by starting an instance of it.

The instance is as small as can be: a layer with the agent's own static binary, in EROFS as layers are, an ext4 disk as
disks are, and `agent version` as its program. That it works holds until the next boot or another agent; where it does
not, every daemon tries again.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bulkhead.agent.launch import find_agent
from bulkhead.agent.session import SOCKET, Session
from bulkhead.config import Config
from bulkhead.errors import BulkheadError, Unavailable
from bulkhead.host import processes
from bulkhead.isolation.base import Ability, Bundle, Driver, Probe
from bulkhead.model import Isolation, Plan, Spec

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DISK_SIZE = 16 << 20
PATIENCE = 10.0
PROGRAM = "agent"


def probe(driver: Driver, config: Config, not_isolated: tuple[str, ...]) -> Probe:
    """Try the level out, or tell what was found when it was last tried since the boot."""
    try:
        binary = find_agent()
    except Unavailable as error:
        row = Ability("agent", works=False, reason=error.what, hint=error.hint)
        return Probe(works=False, reason=error.what, hint=error.hint, abilities=(row,), not_isolated=not_isolated)
    key = f"{BOOT_ID.read_text().strip()} {binary} {binary.stat().st_mtime_ns}"
    record = config.run_dir / f"probe-{driver.isolation}"
    reason, hint = "", ""
    if not record.exists() or record.read_text() != key:
        reason, hint = _try(driver, config, binary)
        if not reason:
            record.write_text(key)
    rows = (Ability("agent", works=True, reason=str(binary)), _seccomp(), _lxcfs())
    return Probe(works=not reason, reason=reason, hint=hint, abilities=rows, not_isolated=not_isolated)


def _try(driver: Driver, config: Config, binary: Path) -> tuple[str, str]:
    """Why it does not work, with a hint; empty when it does."""
    try:
        with ExitStack() as stack:
            bundle = _bundle(driver.isolation, config, binary, stack)
            stack.callback(driver.delete, bundle.directory, bundle.spec.id)
            handle = driver.start(bundle)
            _wait(bundle.directory)
            found = driver.inspect(bundle.directory, handle)
            if found.exit is None or found.exit.code != 0:
                return f"a trial {driver.isolation} ended with {found.exit.code if found.exit else 'no exit code'}", ""
    except BulkheadError as error:
        return error.what, error.hint
    return "", ""


def _wait(directory: Path) -> None:
    try:
        with Session.connect(directory / SOCKET) as session:
            session.ended(session.watch(), timeout=PATIENCE)
            session.quit()
    except Unavailable:
        return  # it had ended before


def _bundle(isolation: Isolation, config: Config, binary: Path, stack: ExitStack) -> Bundle:
    """The smallest instance; what it is made of goes away with the stack."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    top = Path(tempfile.mkdtemp(prefix="probe-", dir=config.run_dir))
    stack.callback(shutil.rmtree, top)
    for name in ("tree", "layer", "disk", "bundle", *(f"tree/{kept}" for kept in ("proc", "sys", "dev", "etc"))):
        (top / name).mkdir()
    shutil.copy2(binary, top / "tree" / PROGRAM)
    processes.run(["mkfs.erofs", top / "layer.erofs", top / "tree"], package="erofs-utils")
    _mount(stack, "erofs", top / "layer.erofs", top / "layer", "loop,ro,nodev")
    with (top / "disk.img").open("wb") as disk:
        disk.truncate(DISK_SIZE)
    processes.run(["mkfs.ext4", "-q", "-F", top / "disk.img"], package="e2fsprogs")
    _mount(stack, "ext4", top / "disk.img", top / "disk", "loop,nodev")
    for name in ("upper", "work"):
        (top / "disk" / name).mkdir()
    identifier = secrets.token_hex(16)
    container = isolation is Isolation.CONTAINER
    spec = Spec(
        id=identifier,
        name="probe",
        image="probe",
        image_digest="",
        isolation=isolation,
        plan=Plan(memory=64 << 20, cpus=1, disk=DISK_SIZE),
        argv=(f"/{PROGRAM}", "version"),
        hostname=identifier[:12],
        network="none" if container else "host",
        created=time.time(),
    )
    return Bundle(
        directory=top / "bundle",
        spec=spec,
        layers=(top / "layer",),
        disk=top / "disk",
        uid_start=config.uid_base if container else None,
    )


def _mount(stack: ExitStack, kind: str, source: Path, target: Path, options: str) -> None:
    processes.run(["mount", "-t", kind, "-o", options, source, target], package="mount")
    stack.callback(processes.run, ["umount", target], package="mount")


def _seccomp() -> Ability:
    try:
        import pyseccomp

        return Ability("libseccomp", works=True, reason=f"API level {pyseccomp.get_api()}")
    except (ImportError, RuntimeError, OSError) as error:
        return Ability("libseccomp", works=False, reason=str(error), hint="apt install libseccomp2")


def _lxcfs() -> Ability:
    if processes.find("lxcfs"):
        return Ability("lxcfs", works=True)
    what = "not installed: free and /proc/cpuinfo in containers tell the host's numbers"
    return Ability("lxcfs", works=False, reason=what, hint="apt install lxcfs")
