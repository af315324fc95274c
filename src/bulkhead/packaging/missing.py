"""What a failed build has not found, by what it said. Compilers and shells have words of their own for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bulkhead.packaging.archive import Archive

MOST = 20
MOST_PACKAGES = 5
_PATTERNS = (
    (r"fatal error: (?P<name>[\w./+-]+): No such file or directory", "/include/{name}", "header"),
    (r"(?:^|[ /:])(?P<name>[\w.+-]+): (?:command )?not found\s*$", "/bin/{name}", "program"),
    (r"[\"'`]?(?P<name>[\w.+-]+)[\"'`]?: Command not found", "/bin/{name}", "program"),
    (r"make(?:\[\d+\])?: (?P<name>[\w.+-]+): No such file or directory", "/bin/{name}", "program"),
    (r"Can't exec \"(?P<name>[\w.+-]+)\": No such file or directory", "/bin/{name}", "program"),
    (r"exec: \"?(?P<name>[\w.+-]+)\"?: (?:executable file )?not found", "/bin/{name}", "program"),
    (r"dh: error: .*?(?P<name>dh_[\w-]+): No such file or directory", "/bin/{name}", "program"),
    (r"No package '(?P<name>[\w.+-]+)' found", "/pkgconfig/{name}.pc", "pkg-config module"),
    (r"Package '?(?P<name>[\w.+-]+)'?,? .*not found", "/pkgconfig/{name}.pc", "pkg-config module"),
    (r"cannot find -l(?P<name>[\w.+-]+)", "/lib{name}.so", "library"),
    (r"ModuleNotFoundError: No module named '(?P<name>\w+)", "/dist-packages/{name}/__init__.py", "Python module"),
    (r"Can't locate (?P<name>[\w/]+\.pm) in @INC", "/{name}", "Perl module"),
)
_COMPILED = tuple((re.compile(pattern, re.MULTILINE), end, kind) for pattern, end, kind in _PATTERNS)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that was looked for in vain. `end`: how its path would end."""

    name: str
    kind: str
    end: str
    packages: tuple[str, ...] = ()
    """Those of the archive that have it."""


def missing(log: str) -> Sequence[Missing]:
    """What a log complains of, in its order, each once."""
    found: dict[tuple[str, str], tuple[int, Missing]] = {}
    for pattern, end, kind in _COMPILED:
        for match in pattern.finditer(log):
            name = match["name"]
            item = Missing(name, kind, end.format(name=name))
            if (name, kind) not in found or match.start() < found[name, kind][0]:
                found[name, kind] = (match.start(), item)
    return [item for _, item in sorted(found.values(), key=lambda each: each[0])][:MOST]


def look_up(archive: Archive, found: Sequence[Missing]) -> tuple[Missing, ...]:
    """The same with the packages of the archive that have it."""
    if not found:
        return ()
    known = archive.providers(sorted({item.end for item in found}))
    return tuple(replace(item, packages=tuple(known.get(item.end, ())[:MOST_PACKAGES])) for item in found)
