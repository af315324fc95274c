"""The instructions as types. What can hold variables is kept as written: it is expanded when its turn comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bulkhead.containerfile.lines import Heredoc, Line

Kind = Literal["bind", "cache", "tmpfs", "secret"]
Sharing = Literal["shared", "private", "locked"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """The base."""

    line: Line


@dataclass(frozen=True, slots=True)
class From(Instruction):
    """The beginning of a stage."""

    image: str
    name: str
    """In small letters; "" for none."""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """One `--mount` of a RUN."""

    kind: Kind
    target: str = ""
    source: str = ""
    origin: str = ""
    """Of a bind: the stage or image, "" for the context."""
    id: str = ""
    read_only: bool = False
    required: bool = False
    sharing: Sharing = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int | None = None
    """Bytes of a tmpfs."""


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    """A command."""

    words: tuple[str, ...] | None
    """The exec form; None: `text` is for the shell."""
    text: str
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    """"default", "none" or "host"; "": as the build has it."""


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """COPY and ADD."""

    sources: tuple[str, ...]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    """In the place of those sources that are called `<<NAME`."""
    origin: str = ""
    """A stage or an image; "" for the context."""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    """ADD: archives are unpacked."""
    expand: bool = True
    """Whether variables are put in: the exec form has them too."""


@dataclass(frozen=True, slots=True)
class Pairs(Instruction):
    """ENV, LABEL, ARG: names and values with their quotes; an ARG may have None."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Words(Instruction):
    """EXPOSE and VOLUME; WORKDIR, USER, STOPSIGNAL and MAINTAINER with one word, spaces included."""

    words: tuple[str, ...]
    literal: bool = False
    """The JSON form."""


@dataclass(frozen=True, slots=True)
class Command(Instruction):
    """CMD, ENTRYPOINT and SHELL."""

    words: tuple[str, ...] | None
    """None: `text` is for the shell."""
    text: str


@dataclass(frozen=True, slots=True)
class Health(Instruction):
    """HEALTHCHECK."""

    test: tuple[str, ...]
    """As an image has it: NONE, CMD and words, CMD-SHELL and text."""
    options: tuple[tuple[str, int], ...] = ()
    """By the image's names; times in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Onbuild(Instruction):
    """An instruction for images that are built on this one."""

    text: str
