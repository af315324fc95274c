"""What logs of builds say when something is missing."""

from __future__ import annotations

import pytest

from bulkhead.packaging.missing import missing


@pytest.mark.parametrize(
    ("line", "kind", "end"),
    [
        ("it.c:1:10: fatal error: zlib.h: No such file or directory", "header", "/include/zlib.h"),
        ("/bin/sh: 1: msgfmt: not found", "program", "/bin/msgfmt"),
        ("./run: line 3: xsltproc: command not found", "program", "/bin/xsltproc"),
        ("make[1]: bison: No such file or directory", "program", "/bin/bison"),
        ("configure: error: No package 'libpng' found", "pkg-config module", "/pkgconfig/libpng.pc"),
        ("/usr/bin/ld: cannot find -lz: No such file or directory", "library", "/libz.so"),
        ("ModuleNotFoundError: No module named 'yaml.cyaml'", "Python module", "/dist-packages/yaml/__init__.py"),
        ("Can't locate XML/Parser.pm in @INC (you may need ...)", "Perl module", "/XML/Parser.pm"),
    ],
)
def test_lines(line: str, kind: str, end: str) -> None:
    (found,) = missing(f"begin\n{line}\nend\n")
    assert (found.kind, found.end) == (kind, end)


def test_each_is_told_once_in_the_order_of_the_log() -> None:
    log = "sh: 1: b: not found\nx.c:1: fatal error: a.h: No such file or directory\nsh: 9: b: not found\n"
    assert [item.name for item in missing(log)] == ["b", "a.h"]
    assert missing("nothing went wrong\n") == []
    assert len(missing("".join(f"sh: 1: p{number}: not found\n" for number in range(100)))) == 20
