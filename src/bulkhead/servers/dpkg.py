"""The packages of a Debian server: what is installed, who owns which file, what is needed for some of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from bulkhead.servers.listing import Listing

STATUS, INFO = b"var/lib/dpkg/status", b"var/lib/dpkg/info/"
MAX_PACKAGES = 100_000
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_FIELD = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
HARDWARE = re.compile(
    r"linux-(image|modules|headers|kbuild|source)-.*|grub-.*|grub2?|shim-.*|mokutil|efibootmgr|os-prober|firmware-.*"
    r"|(intel|amd64)-microcode|initramfs-tools(-core)?|dracut(-core)?|lilo|syslinux.*|extlinux|linux-base|cloud-initramfs-.*"
    r"|qemu-guest-agent|open-vm-tools|hyperv-daemons|acpid|smartmontools|thermald|fwupd.*|mdadm|irqbalance"
)
"""Packages of the kernel, of what boots it, and of the old machine's hardware."""
BASE = ("systemd-sysv", "systemd", "init", "dbus", "libpam-systemd", "apt", "passwd", "ca-certificates", "netbase")
"""What a system needs to come up, to be logged in to and to be updated, besides the essential and required packages."""
REMOVED = "deinstall ok config-files"


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package. Names are without an architecture."""

    name: str
    stanza: str
    """As it stands in dpkg's status."""
    essential: bool = False
    provides: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()
    """Pre-Depends and Depends: of each tuple one will do."""
    recommends: tuple[tuple[str, ...], ...] = ()
    conffiles: tuple[str, ...] = ()
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Packages:
    """All of them."""

    installed: Mapping[str, Package]
    owners: Mapping[bytes, tuple[str, ...]] = field(default_factory=dict)
    """Who has a file or directory, by its path."""

    def owner(self, path: bytes) -> str:
        """Whose file it is; "" where it is nobody's."""
        return next(iter(self.owners.get(path, ())), "")


def read(status: str, lists: Mapping[str, str], listing: Listing) -> Packages:
    """From dpkg's status and its lists of files, which have the paths of before /usr was merged."""
    installed: dict[str, Package] = {}
    for stanza in re.split(r"\n\s*\n", status):
        package = _package(stanza)
        if package and len(installed) < MAX_PACKAGES:
            installed[package.name] = package
    merged = {
        path: entry.target.lstrip(b"/")
        for path, entry in listing.items()
        if entry.kind == "l" and b"/" not in path and entry.target.lstrip(b"/").startswith(b"usr/")
    }
    owners: dict[bytes, tuple[str, ...]] = {}
    for name, text in lists.items():
        package_name = name.partition(":")[0]
        if package_name in installed:
            for line in text.splitlines():
                path = _merged(line.encode("utf-8", "surrogateescape").strip(b"/"), merged)
                owners[path] = (*owners.get(path, ()), package_name)
    return Packages(installed, owners)


def _merged(path: bytes, merged: Mapping[bytes, bytes]) -> bytes:
    first, slash, rest = path.partition(b"/")
    return merged[first] + slash + rest if first in merged else path


def _package(stanza: str) -> Package | None:
    fields = {found[1].lower(): found[2] for found in _FIELD.finditer(stanza)}
    name = fields.get("package", "")
    if not _NAME.fullmatch(name) or fields.get("status", "").split()[-1:] != ["installed"]:
        return None
    return Package(
        name=name,
        stanza=stanza.strip("\n"),
        essential=fields.get("essential") == "yes" or fields.get("priority") == "required",
        provides=tuple(word for words in _relations(fields.get("provides", "")) for word in words),
        needs=(*_relations(fields.get("pre-depends", "")), *_relations(fields.get("depends", ""))),
        recommends=_relations(fields.get("recommends", "")),
        conffiles=tuple(line.split()[0] for line in fields.get("conffiles", "").splitlines() if line.strip()),
        architecture=fields.get("architecture", ""),
    )


def _relations(text: str) -> tuple[tuple[str, ...], ...]:
    """ "a (>= 1), b:any | c" -> (("a",), ("b", "c"))."""
    groups = []
    for group in text.split(","):
        names = tuple(found[0] for word in group.split("|") if (found := _NAME.match(word.strip())))
        if names:
            groups.append(names)
    return tuple(groups)


def needed(packages: Packages, roots: Iterable[str]) -> set[str]:
    """The roots with what they recommend, and all that these need. Of alternatives every one that is installed."""
    providers: dict[str, list[str]] = {}
    for package in packages.installed.values():
        for name in (package.name, *package.provides):
            providers.setdefault(name, []).append(package.name)
    found: set[str] = set()
    todo = [name for root in roots for name in providers.get(root, ())]
    todo += [name for root in list(todo) for group in packages.installed[root].recommends for word in group
             for name in providers.get(word, ())]  # fmt: skip
    while todo:
        name = todo.pop()
        if name not in found and not HARDWARE.fullmatch(name):
            found.add(name)
            todo += [other for group in packages.installed[name].needs for word in group
                     for other in providers.get(word, ())]  # fmt: skip
    return found


def base(packages: Packages) -> list[str]:
    """What stays for the system's own sake."""
    return [package.name for package in packages.installed.values() if package.essential or package.name in BASE]


def hardware(packages: Packages) -> set[str]:
    """Packages that belong to the old machine."""
    return {name for name in packages.installed if HARDWARE.fullmatch(name)}


def orphans(packages: Packages, dropped: Collection[str], listing: Listing) -> set[bytes]:
    """Files that nobody has once these packages are dropped; links to such files with them.

    What an administrator may have changed stays, as it does when dpkg removes a package.
    """
    kept = {path.encode("utf-8", "surrogateescape").strip(b"/")
            for name in dropped for path in packages.installed[name].conffiles}  # fmt: skip
    found = {
        path
        for path, owners in packages.owners.items()
        if path in listing and listing[path].kind != "d" and path not in kept and not set(owners) - set(dropped)
    }
    return found | {
        path
        for path, entry in listing.items()
        if entry.kind == "l"
        and path.startswith((b"etc/alternatives/", b"etc/systemd/", b"etc/rc"))
        and lead_to(path, entry.target) in found
    }


def lead_to(path: bytes, target: bytes) -> bytes:
    """Where a link leads, without looking at other links."""
    parts = [] if target.startswith(b"/") else path.split(b"/")[:-1]
    for part in target.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def status_without(dropped: Collection[str], status: str) -> str:
    """dpkg's status where these packages are removed, those with configuration of theirs as "config-files"."""
    out = []
    for stanza in re.split(r"\n\s*\n", status.strip("\n")):
        package = _package(stanza)
        if package and package.name in dropped:
            if package.conffiles:
                out.append(re.sub(r"(?m)^Status: .*$", f"Status: {REMOVED}", stanza.strip("\n")))
        elif stanza.strip():
            out.append(stanza.strip("\n"))
    return "\n\n".join(out) + "\n"


def records(packages: Packages, dropped: Collection[str], listing: Listing) -> set[bytes]:
    """dpkg's own files about packages that are dropped; the script and list that a later purge uses stay."""
    found = set()
    for path in listing:
        if path.startswith(INFO):
            name, _, kind = path[len(INFO) :].rpartition(b".")
            package = name.partition(b":")[0].decode("ascii", "replace")
            if package in dropped and not (packages.installed[package].conffiles and kind in (b"postrm", b"list")):
                found.add(path)
    return found
