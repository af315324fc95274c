"""Reading values out of the tree: what does not fit is told with its place, and reading goes on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from bulkhead.compose import nodes
from bulkhead.compose.keys import SECTIONS
from bulkhead.compose.nodes import Node, Place, Scalar, Troubles
from bulkhead.quantities import parse_seconds, parse_size

T = TypeVar("T")
_WORDS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Reader:
    """One value and where it is: `path` as in `services.web.ports`."""

    node: Node
    path: str
    troubles: Troubles

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.node.place

    def wrong(self, what: str, hint: str = "") -> None:
        """Tell what is wrong with it."""
        self.troubles.add(self.place, self.path, what, hint)

    def at(self, key: str | int, node: Node) -> Reader:
        """A reader of something below."""
        inner = f"{self.path}[{key}]" if isinstance(key, int) else f"{self.path}.{key}" if self.path else key
        return Reader(node, inner, self.troubles)

    @property
    def is_null(self) -> bool:
        """Whether nothing is said."""
        return isinstance(self.node, Scalar) and self.node.value is None

    @property
    def is_scalar(self) -> bool:
        """Whether it is one value."""
        return isinstance(self.node, Scalar)

    # --- mappings and lists

    def fields(self, section: str) -> dict[str, Reader]:
        """The honoured keys of a mapping; those that are refused or not known at all are told."""
        mapping = self._mapping()
        if mapping is None:
            return {}
        known = SECTIONS[section][1]
        found = {}
        for key, node in mapping.items.items():
            place = mapping.keys.get(key, node.place)
            inner = self.at(key, node)
            if key not in known:
                if not key.startswith("x-"):
                    near = get_close_matches(key, list(known), n=1, cutoff=0.7)
                    self.troubles.add(
                        place, inner.path, "this key is not known", f"did you mean {near[0]}?" if near else ""
                    )
            elif not known[key].honoured:
                if not inner.says_nothing:
                    self.troubles.add(place, inner.path, f"is not honoured: {known[key].text}", known[key].hint)
            elif not inner.is_null or section == "top":
                found[key] = inner
        if section == "top" and "services" not in mapping.items and not self.troubles.found:
            self.troubles.add(self.place, "services", "there are none")
        return found

    @property
    def says_nothing(self) -> bool:
        """Whether it is empty: that asks for nothing."""
        if isinstance(self.node, nodes.Sequence | nodes.Mapping):
            return not self.node.items
        return self.is_null

    def entries(self) -> Iterator[tuple[str, Reader, Place]]:
        """Name, value and the name's place of a mapping with names of the user's own."""
        mapping = self._mapping()
        for key, node in mapping.items.items() if mapping else ():
            assert mapping
            yield key, self.at(key, node), mapping.keys.get(key, node.place)

    def _mapping(self) -> nodes.Mapping | None:
        if isinstance(self.node, nodes.Mapping):
            return self.node
        if not self.is_null:
            self.wrong("a mapping is wanted here")
        return None

    @property
    def is_mapping(self) -> bool:
        """Whether it is one."""
        return isinstance(self.node, nodes.Mapping)

    def items(self) -> Iterator[Reader]:
        """What is in a list."""
        if isinstance(self.node, nodes.Sequence):
            for number, node in enumerate(self.node.items):
                yield self.at(number, node)
        elif not self.is_null:
            self.wrong("a list is wanted here")

    def strings(self) -> list[str]:
        """A list of texts."""
        return [text for each in self.items() if (text := each.text()) is not None]

    def string_or_list(self) -> list[str]:
        """One text, or a list of them."""
        if self.is_scalar:
            text = self.text()
            return [] if text is None else [text]
        return self.strings()

    # --- values

    def text(self) -> str | None:
        """A text; numbers and the like as they were written. None where it is none."""
        if isinstance(self.node, Scalar):
            return None if self.is_null else self.node.text
        self.wrong("a text is wanted here")
        return None

    def parsed(self, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of the text; None, and the reason told, where it raises ValueError."""
        text = self.text()
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.wrong(str(error))
            return None

    def choice(self, *known: str) -> str | None:
        """One of some words."""
        text = self.text()
        if text is None or text in known:
            return text
        self.wrong(f"{text!r} is not one of {', '.join(known)}")
        return None

    def truth(self) -> bool | None:
        """True or false."""
        text = self.text()
        if text is None:
            return None
        value = _WORDS.get(text.lower())
        if value is None:
            self.wrong(f"{text!r} is neither true nor false")
        return value

    def only(self, wanted: bool, why: str, hint: str = "") -> None:
        """True or false, of which one alone is so."""
        value = self.truth()
        if value is not None and value is not wanted:
            self.wrong(f"{str(value).lower()} is not honoured: {why}", hint)

    def only_word(self, wanted: tuple[str, ...], why: str) -> None:
        """A word, of which these alone are so."""
        text = self.text()
        if text is not None and text not in wanted:
            self.wrong(f"{text!r} is not honoured: {why}")

    def number(self, *, low: float = 0, more: bool = False) -> float | None:
        """A number of at least `low` (`more`: above it)."""

        def parse(text: str) -> float:
            with suppress(ValueError):
                value = float(text)
                if value == value and value != float("inf") and (value > low if more else value >= low):  # noqa: PLR0124
                    return value
            raise ValueError(f"{text!r} is not a number {'above' if more else 'of at least'} {low:g}")

        return self.parsed(parse)

    def whole(self, *, low: int = 0) -> int | None:
        """A whole number of at least `low`."""

        def parse(text: str) -> int:
            with suppress(ValueError):
                if (value := int(text)) >= low:
                    return value
            raise ValueError(f"{text!r} is not a whole number of at least {low}")

        return self.parsed(parse)

    def size(self) -> int | None:
        """Bytes; letters are powers of 1,024, with or without a b, as docker has them in these files."""
        return self.parsed(lambda text: parse_size(re.sub(r"(?i)(?<=.)i?b$", "", text.strip())))

    def seconds(self) -> float | None:
        """A time."""
        return self.parsed(parse_seconds)

    def words(self) -> list[str] | None:
        """A command: a list, or a text split as a shell does it."""
        if not self.is_scalar:
            return self.strings()

        def split(text: str) -> list[str]:
            try:
                return shlex.split(text)
            except ValueError as error:
                raise ValueError(f"{text!r} cannot be split into words: {error}") from None

        return self.parsed(split)

    def pairs(self) -> dict[str, str | None]:
        """K=V in a list, or a mapping; None for a name alone."""
        found: dict[str, str | None] = {}
        if self.is_mapping:
            for key, value, _ in self.entries():
                found[key] = None if value.is_null else value.text()
            return found
        for each in self.items():
            text = each.text()
            if text is not None:
                key, equals, value_text = text.partition("=")
                if not key:
                    each.wrong(f"{text!r} is not K=V")
                else:
                    found[key] = value_text if equals else None
        return found
