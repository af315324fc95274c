"""Variables and quotes, as BuildKit's shell lexer has them: `$x`, `${x:-y}`, `${x#pattern}`, quotes, escapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST = 1 << 17
"""Characters of one expanded text: as much as Linux takes as one argument or variable."""
DEEPEST = 16
MOST_PATTERN, MOST_MATCHED = 64, 512
"""Characters, where a pattern is cut off or replaced: the time that it takes grows with the cube of the value."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODIFIERS = (":-", ":+", ":?", "##", "%%", "//", "-", "+", "?", "#", "%", "/", "}")
_SPECIAL = re.compile(r"[0-9*@#?$!-]")


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """`text` with variables put in and quotes taken off. Raises ValueError with the reason."""
    return "".join(_Lexer(text, variables, escape).words(whole=True))


def expand_document(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """As `expand` for a here-document: quotes are text like any other."""
    return "".join(_Lexer(text, variables, escape).document())


def expand_words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """As `expand`, split at white space that is in no quotes, also where a variable has brought it."""
    return _Lexer(text, variables, escape).words(whole=False)


def split(text: str, escape: str = "\\") -> list[str]:
    """Words with their quotes, split at white space outside of these."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word, at = "", at + 1
            continue
        word += char
        at += 1
    if quote:
        raise ValueError(f"a quote {quote} has no end")
    return [*words, word] if word else words


class _Lexer:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str, depth: int = 0) -> None:
        if depth > DEEPEST:
            raise ValueError(f"variables are nested deeper than {DEEPEST}")
        self._text = text
        self._variables = variables
        self._escape = escape
        self._depth = depth
        self._at = 0
        self._length = 0

    def words(self, *, whole: bool) -> list[str]:
        """All of the text as one word, or as several."""
        words: list[str] = []
        word: str | None = None
        while self._at < len(self._text):
            char = self._text[self._at]
            if char.isspace() and not whole:
                self._at += 1
                if word is not None:
                    words.append(word)
                word = None
            elif char == "$":
                value = self._variable()
                if whole:
                    word = (word or "") + value
                    continue
                pieces = re.split(r"\s+", value)
                word = (word or "") + pieces[0] if pieces[0] or word is not None else None
                for piece in pieces[1:]:
                    if word is not None:
                        words.append(word)
                    word = piece or None
            else:
                word = (word or "") + self._piece(char)
        return words if word is None else [*words, word]

    def document(self) -> list[str]:
        """All of the text, its quotes kept."""
        found: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "$":
                found.append(self._variable())
                continue
            self._at += 1
            if char == self._escape and self._text[self._at : self._at + 1] in ("$", self._escape):
                char = self._text[self._at]
                self._at += 1
            found.append(self._counted(char))
        return found

    def _piece(self, char: str) -> str:
        """Quoted text, an escaped character, or a plain one."""
        if char == "'":
            end = self._text.find("'", self._at + 1)
            if end < 0:
                raise ValueError("a quote ' has no end")
            inside, self._at = self._text[self._at + 1 : end], end + 1
            return self._counted(inside)
        if char == '"':
            return self._double()
        self._at += 1
        if char == self._escape and self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
        return self._counted(char)

    def _double(self) -> str:
        self._at += 1
        found: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(found)
            if char == "$":
                found.append(self._variable())
                continue
            self._at += 1
            if char == self._escape and self._at < len(self._text) and self._text[self._at] in ('"', "$", self._escape):
                char = self._text[self._at]
                self._at += 1
            found.append(self._counted(char))
        raise ValueError('a quote " has no end')

    def _variable(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            return self._counted(self._braces())
        found = _NAME.match(self._text, self._at) or _SPECIAL.match(self._text, self._at)
        if not found:
            return self._counted("$")
        self._at = found.end()
        return self._counted(self._variables.get(found[0], ""))

    def _braces(self) -> str:
        begin = self._at + 1
        found = _NAME.match(self._text, begin) or _SPECIAL.match(self._text, begin)
        if not found:
            raise ValueError(f"{self._text[begin - 2 : begin + 20]!r} names no variable")
        name, self._at = found[0], found.end()
        value = self._variables.get(name)
        modifier = next((each for each in _MODIFIERS if self._text.startswith(each, self._at)), "")
        if not modifier:
            raise ValueError(f"${{{name}{self._text[self._at : self._at + 10]} has no }} or no modifier that is known")
        self._at += len(modifier)
        if modifier == "}":
            return value or ""
        rest = self._rest()
        if modifier in ("##", "%%", "#", "%"):
            return _cut(value or "", self._inner(rest), modifier)
        if modifier in ("/", "//"):
            pattern, _, put = rest.partition("/")
            return _replaced(value or "", self._inner(pattern), self._inner(put), everywhere=modifier == "//")
        given = value is not None and (value != "" or not modifier.startswith(":"))
        if modifier.endswith("+"):
            return self._inner(rest) if given else ""
        if given:
            return value or ""
        if modifier.endswith("?"):
            raise ValueError(f"{name}: {self._inner(rest) or 'it is not set'}")
        return self._inner(rest)

    def _rest(self) -> str:
        """Up to the brace that closes this one."""
        begin, level = self._at, 1
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == self._escape:
                self._at += 1
            elif char == "{" and self._text[self._at - 2] == "$":
                level += 1
            elif char == "}":
                level -= 1
                if not level:
                    return self._text[begin : self._at - 1]
        raise ValueError(f"${{{self._text[begin : begin + 20]} has no }}")

    def _inner(self, text: str) -> str:
        return "".join(_Lexer(text, self._variables, self._escape, self._depth + 1).words(whole=True))

    def _counted(self, piece: str) -> str:
        self._length += len(piece)
        if self._length > MOST:
            raise ValueError(f"it comes to more than {MOST} characters")
        return piece


def _matches(pattern: str, text: str) -> bool:
    """Whether a shell's pattern (`*`, `?`) is all of the text. Takes no longer than the product of their lengths."""
    at = star = mark = 0
    place, stars = 0, False
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, mark, stars = place, at, True
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            at, place = at + 1, place + 1
        elif stars:
            mark += 1
            at, place = mark, star + 1
        else:
            return False
    return not pattern[place:].strip("*")


def _cut(value: str, pattern: str, modifier: str) -> str:
    """`value` without what matches at its beginning (#) or end (%): the shortest, doubled the longest."""
    _check(value, pattern)
    sizes = range(len(value), -1, -1) if len(modifier) == 2 else range(len(value) + 1)
    for size in sizes:
        part = value[:size] if modifier[0] == "#" else value[len(value) - size :]
        if _matches(pattern, part):
            return value[size:] if modifier[0] == "#" else value[: len(value) - size]
    return value


def _replaced(value: str, pattern: str, put: str, *, everywhere: bool) -> str:
    """`value` with what matches, the longest at each place, replaced by `put`."""
    _check(value, pattern)
    done, at = [], 0
    while pattern and at < len(value):
        ends = range(len(value), at, -1) if "*" in pattern else range(at + len(pattern), at, -1)
        end = next((end for end in ends if end <= len(value) and _matches(pattern, value[at:end])), None)
        if end is None:
            done.append(value[at])
            at += 1
            continue
        done.append(put)
        at = end
        if not everywhere:
            break
    return "".join(done) + value[at:]


def _check(value: str, pattern: str) -> None:
    if len(pattern) > MOST_PATTERN or len(value) > MOST_MATCHED:
        raise ValueError(
            f"patterns of at most {MOST_PATTERN} characters are matched with values of at most {MOST_MATCHED}"
        )
