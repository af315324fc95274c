"""A guest's initrd: the agent as /init, then the modules of the kernel, which come from its image.

The kernel reads archives one after the other. So a new agent needs no new kernel image, and the same modules serve
every agent.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from bulkhead.boot import cpio
from bulkhead.host.workspace import locked

MOUNT_POINTS = ("dev", "proc", "run", "sys")


def prepare(modules: Path, *, digest: str, agent: Path, cache: Path) -> Path:
    """The initrd of the modules' archive (whose digest is `digest`) with this agent; made when it is not there.

    Others of the same modules are removed: an agent of before is not started again.
    """
    program = agent.read_bytes()
    modules_part = digest.removeprefix("sha256:")[:32]
    agent_part = hashlib.sha256(program).hexdigest()[:32]
    directory = cache / "initrd"
    made = directory / f"{modules_part}-{agent_part}.cpio"
    if made.exists():
        return made
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(directory / "lock"):
        # One name: what a crash left is written over.
        draft = directory / "draft"
        with draft.open("wb") as out, modules.open("rb") as rest:
            out.write(agent_archive(program))
            shutil.copyfileobj(rest, out, 1 << 20)
        draft.rename(made)
        for other in directory.glob(f"{modules_part}-*.cpio"):
            if other != made:
                other.unlink(missing_ok=True)
    return made


def agent_archive(program: bytes) -> bytes:
    """The archive that holds the agent, which the kernel starts as /init, and the directories that it mounts on."""
    return cpio.archive([*map(cpio.directory, MOUNT_POINTS), cpio.file("init", program, 0o755)])
