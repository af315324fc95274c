"""What is written anew so that a server's files run as an instance: a few small files, as entries of a tar."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence

from bulkhead.servers.listing import Listing

_FSTAB = b"# The file systems of the server that this image was made of are not here: an instance has one disk.\n"
_CLOUD = b"# An image of a server that is set up already.\n"


def files(listing: Listing, *, masked: Sequence[str], status: str | None) -> dict[bytes, bytes | None]:
    """Contents by path; None is a link to /dev/null, by which systemd leaves a unit be."""
    made: dict[bytes, bytes | None] = {}
    if b"etc/fstab" in listing:
        made[b"etc/fstab"] = _FSTAB
    if b"etc/machine-id" in listing:
        # Empty: the instance's id becomes the machine's.
        made[b"etc/machine-id"] = b""
        if b"var/lib/dbus/machine-id" in listing and listing[b"var/lib/dbus/machine-id"].kind == "f":
            made[b"var/lib/dbus/machine-id"] = b""
    if b"etc/resolv.conf" in listing and listing[b"etc/resolv.conf"].kind == "l":
        made[b"etc/resolv.conf"] = b""
    if b"etc/cloud" in listing:
        made[b"etc/cloud/cloud-init.disabled"] = _CLOUD
    if b"etc/systemd/system" in listing:
        made |= {b"etc/systemd/system/" + unit.encode(): None for unit in masked}
    if status is not None:
        made[b"var/lib/dpkg/status"] = status.encode("utf-8", "surrogateescape")
    return made


def entries(made: Mapping[bytes, bytes | None], gone: Sequence[bytes], *, when: int) -> bytes:
    """These files and the whiteouts of what has gone, as a tar without its end: another one follows."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for path, data in sorted(made.items()):
            entry = tarfile.TarInfo(_text(path))
            entry.mtime = when
            if data is None:
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "/dev/null", 0o777
                archive.addfile(entry)
            else:
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
        for path in gone:
            parent, slash, name = path.rpartition(b"/")
            entry = tarfile.TarInfo(_text(parent + slash + b".wh." + name))
            entry.mtime = when
            archive.addfile(entry)
        end = archive.offset
    return out.getvalue()[:end]


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
