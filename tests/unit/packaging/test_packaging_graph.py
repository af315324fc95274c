"""Packages and who needs whom, and relations as Debian writes them."""

from __future__ import annotations

import pytest

from bulkhead.packaging.graph import Graph, canonical, groups, owners

STATUS = """Package: libc6
Status: install ok installed
Essential: no
Version: 1

Package: dash
Status: install ok installed
Essential: yes
Depends: libc6 (>= 2.30)
Version: 1

Package: debhelper
Status: install ok installed
Provides: debhelper-compat (= 13), dh-sequence-x
Depends: gettext | gettext-lite, libc6
Pre-Depends: dash
Version: 13

Package: gettext
Status: install ok installed
Depends: libc6
Version: 1

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def test_what_is_installed_and_needed() -> None:
    graph = Graph.parse(STATUS)
    assert {*graph.packages} == {"libc6", "dash", "debhelper", "gettext"}
    assert graph.satisfying(("debhelper-compat",)) == {"debhelper"}
    assert graph.satisfying(("gettext-lite", "gettext")) == {"gettext"}
    assert graph.satisfying(("gone",)) == frozenset()
    assert graph.direct("debhelper") == {"gettext", "libc6", "dash"}
    assert graph.closure("gettext") == {"gettext", "libc6"}
    assert graph.closure("unheard-of") == {"unheard-of"}
    assert graph.free() == {"dash", "libc6"}
    assert graph.free(("gettext", "not-there")) == {"dash", "libc6", "gettext"}


def test_circles_of_dependencies_end() -> None:
    form = "Package: {}\nStatus: install ok installed\nDepends: {}\nVersion: 1\n\n"
    status = form.format("a", "b") + form.format("b", "a")
    assert Graph.parse(status).closure("a") == {"a", "b"}


@pytest.mark.parametrize(
    ("relation", "wanted"),
    [
        ("", []),
        ("debhelper-compat (= 13),\n libfoo-dev [amd64], bar [!amd64]", [("debhelper-compat",), ("libfoo-dev",)]),
        ("a | b:any (>= 2), c <!nocheck>, d <stage1>, e [i386]", [("a", "b"), ("c",)]),
        ("f <!nocheck> <stage1>, g <cross !nocheck>", [("f",)]),
        ("h [linux-any], i [any-amd64]", [("h",), ("i",)]),
    ],
)
def test_relations(relation: str, wanted: list[tuple[str, ...]]) -> None:
    assert groups(relation, "amd64") == wanted


def test_files_have_one_name() -> None:
    assert canonical("/usr/bin/sh") == canonical("/bin/sh") == "/bin/sh"
    assert canonical("/usr/share/x") == "/usr/share/x"
    assert (
        canonical("/usr/lib/python3/dist-packages/a/__pycache__/b.cpython-311.pyc")
        == "/lib/python3/dist-packages/a/b.py"
    )
    known = owners({"dash": "/.\n/bin\n/bin/dash\n", "z": "/usr/include/zlib.h\n"})
    assert known["/bin/dash"] == "dash"
    assert known["/usr/include/zlib.h"] == "z"
    assert "/." not in known
