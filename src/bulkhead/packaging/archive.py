"""The distribution's archive, by this host's own apt with places of its own: nothing of the host's changes.

A room gets its packages from here, not from a network: that works behind every wall, and nothing else can come in. apt
is told the room's packages in the place of the host's, and says what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bulkhead.errors import HostError, Refused
from bulkhead.host import processes
from bulkhead.images.bootstrap import sources

_SUITE = re.compile(r"[a-z][a-z0-9.-]{0,40}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:=[A-Za-z0-9.+:~-]+)?")
_SECONDS = 1800.0
_CONTENTS = "Contents-deb"
_GREP = 'for file; do /usr/lib/apt/apt-helper cat-file "$file"; done | LC_ALL=C grep -F -f wanted || true'


class Archive:
    """What apt knows of a suite. `directory` is for its lists and downloads, and may be kept."""

    def __init__(self, suite: str, architecture: str, directory: Path) -> None:
        if not _SUITE.fullmatch(suite):
            raise Refused(f"the room's release calls itself {suite!r}: no suite has such a name")
        self._suite, self._architecture, self._directory = suite, architecture, directory
        self._archives = directory / "archives"
        for each in (directory / "lists" / "partial", self._archives / "partial", directory / "none" / "partial"):
            each.mkdir(parents=True, exist_ok=True)
        self._status = directory / "status"
        lines = sources(suite)
        if not lines:
            hint = "name it in /etc/apt/sources.list.d, and run apt-get update"
            raise Refused(f"this host's apt knows no mirror of {suite}, the room's release", hint=hint)
        self._list = directory / "sources.list"
        self._list.write_text("".join(f"{line}\n{line.replace('deb ', 'deb-src ', 1)}\n" for line in lines))

    def update(self) -> None:
        """Bring the lists up to date. Raises HostError."""
        self._apt("update")

    def source(self, name: str, into: Path) -> Path:
        """Download a source package; its .dsc. Raises Refused, HostError."""
        if not _PACKAGE.fullmatch(name):
            raise Refused(f"{name!r} is neither a directory nor a source package's name", hint="hello, or ./hello-2.10")
        self._run(["apt-get", *self._options(), "source", "--download-only", name], cwd=into)
        found = list(into.glob("*.dsc"))
        if len(found) != 1:
            raise HostError(f"apt-get source {name} has brought {len(found)} .dsc files")
        return found[0]

    def build_dependencies(self, status: str, source: Path, extra: Sequence[str]) -> list[Path]:
        """The .deb files that a room with this dpkg status lacks to build a .dsc or directory, and those of `extra`."""
        return [*self._needed(status, "build-dep", [str(source)]), *self.packages(status, extra)]

    def packages(self, status: str, names: Sequence[str | Path]) -> list[Path]:
        """The packages that it lacks to install others: names, or .deb files."""
        return self._needed(status, "install", [str(name) for name in names]) if names else []

    def _needed(self, status: str, verb: str, what: Sequence[str]) -> list[Path]:
        self._status.write_text(status)
        argv = [verb, "--yes", "--no-install-recommends", *what]
        # What is there already would not be named.
        said = self._apt("-o", f"Dir::Cache::archives={self._directory / 'none'}", "--print-uris", *argv)
        names = re.findall(r"^'(?!file:|/)[^']+' (\S+\.deb) \d+ ", said, re.MULTILINE)
        self._apt("--download-only", *argv)
        found = [self._archives / name for name in names]
        missing = [path.name for path in found if not path.exists()]
        if missing:
            raise HostError(f"apt-get has not brought {', '.join(missing)}")
        return found

    def providers(self, path_ends: Sequence[str]) -> dict[str, list[str]]:
        """Packages that have a file whose path ends so, by that end. Downloads the archive's list of contents."""
        if not path_ends:
            return {}
        base = "$(COMPONENT)/Contents-"
        target = f"Acquire::IndexTargets::deb::{_CONTENTS}"
        self._apt(
            *("-o", f"{target}::MetaKey={base}$(ARCHITECTURE)", "-o", f"{target}::Description=contents"),
            *("-o", f"{target}::ShortDescription=contents", "-o", f"{target}::KeepCompressed=true", "update"),
        )
        found: dict[str, list[tuple[int, str]]] = {end: [] for end in path_ends}
        pattern = re.compile(rf"^(?P<path>\S*(?:{'|'.join(re.escape(end) for end in path_ends)}))\s+(?P<where>\S+)$")
        files = [str(file) for file in sorted((self._directory / "lists").glob("*Contents-*"))]
        # Hundreds of megabytes when unpacked: grep leaves little to look at.
        (self._directory / "wanted").write_text("".join(f"{end}\n" for end in path_ends))
        said = self._run(["sh", "-c", _GREP, "sh", *files], cwd=self._directory)
        for match in map(pattern.match, said.splitlines()):
            for end in path_ends if match else ():
                if match and f"/{match['path']}".endswith(end):
                    depth = len(match["path"])
                    found[end] += [(depth, where.rpartition("/")[2]) for where in match["where"].split(",")]
        # /usr/include/zlib.h is rather meant than /usr/lib/klibc/include/zlib.h.
        return {end: list(dict.fromkeys(name for _, name in sorted(each))) for end, each in found.items()}

    def _apt(self, *arguments: str) -> str:
        return self._run(["apt-get", *self._options(), *arguments], cwd=self._directory)

    def _options(self) -> list[str]:
        if not self._status.exists():
            self._status.touch()
        settings = {
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Sandbox::User": "root",
            "APT::Get::List-Cleanup": "false",  # the contents stay for the next time
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
            "Dir::Cache": self._directory,
            "Dir::Cache::archives": self._archives,
            "Dir::Etc::sourcelist": self._list,
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Dir::State::lists": self._directory / "lists",
            "Dir::State::status": self._status,
            "Dir::State::extended_states": self._directory / "extended_states",
        }
        return ["-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]

    def _run(self, argv: Sequence[str], *, cwd: Path) -> str:
        return processes.run(argv, timeout=_SECONDS, package="apt", cwd=cwd).decode(errors="replace")
