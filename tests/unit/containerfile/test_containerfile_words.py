"""Variables, quotes and patterns."""

from __future__ import annotations

import pytest

from bulkhead.containerfile.ignore import Ignore
from bulkhead.containerfile.patterns import Pattern
from bulkhead.containerfile.words import MOST, expand, expand_document, expand_words, split

SET = {"a": "one", "e": "", "p": "foo.tar.gz", "s": "two words"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$a-${a}", "one-one"),
        ("$none", ""),
        ("'$a'", "$a"),
        ('"$a b"', "one b"),
        ("\\$a", "$a"),
        ('"\\$a \\" \\n"', '$a " \\n'),
        ("a\\ b", "a b"),
        ("${none:-x}${e:-y}${e-z}", "xy"),
        ("${a:+x}${e:+y}${e+z}", "xz"),
        ("${none:-${a}}", "one"),
        ("${none:-a}b}", "ab}"),
        ("${p#*.}", "tar.gz"),
        ("${p##*.}", "gz"),
        ("${p%.*}", "foo.tar"),
        ("${p%%.*}", "foo"),
        ("${p/o/0}", "f0o.tar.gz"),
        ("${p//o/0}", "f00.tar.gz"),
        ("${p/nothing/x}", "foo.tar.gz"),
        ("$", "$"),
        ("100%", "100%"),
    ],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, SET) == result


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("'a", "no end"),
        ('"a', "no end"),
        ("${a", "no }"),
        ("${a:", "no }"),
        ("${}", "names no variable"),
        ("${none:?give it}", "give it"),
        ("${none?}", "is not set"),
        ("${a:=b}", "no modifier"),
        ("${none:-" * 20 + "}" * 20, "nested deeper"),
    ],
)
def test_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        expand(text, SET)


def test_words() -> None:
    assert expand_words("a $s 'b c' $e x", SET) == ["a", "two", "words", "b c", "x"]
    assert expand_words('"$s"', SET) == ["two words"]
    assert split("a 'b c'=\"d e\" f\\ g") == ["a", "'b c'=\"d e\"", "f\\ g"]


def test_documents_keep_their_quotes() -> None:
    assert expand_document('it\'s "$a" \\$a \\n', SET) == 'it\'s "one" $a \\n'


def test_what_doubles_every_time_ends() -> None:
    value = "x" * 1000
    with pytest.raises(ValueError, match="more than"):
        for _ in range(30):
            value = expand("$v$v", {"v": value})
    assert len(value) <= MOST


def test_patterns_that_are_made_to_cost_time_do_not() -> None:
    with pytest.raises(ValueError, match="at most"):
        expand("${v##*a*a*a*a*a*a*a*b}", {"v": "a" * 100_000})
    assert expand("${v##*a*a*a*a*a*a*a*b}", {"v": "a" * 500}) == "a" * 500
    assert not Pattern("*a" * 60 + "b").matches(["a" * 255])
    assert not Pattern("**/a/" * 60 + "b").matches(["a"] * 200)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a", "a", True),
        ("a", "a/b", False),
        ("*", "a", True),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("a/**", "a", False),
        ("a/**", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("a/**/c", "a/b", False),
        ("?", "ä", True),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("*.tx?", "a.txt", True),
        ("./a/", "a", True),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    assert Pattern(pattern).matches(path.split("/")) is matches


@pytest.mark.parametrize("pattern", ["[", "[a", "a\\", "[b-a]", "[^]", "x" * 5000])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern"):
        Pattern(pattern)


def test_ignore_files() -> None:
    rules = Ignore(["# comment", "", "*.log", "/build", "!build/keep.me", "**/tmp", "  spaced  "])
    for path, left_out in {
        "a.log": True,
        "sub/a.log": False,
        "build": True,
        "build/x": True,
        "build/keep.me": False,
        "a/b/tmp/c": True,
        "spaced": True,
        "other": False,
    }.items():
        assert rules.excludes(path) is left_out, path
    assert rules.exceptions
    assert not Ignore([])
    with pytest.raises(ValueError, match="leads out"):
        Ignore(["../x"])
    with pytest.raises(ValueError, match="keeps nothing"):
        Ignore(["!"])
