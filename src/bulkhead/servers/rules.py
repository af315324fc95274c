"""What of a server does not go into its image, and why: rules over paths, the first that fits counts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from bulkhead.servers.listing import Listing


@dataclass(frozen=True, slots=True)
class Rule:
    """Paths, as a regular expression over the whole of one, that are left out for a reason."""

    pattern: re.Pattern[bytes]
    why: str


def _rule(why: str, pattern: bytes) -> Rule:
    return Rule(re.compile(pattern, re.DOTALL), why)


USUAL = (
    _rule("made at each start", rb"(proc|sys|dev|run|tmp|var/tmp)/.*|(.*/)?lost\+found(/.*)?|var/(run|lock)/.*"),
    _rule("kernel, boot loader, firmware", rb"boot/.*|(usr/)?lib/(modules|firmware)/.*|(vmlinuz|initrd\.img)(\.old)?"),
    _rule(
        "identity of the old machine's hardware",
        rb"etc/udev/rules\.d/[^/]*persistent-net[^/]*|var/lib/systemd/random-seed|var/lib/(dhcp|NetworkManager)/[^/]*lease[^/]*"
        rb"|etc/(lvm/(archive|backup|devices)|mdadm)/.*|var/lib/cloud/.*|var/lib/initramfs-tools/.*",
    ),
)
"""Always."""
MINIMAL = (
    _rule(
        "documentation and translations",
        rb"usr/share/(man|info|lintian|help)/.*|usr/share/doc/(?!.*/copyright$).*[^/]"
        rb"|usr/share/locale/(?!locale\.alias$).*",
    ),
    _rule("caches", rb"var/cache/[^/]+/.*|root/\.cache/.*|home/[^/]+/\.cache/.*|var/lib/man-db/.*"),
    _rule("package lists", rb"var/lib/apt/lists/.*|var/lib/dpkg/[^/]*-old|var/backups/.*"),
    _rule("logs", rb"var/log/.*"),
)
"""With --minimize as well."""
_STAYS = re.compile(rb"var/log/.*|var/cache/[^/]+(/.*)?|usr/share/doc/[^/]+", re.DOTALL)
"""Directories that programs expect to find, even where what is in them is left out."""
_NODES = {"s": "sockets, which programs make", "c": "devices", "b": "devices", "D": "devices"}


@dataclass(slots=True)
class Chosen:
    """What goes along, in order, and what does not: number and bytes of it by the reason."""

    kept: list[bytes] = field(default_factory=list)
    size: int = 0
    left: dict[str, tuple[int, int]] = field(default_factory=dict)

    def leave(self, why: str, size: int) -> None:
        """Count one that stays behind."""
        count, total = self.left.get(why, (0, 0))
        self.left[why] = (count + 1, total + size)


def excluded(patterns: Iterable[str]) -> tuple[Rule, ...]:
    """Rules of --exclude: a path and all below it; * stands for anything but a slash, ** for anything."""
    rules = []
    for pattern in patterns:
        parts = re.split(r"(\*\*|\*|\?)", pattern.strip("/"))
        shape = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
        text = "".join(shape.get(part) or re.escape(part) for part in parts)
        rules.append(_rule("asked for by --exclude", f"{text}(/.*)?".encode()))
    return tuple(rules)


def choose(
    listing: Listing,
    rules: Sequence[Rule],
    *,
    swaps: Collection[bytes] = (),
    replaced: Collection[bytes] = (),
    unowned: Collection[bytes] = (),
) -> Chosen:
    """What of a list goes into the image.

    `swaps`: swap files. `replaced`: what is written anew. `unowned`: what no package has that is left.
    """
    chosen = Chosen()
    for path in sorted(listing):
        entry = listing[path]
        size = entry.size if entry.kind == "f" else 0
        if path in replaced:
            continue
        if why := _why(path, entry.kind, rules, swaps, unowned):
            chosen.leave(why, size)
        else:
            chosen.kept.append(path)
            chosen.size += size
    return chosen


def _why(path: bytes, kind: str, rules: Sequence[Rule], swaps: Collection[bytes], unowned: Collection[bytes]) -> str:
    if kind in _NODES:
        return _NODES[kind]
    if path in swaps:
        return "swap"
    if path in unowned:
        return "packages that are dropped"
    rule = next((rule for rule in rules if rule.pattern.fullmatch(path)), None)
    if rule is None or (kind == "d" and rule in MINIMAL and _STAYS.fullmatch(path)):
        return ""
    return rule.why
