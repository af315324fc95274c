"""Patterns of paths, as Go's filepath.Match has them, with `**` for any number of directories.

No pattern takes longer than the product of its length and the path's: they come from strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST = 4096
"""Characters of a pattern."""
_Token = Callable[[str], bool]
_STAR = None
_ANY_DIRECTORIES = "**"


class Pattern:
    """One pattern. Raises ValueError with what is wrong with it."""

    def __init__(self, text: str) -> None:
        if len(text) > MOST:
            raise ValueError(f"a pattern has {len(text)} characters, at most {MOST} are allowed")
        self.parts = [part for part in text.split("/") if part not in ("", ".")]
        self._tokens = [None if part == _ANY_DIRECTORIES else _tokens(part) for part in self.parts]
        if self._tokens and self._tokens[-1] is None:
            self._tokens.append(_tokens("*"))  # at the end it stands for something that is there

    @property
    def plain(self) -> bool:
        """Whether it is a path and nothing else."""
        return not any(char in part for part in self.parts for char in "*?[\\")

    def matches(self, parts: Sequence[str]) -> bool:
        """Whether a path, by its components, is what the pattern says."""
        reached = {0}
        for part in parts:
            step = set()
            for place in self._passed(reached):
                tokens = self._tokens[place] if place < len(self._tokens) else ()
                if tokens is None:
                    step.add(place)
                elif place < len(self._tokens) and _fits(tokens, part):
                    step.add(place + 1)
            reached = step
            if not reached:
                return False
        return len(self._tokens) in self._passed(reached)

    def fits(self, place: int, name: str) -> bool:
        """Whether the component at `place` matches a name."""
        tokens = self._tokens[place]
        return tokens is None or _fits(tokens, name)

    def _passed(self, places: set[int]) -> set[int]:
        """The places with those that are reached by taking a `**` for nothing."""
        found = set(places)
        for place in sorted(places):
            after = place
            while after < len(self._tokens) and self._tokens[after] is None:
                after += 1
                found.add(after)
        return found


def _tokens(part: str) -> tuple[_Token | None, ...]:
    """What each character of a name may be; None for any number of any."""
    found: list[_Token | None] = []
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            if not found or found[-1] is not _STAR:
                found.append(_STAR)
        elif char == "?":
            found.append(lambda _: True)
        elif char == "[":
            end = part.find("]", at + 1)
            if end < 0:
                raise ValueError(f"pattern {part[:60]!r}: a [ has no ]")
            found.append(_class(part[at:end], part))
            at = end + 1
        else:
            if char == "\\":
                if at == len(part):
                    raise ValueError(f"pattern {part[:60]!r} ends in a backslash")
                char = part[at]
                at += 1
            found.append(char.__eq__)
    return tuple(found)


def _class(inside: str, part: str) -> _Token:
    negated = inside[0] in "^!"
    inside = inside[1:] if negated else inside
    if not inside:
        raise ValueError(f"pattern {part[:60]!r}: [] names no character")
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(inside):
        if inside[at + 1 : at + 2] == "-" and at + 2 < len(inside):
            low, high = inside[at], inside[at + 2]
            if low > high:
                raise ValueError(f"pattern {part[:60]!r}: {low}-{high} is no range")
            ranges.append((low, high))
            at += 3
        else:
            ranges.append((inside[at], inside[at]))
            at += 1
    return lambda char: any(low <= char <= high for low, high in ranges) is not negated


def _nothing(_: str) -> bool:
    return False


def _fits(tokens: Sequence[_Token | None], name: str) -> bool:
    at = star = mark = place = 0
    starred = False
    while at < len(name):
        token = tokens[place] if place < len(tokens) else _nothing
        if token is None:
            star, mark, starred = place, at, True
            place += 1
        elif token(name[at]):
            at, place = at + 1, place + 1
        elif starred:
            mark += 1
            at, place = mark, star + 1
        else:
            return False
    return all(token is None for token in tokens[place:])
