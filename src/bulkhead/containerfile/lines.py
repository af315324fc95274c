"""A Containerfile's text as instructions: comments and continuations gone, here-documents attached.

The grammar is BuildKit's. The text is hostile: its size, its instructions and its words have bounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bulkhead.errors import Problem, Refused

MOST_BYTES = 1 << 20
MOST_INSTRUCTIONS = 2000
MOST_HEREDOCS = 32
DEFAULT_ESCAPE = "\\"
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(?<!\S)(\d*)<<(-?)(?:'([^'\s<>]+)'|\"([^\"\s<>]+)\"|([^\s<>'\"|;&()]+))")
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document."""

    name: str
    text: str
    """Without its last line; with leading tabs taken off where `<<-` asked for that."""
    expand: bool
    """Whether variables in it are put in: its name was not quoted."""


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction."""

    number: int
    """Line of the file at which it begins, from 1."""
    keyword: str
    """In capitals."""
    rest: str
    """What follows the keyword, on one line."""
    heredocs: tuple[Heredoc, ...] = ()
    verbatim: str = ""
    """What follows the keyword with its here-documents, as a shell reads them."""

    @property
    def shown(self) -> str:
        """For a progress line: the instruction on one line."""
        return f"{self.keyword} {self.rest}"


@dataclass(frozen=True, slots=True)
class Text:
    """A file that was read."""

    lines: tuple[Line, ...]
    escape: str


def read(data: bytes) -> Text:
    """The instructions of a file. Raises Refused with everything that is wrong with its form."""
    if len(data) > MOST_BYTES:
        raise Refused(f"the Containerfile has {len(data)} bytes, at most {MOST_BYTES} are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"the Containerfile is not UTF-8: byte {error.start} is {data[error.start]:#x}") from error
    if "\0" in text:
        raise Refused("the Containerfile holds a NUL byte: it is no text")
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._at = 0
        self._escape = DEFAULT_ESCAPE
        self._problems: list[Problem] = []

    def read(self) -> Text:
        self._directives()
        continued = re.compile(re.escape(self._escape) + r"[ \t]*$")
        found: list[Line] = []
        while self._at < len(self._lines):
            number = self._at + 1
            raw = self._lines[self._at]
            self._at += 1
            if not raw.strip() or raw.lstrip().startswith("#"):
                continue
            found.append(self._instruction(number, self._joined(raw, continued)))
            if len(found) > MOST_INSTRUCTIONS:
                raise Refused(f"the Containerfile has more than {MOST_INSTRUCTIONS} instructions")
        if not found:
            self._problems.append(Problem("the Containerfile has no instruction", "it begins with FROM IMAGE"))
        if self._problems:
            raise Refused(self._problems)
        return Text(tuple(found), self._escape)

    def _directives(self) -> None:
        """`# syntax=`, `# escape=` and `# check=`, which stand before everything else."""
        seen = set()
        for raw in self._lines:
            found = _DIRECTIVE.fullmatch(raw.strip())
            name = found[1].lower() if found else ""
            if not found or name not in _DIRECTIVES:
                return
            self._at += 1
            if name in seen:
                self._problems.append(Problem(f"line {self._at}: directive {name} is given twice"))
            seen.add(name)
            if name == "escape":
                if found[2] in ("\\", "`"):
                    self._escape = found[2]
                else:
                    self._problems.append(Problem(f"line {self._at}: escape is {found[2]!r}, not \\ or `"))

    def _joined(self, raw: str, continued: re.Pattern[str]) -> str:
        """A line with those that it goes on in. Comments and empty lines among them are nothing."""
        parts = []
        while True:
            whole = continued.sub("", raw)
            parts.append(whole)
            if whole == raw:
                break
            while self._at < len(self._lines) and (
                not self._lines[self._at].strip() or self._lines[self._at].lstrip().startswith("#")
            ):
                self._at += 1
            if self._at >= len(self._lines):
                break
            raw = self._lines[self._at]
            self._at += 1
        return "".join(parts).strip()

    def _instruction(self, number: int, joined: str) -> Line:
        keyword, _, rest = joined.replace("\t", " ", 1).partition(" ")
        keyword, rest = keyword.upper(), rest.strip()
        inner = rest.split(None, 1)[0].upper() if keyword == "ONBUILD" and rest else keyword
        documents: list[Heredoc] = []
        verbatim = [rest]
        if inner in _WITH_HEREDOCS and "<<" in rest and not rest.lstrip().startswith("["):
            for found in _outside_quotes(rest):
                document, raw = self._heredoc(number, found)
                documents.append(document)
                verbatim += raw
                if len(documents) > MOST_HEREDOCS:
                    raise Refused(f"line {number}: more than {MOST_HEREDOCS} here-documents")
        return Line(number, keyword, rest, tuple(documents), "\n".join(verbatim))

    def _heredoc(self, number: int, found: re.Match[str]) -> tuple[Heredoc, list[str]]:
        name = found[3] or found[4] or found[5]
        chomp = found[2] == "-"
        body, raw = list[str](), list[str]()
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            raw.append(line)
            own = line.lstrip("\t") if chomp else line
            if own == name:
                text = "".join(f"{each}\n" for each in body)
                return Heredoc(name, text, expand=found[5] is not None), raw
            body.append(own)
        self._problems.append(Problem(f"line {number}: the here-document {name} has no end", f"a line {name} ends it"))
        return Heredoc(name, "", expand=False), raw


def _outside_quotes(text: str) -> list[re.Match[str]]:
    """Beginnings of here-documents that no quotes of a shell's are around."""
    quoted = set()
    quote = ""
    skip = False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif char == "\\" and quote != "'":
            skip = True
        elif quote:
            quoted.add(at)
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    return [found for found in _HEREDOC.finditer(text) if found.start() not in quoted]
