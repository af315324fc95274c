"""SECURITY.md names a test for each promise: each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+(?:\.py)?)(?:::(\w+))?`")
TEXT = (ROOT / "SECURITY.md").read_text()
REFERENCES = sorted({(match[1], match[2] or "") for match in NAMED.finditer(TEXT)})
ROWS = [line for line in TEXT.partition("## Promises")[2].partition("\n## ")[0].splitlines() if line.startswith("| ")]


def test_promises_are_found() -> None:
    """Else the tests below would find nothing to complain of."""
    assert len(REFERENCES) > 40
    assert len([row for row in ROWS if not row.startswith("| promise")]) > 20


@pytest.mark.parametrize(("path", "name"), REFERENCES, ids=lambda part: part.rpartition("/")[2])
def test_the_test_is_there(path: str, name: str) -> None:
    """The file, and the function where one is named: a test function, not skipped for good."""
    assert (ROOT / path).exists()
    if name:
        tree = ast.parse((ROOT / path).read_text())
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert found, f"{path} has no {name}"
        assert "skip(" not in "".join(ast.unparse(each) for each in found[0].decorator_list)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.startswith("| promise")])
def test_no_promise_is_without_a_test(row: str) -> None:
    """Whatever wall it is for."""
    assert NAMED.search(row), row
