"""How a service's image is built."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from bulkhead.compose.reading import Reader

_REMOTE = re.compile(r"^([a-z]+://|git@|github\.com/)")


@dataclass(frozen=True, slots=True)
class Build:
    """A build, as `bulkhead build` takes it."""

    context: str
    """An absolute path of a directory."""
    file: str | None = None
    """From the context on; None: Containerfile or Dockerfile."""
    inline: str | None = None
    arguments: dict[str, str | None] = field(default_factory=dict)
    """None: as `up`'s environment has it."""
    labels: dict[str, str] = field(default_factory=dict)
    network: str | None = None
    no_cache: bool = False
    pull: bool = False
    secrets: tuple[tuple[str, str], ...] = ()
    """Id, and which of the project's."""
    tags: tuple[str, ...] = ()
    target: str = ""


def read_build(reader: Reader, absolute: Callable[[str, Reader], str]) -> Build:
    """A build; `absolute` makes a path of the file's absolute."""
    if not reader.is_mapping:
        return Build(_context(reader, absolute))
    fields = reader.fields("build")
    if "privileged" in fields:
        fields["privileged"].only(False, "no step of a build is")
    if "dockerfile" in fields and "dockerfile_inline" in fields:
        fields["dockerfile_inline"].wrong("is there beside dockerfile", "say one of them")
    secrets = []
    for each in fields["secrets"].items() if "secrets" in fields else ():
        inner = each.fields("file_use") if each.is_mapping else {"source": each}
        source = (inner["source"].text() if "source" in inner else None) or ""
        target = (inner["target"].text() if "target" in inner else None) or source
        secrets.append((target.rpartition("/")[2], source))
    return Build(
        context=_context(fields["context"], absolute) if "context" in fields else absolute(".", reader),
        file=fields["dockerfile"].text() if "dockerfile" in fields else None,
        inline=fields["dockerfile_inline"].text() if "dockerfile_inline" in fields else None,
        arguments=fields["args"].pairs() if "args" in fields else {},
        labels={name: value or "" for name, value in fields["labels"].pairs().items()} if "labels" in fields else {},
        network=fields["network"].text() if "network" in fields else None,
        no_cache=bool(fields["no_cache"].truth()) if "no_cache" in fields else False,
        pull=bool(fields["pull"].truth()) if "pull" in fields else False,
        secrets=tuple(secrets),
        tags=tuple(fields["tags"].strings()) if "tags" in fields else (),
        target=(fields["target"].text() if "target" in fields else None) or "",
    )


def _context(reader: Reader, absolute: Callable[[str, Reader], str]) -> str:
    text = reader.text() or "."
    if _REMOTE.match(text):
        reader.wrong(f"the context {text!r} is not a directory of this host", "clone it first")
    return absolute(text, reader)
