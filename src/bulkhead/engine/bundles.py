"""The files of a bundle that the engine writes: spec.json, layers, net.json, handle.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bulkhead.errors import Conflict
from bulkhead.isolation.base import Handle
from bulkhead.model import Address, Plan, Spec
from bulkhead.moves import Kept, Leaving, Move, Parcel

MEMORY = "memory"
"""A VM's memory and devices, in a snapshot and in a bundle that is to go on with it."""
DISK = "disk.img"


def _write(path: Path, text: str) -> None:
    """One write(2) of a small file. A crash in between leaves an empty file, which readers take for none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found


def make(bundle: Path, spec: Spec, layers: list[str]) -> None:
    """The directory with what never changes about the instance."""
    bundle.mkdir(parents=True, mode=0o700, exist_ok=True)
    write_spec(bundle, spec)
    _write(bundle / "layers", "".join(f"{digest}\n" for digest in distinct(layers)))


def distinct(layers: Sequence[str]) -> list[str]:
    """Layers without those that come again higher up, which hide them: an overlay takes none twice (ELOOP)."""
    return list(dict.fromkeys(reversed(layers)))[::-1]


def write_spec(bundle: Path, spec: Spec) -> None:
    """The spec, for people and for tools; the store's copy is the one that counts."""
    _write(bundle / "spec.json", spec.model_dump_json(indent=1))


def read_layers(bundle: Path) -> list[str]:
    """Digests (diff ids) of the layers, the lowest first."""
    return (bundle / "layers").read_text().split()


def write_update(bundle: Path, plan: Plan) -> None:
    """The plan that an update is about, until it is done."""
    _write(bundle / "update.json", plan.model_dump_json())


def read_update(bundle: Path) -> Plan | None:
    """The plan of an update that was interrupted."""
    found = _read_json(bundle / "update.json")
    return Plan.model_validate(found) if found else None


def forget_update(bundle: Path) -> None:
    """The update is over."""
    (bundle / "update.json").unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    """A file that is there whole, or as it was before; also after the machine has lost its power."""
    draft = path.with_name(f"{path.name}.new")
    _write(draft, text)
    descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.rename(path)


def write_leaving(bundle: Path, leaving: Leaving) -> None:
    """It is on its way to another host, until it is known whose it is."""
    _replace(bundle / "leaving.json", leaving.model_dump_json())


def read_leaving(bundle: Path) -> Leaving | None:
    """The move to another host that is under way, or was interrupted."""
    found = _read_json(bundle / "leaving.json")
    return Leaving.model_validate(found) if found else None


def forget_leaving(bundle: Path) -> None:
    """It stays."""
    (bundle / "leaving.json").unlink(missing_ok=True)


def require_here(bundle: Path) -> None:
    """Raise Conflict where the instance may be another host's by now."""
    leaving = read_leaving(bundle)
    if leaving is not None and not leaving.stays:
        what = f"instance {bundle.name[:12]} was about to move to another host, and may be there by now"
        raise Conflict(what, hint="that is decided as soon as etcd answers: see bulkhead cluster status")


def write_parcel(directory: Path, parcel: Parcel) -> None:
    """It has arrived whole."""
    _replace(directory / "parcel.json", parcel.model_dump_json())


def read_parcel(directory: Path) -> Parcel | None:
    """How it has arrived, until that is over."""
    found = _read_json(directory / "parcel.json")
    return Parcel.model_validate(found) if found else None


def forget_parcel(bundle: Path) -> None:
    """It is an instance as any other."""
    (bundle / "parcel.json").unlink(missing_ok=True)


def write_kept(directory: Path, kept: Kept) -> None:
    """What counts of a replica from here on."""
    _replace(directory / "replica.json", kept.model_dump_json())


def read_kept(directory: Path) -> Kept | None:
    """What counts of a replica; None where there is none."""
    found = _read_json(directory / "replica.json")
    return Kept.model_validate(found) if found else None


def write_bytes(path: Path, data: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_move(bundle: Path, move: Move) -> None:
    """The change of its wall that is under way; in one step, since the way back hangs on it."""
    draft = bundle / "move.json.new"
    _write(draft, move.model_dump_json())
    draft.rename(bundle / "move.json")


def read_move(bundle: Path) -> Move | None:
    """The change of its wall that is under way, or was interrupted."""
    found = _read_json(bundle / "move.json")
    return Move.model_validate(found) if found else None


def forget_move(bundle: Path) -> None:
    """The change of its wall is over."""
    (bundle / "move.json").unlink(missing_ok=True)


def write_network(bundle: Path, address: Address, link: str) -> None:
    """Where the instance is reached while it runs."""
    _write(bundle / "net.json", json.dumps({"link": link, **address.model_dump()}))


def read_link(bundle: Path) -> str | None:
    """The host's end of the instance's network link, if it has one."""
    found = _read_json(bundle / "net.json")
    return str(found["link"]) if found else None


def write_own(bundle: Path, files: dict[str, str]) -> None:
    """What a start puts into the root by itself: absolute paths and texts. It is no change of the workload's."""
    _write(bundle / "own.json", json.dumps(files))


def read_own(bundle: Path) -> dict[str, str]:
    """What the last start has put into the root by itself."""
    return _read_json(bundle / "own.json") or {}


def write_handle(bundle: Path, handle: Handle) -> None:
    """What finds the running instance again."""
    _write(bundle / "handle.json", json.dumps({field: getattr(handle, field) for field in Handle.__dataclass_fields__}))


def read_handle(bundle: Path) -> Handle | None:
    """The handle of the last start, or None when there is none."""
    found = _read_json(bundle / "handle.json")
    return Handle(**found) if found else None


def require_handle(bundle: Path) -> Handle:
    """The handle of a running instance. Raises Conflict when there is none."""
    handle = read_handle(bundle)
    if handle is None:
        raise Conflict(f"bundle {bundle.name[:12]} has no handle", hint="restart the daemon: it repairs its records")
    return handle


def saved_memory(bundle: Path) -> Path | None:
    """The file with which the next start goes on in place of starting the workload, if there is one."""
    memory = bundle / MEMORY
    return memory if memory.exists() else None


def give_memory(bundle: Path, saved: Path) -> None:
    """Let the next start go on with a saved memory. Such a file never changes: both names are of the same one."""
    os.link(saved, bundle / MEMORY)


def drop_memory(bundle: Path) -> None:
    """Let the next start be an ordinary one; fine when it is."""
    (bundle / MEMORY).unlink(missing_ok=True)


def forget_run(bundle: Path) -> None:
    """Remove what belongs to one run only."""
    for name in ("handle.json", "net.json", "agent.sock", "exit.json"):
        (bundle / name).unlink(missing_ok=True)


def remove(bundle: Path) -> None:
    """Remove the directory with everything in it; a missing one is fine.

    A bundle is the daemon's own, and flat but for a VM's directory of sockets, which rmtree leaves by no link.
    """
    try:
        entries = list(os.scandir(bundle))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink(missing_ok=True)
    bundle.rmdir()
