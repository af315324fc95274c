"""Containerfiles as lines and instructions: continuations, here-documents, flags, and what is wrong with them."""

from __future__ import annotations

import pytest

from bulkhead.containerfile import lines, stages, syntax
from bulkhead.containerfile.instructions import Copy, Health, Run
from bulkhead.errors import NotFound, Refused


def steps(text: str) -> list[object]:
    """The steps of the last stage."""
    return list(stages.plan(text.encode(), given={}).target.steps)


def refused(text: str) -> list[str]:
    """Everything that is wrong."""
    with pytest.raises(Refused) as caught:
        stages.plan(text.encode(), given={})
    return [problem.what for problem in caught.value.problems]


def test_continuations_comments_and_empty_lines() -> None:
    read = lines.read(b"FROM a\n# comment\nRUN one \\\n  # within\n\n  two \\ \n  three\nENV A=1")
    assert [(line.number, line.keyword, line.rest) for line in read.lines] == [
        (1, "FROM", "a"),
        (3, "RUN", "one   two   three"),
        (8, "ENV", "A=1"),
    ]


def test_directives() -> None:
    read = lines.read(b"# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN dir C:\\ `\n&& echo\n")
    assert read.escape == "`"
    assert read.lines[1].rest == "dir C:\\ && echo"
    assert lines.read(b"# just a comment\n# escape=`\nFROM a").escape == "\\"
    assert refused("# escape=x\nFROM a") == ["line 1: escape is 'x', not \\ or `"]


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    read = lines.read(b"\xef\xbb\xbfFROM a\r\nRUN b \\\r\n c\r\n")
    assert [line.rest for line in read.lines] == ["a", "b  c"]


def test_here_documents() -> None:
    run, copy = steps("FROM a\nRUN cat <<A <<-'B' >x\n$one\nA\n\ttwo\n\tB\nCOPY <<C <<D /x/\n1\nC\n2\nD\n")
    assert isinstance(run, Run) and isinstance(copy, Copy)
    assert [(each.name, each.text, each.expand) for each in run.heredocs] == [
        ("A", "$one\n", True),
        ("B", "two\n", False),
    ]
    assert run.text == "cat <<A <<-'B' >x\n$one\nA\n\ttwo\n\tB"
    assert [each.text for each in copy.heredocs] == ["1\n", "2\n"]
    assert copy.sources == ("<<C", "<<D")


def test_what_is_no_here_document() -> None:
    for text in (
        "RUN cat <<<word",
        "RUN echo '<<EOF'",
        'RUN echo "a <<EOF b"',
        "RUN echo $((1<<2))",
        'RUN ["a", "<<B"]',
    ):
        (run,) = steps(f"FROM a\n{text}\n")
        assert isinstance(run, Run)
        assert not run.heredocs, text


def test_a_here_document_without_an_end() -> None:
    assert refused("FROM a\nRUN <<EOF\nx\n") == ["line 2: the here-document EOF has no end"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    told = refused("FROM a\nRUM x\nCOPY a\nEXPOSE\nENV A\nRUN --mount=type=nix x\nHEALTHCHECK maybe\nSHELL sh\n")
    assert [text.split(":")[0] for text in told] == [f"line {number}" for number in range(2, 9)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("RUN echo", "before the first FROM"),
        ("ARG a", "no FROM"),
        ("", "no instruction"),
        ("FROM a AS b\nFROM a AS B", "two stages b"),
        ("FROM a AS 1b", "stage '1b'"),
        ("FROM a b", "IMAGE or IMAGE AS NAME"),
        ("FROM --platform=linux/arm64 a", "builds linux/amd64"),
        ("FROM $x", "comes to nothing"),
        ("FROM a\nCOPY --chwon=1 a b", "--chwon is not known"),
        ("FROM a\nCOPY --chown=1 --chown=2 a b", "given twice"),
        ("FROM a\nADD https://example.org/x /x", "over the network"),
        ("FROM a\nRUN --network=web x", "not default, none or host"),
        ("FROM a\nRUN --security=insecure x", "no more rights"),
        ("FROM a\nONBUILD FROM b", "not allowed"),
        ("FROM a\nONBUILD COPY x", "at least a source"),
        ("FROM a\nCOPY --from=1 x /", "not there yet"),
        ("FROM a AS me\nCOPY --from=me x /", "not there yet"),
        ("FROM a\nRUN --mount=type=bind,target=/x,rw y", "read-only"),
        ("FROM a\nRUN --mount=type=cache y", "no target"),
        ("FROM a\nRUN --mount=type=secret y", "which secret"),
        ("FROM a\nRUN --mount=type=ssh y", "no ssh agent"),
        ("FROM a\nRUN --mount=type=cache,target=/x,colour=red y", "no 'colour'"),
        ("FROM a\nHEALTHCHECK --interval=1fortnight CMD x", "not a time"),
        ("FROM a\nHEALTHCHECK NONE x", "takes no arguments"),
        ("FROM a\nENV 1a=b", "not a variable's name"),
        ("FROM a\nENV A='x", "has no end"),
        ("FROM a\x00b", "NUL"),
    ],
)
def test_refused(text: str, why: str) -> None:
    assert why in " ".join(refused(text))


def test_a_text_that_is_none() -> None:
    with pytest.raises(Refused, match="not UTF-8"):
        lines.read(b"FROM \xff")
    with pytest.raises(Refused, match="at most"):
        lines.read(b"FROM a\n" + b"#" * lines.MOST_BYTES)
    with pytest.raises(Refused, match="more than 2000 instructions"):
        lines.read(b"FROM a\n" + b"USER b\n" * 2001)
    with pytest.raises(Refused, match="more than 200 stages"):
        stages.plan(b"FROM a\n" * 201, given={})


def test_mounts() -> None:
    (run,) = steps("FROM a\nRUN --mount=type=cache,id=x,dst=/c,sharing=locked,mode=0700,uid=1 --mount=target=/b,ro y")
    assert isinstance(run, Run)
    cache, bind = run.mounts
    assert (cache.kind, cache.id, cache.target, cache.sharing, cache.mode, cache.uid) == (
        "cache",
        "x",
        "/c",
        "locked",
        0o700,
        1,
    )
    assert (bind.kind, bind.target, bind.read_only) == ("bind", "/b", True)
    (run,) = steps("FROM a\nRUN --mount=type=secret,id=token,required y")
    assert isinstance(run, Run)
    assert (run.mounts[0].target, run.mounts[0].required) == ("/run/secrets/token", True)


def test_health_checks() -> None:
    (health,) = steps("FROM a\nHEALTHCHECK --interval=1m30s --retries=2 CMD curl x")
    assert isinstance(health, Health)
    assert health.test == ("CMD-SHELL", "curl x")
    assert dict(health.options) == {"Interval": 90 * 10**9, "Retries": 2}


def test_only_what_is_needed_is_built() -> None:
    text = b"FROM a AS one\nFROM b AS two\nFROM one AS three\nCOPY --from=0 x /\nFROM c\nCOPY --from=three x /"
    assert [stage.number for stage in stages.plan(text, given={}).stages] == [0, 2, 3]
    assert [stage.number for stage in stages.plan(text, given={}, target="two").stages] == [1]
    assert [stage.number for stage in stages.plan(text, given={}, target="2").stages] == [0, 2]
    with pytest.raises(NotFound, match="no stage 'four'"):
        stages.plan(text, given={}, target="four")


def test_arguments_before_the_first_stage() -> None:
    text = b"ARG A=1\nARG B=x$A\nFROM image:$B"
    assert stages.plan(text, given={}).target.base == "image:x1"
    assert stages.plan(text, given={"A": "2"}).target.base == "image:x2"
    assert stages.plan(text, given={"C": "2", "HTTP_PROXY": "x"}).unused == ("C",)
    assert stages.plan(b"FROM x:$TARGETARCH", given={}).target.base == "x:amd64"


def test_the_exec_form_is_json_or_it_is_none() -> None:
    assert syntax.array('["a", "b"]') == ("a", "b")
    for text in ("[a]", '["a", 1]', "[" * 100_000, "echo", "['a']"):
        assert syntax.array(text) is None
