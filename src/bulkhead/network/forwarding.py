"""The host as a router: switched on with the first network, and put back as it was with the last.

What was changed is remembered in a file before it is changed. Where several daemons share a host, each has a record
of how the host was before any of them: one that comes second copies the record of the first, found through the
alias of its bridges, and only the last one to go puts the settings back.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from bulkhead.config import Config
from bulkhead.errors import HostError
from bulkhead.host import namespaces
from bulkhead.host.links import Link

SETTINGS = Path("/proc/sys/net")
_ALIAS = re.compile(r"^bulkhead/([a-z0-9_]+)/network(/.*)$")
FORWARD4, FORWARD6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"
_SETTING = r"^(ipv4/ip_forward|ipv4/conf/[^/]+/forwarding|ipv6/conf/[^/]+/(forwarding|accept_ra))$"


def bridge_alias(config: Config) -> str:
    """What the alias of a bridge says: whose it is, and where that daemon keeps its record."""
    return f"bulkhead/{config.nft_table}/network{config.run_dir}"[:255]


class Record(BaseModel):
    """How the host was before it had networks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[Annotated[str, StringConstraints(pattern=_SETTING)], Literal["0", "1"]] = {}
    """What was changed, by its path below /proc/sys/net."""
    closed: dict[Literal["ip", "ip6"], tuple[str, ...]] = {}
    """The links that there were when a family was not forwarded: between them it still is not."""

    def over(self, other: Record) -> Record:
        """Both, and where they differ this one."""
        return Record(settings={**other.settings, **self.settings}, closed={**other.closed, **self.closed})


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What one daemon changes, and how it puts it back."""

    config: Config

    @property
    def file(self) -> Path:
        """The record; there only while something is changed."""
        return self.config.run_dir / "network" / "forwarding.json"

    def enable(self, links: Iterable[Link]) -> Record:
        """Forward packets of both families, and go on listening to router advertisements where the host did.

        Returns how it was before. HostError on a kernel without IPv6.
        """
        links = list(links)
        with _exclusive():
            record = _read(self.file)
            for other in self._others(links):
                record = record.over(_read(other))
            changes: dict[str, str] = {}
            closed: dict[Literal["ip", "ip6"], tuple[str, ...]] = {}
            here = tuple(sorted(link.name for link in links if not link.master and link.name != "lo"))
            if _get(FORWARD4) == "0":
                changes |= dict.fromkeys(_on("ipv4/conf/{}/forwarding"), "1")
                changes[FORWARD4] = "1"
                closed["ip"] = here
            if _get(FORWARD6) == "0":
                # Before the switch: with forwarding on, a host whose accept_ra is 1 forgets its default routes.
                changes |= dict.fromkeys(_on("ipv6/conf/{}/accept_ra"), "2")
                changes |= dict.fromkeys(_on("ipv6/conf/{}/forwarding"), "1")
                changes[FORWARD6] = "1"
                closed["ip6"] = here
            record = record.over(Record.model_validate({"settings": {n: _get(n) for n in changes}, "closed": closed}))
            if record.settings:
                _write(self.file, record)
            namespaces.set_sysctls(changes)
        return record

    def disable(self, links: Iterable[Link]) -> None:
        """Put back what was changed, unless another daemon still has networks. Idempotent."""
        with _exclusive():
            if not list(self._others(links)):
                # The reverse order; what has been changed again since, or has gone, is left alone. Switching all
                # links off takes those along that forwarded before: they come after it here, and are on again.
                for name, value in reversed(_read(self.file).settings.items()):
                    changed = "2" if name.endswith("accept_ra") else "1" if value == "0" else "0"
                    if (SETTINGS / name).exists() and _get(name) == changed:
                        namespaces.set_sysctls({name: value})
            self.file.unlink(missing_ok=True)

    def _others(self, links: Iterable[Link]) -> Iterator[Path]:
        """Records of other daemons that have bridges now."""
        for link in links:
            found = _ALIAS.match(link.alias)
            if link.kind == "bridge" and found and found[1] != self.config.nft_table:
                yield Path(found[2]) / "network" / "forwarding.json"


@contextmanager
def _exclusive() -> Iterator[None]:
    """One daemon at a time, whatever its configuration: the lock is on the setting itself."""
    descriptor = os.open(SETTINGS / FORWARD4, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _on(pattern: str) -> list[str]:
    """The settings of single links that are 1 now."""
    directory = SETTINGS / pattern.partition("{}")[0]
    names = [pattern.format(each.name) for each in sorted(directory.iterdir()) if each.name != "all"]
    return [name for name in names if _get(name) == "1"]


def _get(name: str) -> str:
    try:
        return (SETTINGS / name).read_text().strip()
    except OSError as error:
        hint = "networks need a kernel with IPv6" if name.startswith("ipv6") else ""
        raise HostError(f"{SETTINGS / name} cannot be read: {error.strerror}", hint=hint) from error


def _read(file: Path) -> Record:
    try:
        return Record.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Record()
    except ValidationError as error:
        hint = f"put net.ipv4.ip_forward and net.ipv6.conf.all.forwarding back by hand and remove {file}"
        raise HostError(f"{file} is damaged: {error.errors()[0]['msg']}", hint=hint) from error


def _write(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".new")
    temporary.write_text(record.model_dump_json())
    temporary.replace(file)
