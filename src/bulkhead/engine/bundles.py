"""The files of a bundle that the engine writes: spec.json, layers, net.json, handle.json."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from bulkhead.errors import Conflict
from bulkhead.isolation.base import Handle
from bulkhead.model import Address, Spec


def write_file(path: Path, text: str) -> None:
    """Put `text` in place at once: a reader, or a crash, finds the old file or the new one."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    draft.rename(path)


def make(bundle: Path, spec: Spec, layers: list[str]) -> None:
    """The directory with what never changes about the instance."""
    bundle.mkdir(parents=True, mode=0o700, exist_ok=True)
    write_spec(bundle, spec)
    write_file(bundle / "layers", "".join(f"{digest}\n" for digest in layers))


def write_spec(bundle: Path, spec: Spec) -> None:
    """The spec, for people and for tools; the store's copy is the one that counts."""
    write_file(bundle / "spec.json", spec.model_dump_json(indent=1))


def read_layers(bundle: Path) -> list[str]:
    """Digests (diff ids) of the layers, the lowest first."""
    return (bundle / "layers").read_text().split()


def write_network(bundle: Path, address: Address, link: str) -> None:
    """Where the instance is reached while it runs."""
    write_file(bundle / "net.json", json.dumps({"link": link, **address.model_dump()}))


def read_link(bundle: Path) -> str | None:
    """The host's end of the instance's network link, if it has one."""
    try:
        link = json.loads((bundle / "net.json").read_text())["link"]
    except FileNotFoundError:
        return None
    return str(link)


def write_handle(bundle: Path, handle: Handle) -> None:
    """What finds the running instance again."""
    write_file(bundle / "handle.json", json.dumps(asdict(handle)))


def read_handle(bundle: Path) -> Handle | None:
    """The handle of the last start, or None when there is none."""
    try:
        return Handle(**json.loads((bundle / "handle.json").read_text()))
    except FileNotFoundError:
        return None


def require_handle(bundle: Path) -> Handle:
    """The handle of a running instance. Raises Conflict when there is none."""
    handle = read_handle(bundle)
    if handle is None:
        raise Conflict(f"bundle {bundle.name[:12]} has no handle", hint="restart the daemon: it repairs its records")
    return handle


def forget_run(bundle: Path) -> None:
    """Remove what belongs to one run only."""
    for name in ("handle.json", "net.json", "agent.sock", "exit.json"):
        (bundle / name).unlink(missing_ok=True)


def remove(bundle: Path) -> None:
    """Remove the directory with everything in it; a missing one is fine.

    A bundle is flat and the daemon's own, so no tree walk is needed that could follow a link.
    """
    try:
        entries = list(os.scandir(bundle))
    except FileNotFoundError:
        return
    for entry in entries:
        Path(entry.path).unlink(missing_ok=True)
    bundle.rmdir()
