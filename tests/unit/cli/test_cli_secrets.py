"""What users write of secrets: how an instance is to get one, and where a value comes from."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.cli.secret import MOST, value_of
from bulkhead.cli.secret_use import parse_secret
from bulkhead.secret import LAST_ID, MOST_SIZE, SecretUse


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("key", {"source": "key"}),
        ("source=key", {"source": "key"}),
        ("key,type=mount", {"source": "key"}),
        ("key,type=mount,type=mount", {"source": "key"}),
        ("key,target=/etc/key,uid=7,gid=9,mode=0400", {"target": "/etc/key", "uid": 7, "gid": 9, "mode": 0o400}),
        ("key,target=word", {"target": "/run/secrets/word"}),
        ("key,target=a/b", {"target": "/run/secrets/a/b"}),
        ("key,mode=440", {"mode": 0o440}),
        ("key,mode=0", {"mode": 0}),
        ("key,mode=0000777", {"mode": 0o777}),
        (f"key,uid={LAST_ID}", {"uid": LAST_ID}),
    ],
)
def test_how_an_instance_gets_it(text: str, use: dict[str, object]) -> None:
    assert SecretUse.model_validate(parse_secret(text)) == SecretUse.model_validate({"source": "key", **use})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "secrets are given as NAME"),
        ("/etc/passwd", "secrets are given as NAME"),
        ("key\n", "secrets are given as NAME"),
        ("source=source=key", "secrets are given as NAME"),
        ("key,env=X", "'env=X' is not one of"),
        ("key,target", "'target' is not one of"),
        ("key,uid=1,uid=1", "given once"),
        ("key,target=", "the target is empty"),
        ("key,type=env", "leave type out"),
        ("key,type=file", "the type 'file' is not mount"),
        (f"key,uid={LAST_ID + 1}", "no uid or gid"),
        ("key,uid=000000000009999999999", "no uid or gid"),
        ("key,uid=\u0661", "no uid or gid"),
        ("key,gid=-1", "no uid or gid"),
        ("key,gid=root", "no uid or gid"),
        ("key,mode=1000", "no mode such as 0400"),
        ("key,mode=0o400", "no mode such as 0400"),
        ("key,mode=4_0_0", "no mode such as 0400"),
        ("key,mode=8", "no mode such as 0400"),
        ("key,mode=", "no mode such as 0400"),
    ],
)
def test_what_cannot_be_is_told(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_secret(text)
    assert reason in str(caught.value) and "--secret" in str(caught.value)


@given(st.text(alphabet="key,=0123456789_-/.target uidgmosrc\n", max_size=40))
def test_no_text_gives_anything_but_a_use_or_a_reason(text: str) -> None:
    try:
        use = parse_secret(text)
    except ValueError:
        return
    SecretUse.model_validate(use)


def test_where_a_value_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"\0file\xff\n")
    monkeypatch.setenv("WORD", "in a variable")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin\n")))
    assert value_of(str(tmp_path / "file"), env=False) == b"\0file\xff\n"
    assert value_of("WORD", env=True) == b"in a variable"
    assert value_of("-", env=False) == b"from stdin\n"
    assert MOST == MOST_SIZE, "both sides have one bound"


def test_a_value_that_cannot_be_is_told_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    (tmp_path / "large").write_bytes(b"hunter2" * MOST)
    for source, env, reason in (
        (str(tmp_path / "none"), False, "cannot be read: No such file"),
        (str(tmp_path), False, "cannot be read: Is a directory"),
        (str(tmp_path / "large"), False, f"more than {MOST} bytes"),
        ("NOTHING", True, "there is no variable NOTHING"),
        ("EMPTY", True, "EMPTY is empty"),
    ):
        with pytest.raises(ValueError) as caught:
            value_of(source, env=env)
        assert reason in str(caught.value) and "hunter2" not in str(caught.value)
