"""`.containerignore` and `.dockerignore`: which files of a context are left out. The rules are docker's."""

from __future__ import annotations

from collections.abc import Sequence

from bulkhead.containerfile.patterns import Pattern

NAMES = (".containerignore", ".dockerignore")
MOST_PATTERNS = 10_000


class Ignore:
    """The rules of one file. Raises ValueError with what is wrong with a pattern."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._rules: list[tuple[Pattern, bool]] = []
        for raw in lines:
            line = raw.removeprefix("\ufeff").strip()
            if not line or line.startswith("#"):
                continue
            keeps = line.startswith("!")
            pattern = Pattern(line[1:].strip() if keeps else line)
            if not pattern.parts:
                if keeps:
                    raise ValueError(f"{raw!r} keeps nothing")
                continue
            if ".." in pattern.parts:
                raise ValueError(f"{raw!r} leads out of the context")
            self._rules.append((pattern, keeps))
            if len(self._rules) > MOST_PATTERNS:
                raise ValueError(f"there are more than {MOST_PATTERNS} patterns")
        self.exceptions = any(keeps for _, keeps in self._rules)
        """Whether something in a directory that is left out may be kept."""

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Whether a path, relative to the context, is left out: the last rule that matches it or a parent decides."""
        left_out = False
        parts = path.split("/")
        for pattern, keeps in self._rules:
            if left_out == keeps and any(pattern.matches(parts[:count]) for count in range(1, len(parts) + 1)):
                left_out = not keeps
        return left_out
