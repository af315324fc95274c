"""`bulkhead build` up to its request: options, the context's tar, and how a build is shown."""

from __future__ import annotations

import base64
import io
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bulkhead.cli import build
from bulkhead.cli.building import Watch
from bulkhead.cli.context import open_context
from bulkhead.cli.parsing import Parser
from bulkhead.errors import Refused


def parsed(*words: str) -> Any:
    parser = Parser("bulkhead build")
    build.arguments(parser)
    return parser.parse_args([*words, "."])


def order(*words: str) -> dict[str, Any]:
    return build.request(parsed(*words))


def test_nothing_but_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*build.PROXIES, *map(str.upper, build.PROXIES), build.EPOCH):
        monkeypatch.delenv(name, raising=False)
    assert order() == {
        "names": [],
        "arguments": {},
        "proxies": {},
        "target": "",
        "platform": "",
        "labels": {},
        "secrets": {},
        "no_cache": False,
        "pull": "missing",
        "isolation": "container",
        "network": None,
        "plan": {},
        "keep_failed": False,
    }


def test_what_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("GIVEN", "here")
    monkeypatch.setenv(build.EPOCH, "1700000000")
    made = order("--build-arg", "GIVEN", "--build-arg", "ABSENT", "--build-arg", "A=1", "--build-arg", "HTTPS_PROXY=x")
    assert made["arguments"] == {"GIVEN": "here", "A": "1"}
    assert made["proxies"]["http_proxy"] == "http://proxy:1" and made["proxies"]["HTTPS_PROXY"] == "x"
    assert made["epoch"] == 1_700_000_000
    assert "http_proxy" not in order("--http-proxy", "false")["proxies"]
    monkeypatch.setenv(build.EPOCH, "yesterday")
    with pytest.raises(Refused, match=build.EPOCH):
        order()


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"\x00secret\xff")
    monkeypatch.setenv("TOKEN", "hidden")
    made = order(
        "--secret", f"id=a,src={tmp_path / 'file'}", "--secret", "id=b,env=TOKEN", "--secret", "id=TOKEN,type=env"
    )
    assert {key: base64.b64decode(value) for key, value in made["secrets"].items()} == {
        "a": b"\x00secret\xff",
        "b": b"hidden",
        "TOKEN": b"hidden",
    }
    for wrong in ("src=x", "id=a,src=/nonexistent", "id=a,env=NONE_SUCH", "id=a,src=x,env=TOKEN", "id=a,colour=red"):
        with pytest.raises(Refused, match="--secret"):
            order("--secret", wrong)
    (tmp_path / "large").write_bytes(bytes(build.MOST_SECRET + 1))
    with pytest.raises(Refused, match="more than"):
        order("--secret", f"id=a,src={tmp_path / 'large'}")


def test_everything_wrong_at_once() -> None:
    with pytest.raises(Refused) as caught:
        order("--isolation", "jail", "--build-arg", "=x", "--label", "=y", "--memory", "lots")
    assert len(caught.value.problems) == 4


# --- the context


def files_of(place: Path, file: str | None = None) -> dict[str, tarfile.TarInfo]:
    made = open_context(str(place), file)
    with tarfile.open(fileobj=io.BytesIO(b"".join(made.chunks()))) as archive:
        return {member.name: member for member in archive}


def test_a_context_is_sent_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a\n")
    (tmp_path / "b").mkdir(mode=0o750)
    (tmp_path / "b/inner").write_bytes(b"x" * 3_000_000)
    (tmp_path / "a").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = files_of(tmp_path)
    assert list(found) == ["Dockerfile", "a", "b", "b/inner", "pipe"]
    assert found["a"].linkname == "/etc/passwd"
    assert (found["b"].mode, found["b/inner"].size, found["b/inner"].uid) == (0o750, 3_000_000, 0)


def test_which_ignore_file_counts(tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM a\n")
    (tmp_path / "other").write_text("FROM b\n")
    (tmp_path / "x").touch()
    (tmp_path / ".dockerignore").write_text("x\n")
    assert "x" not in files_of(tmp_path)
    (tmp_path / "other.dockerignore").write_text("Containerfile\n")
    assert {"x", "other"} <= set(files_of(tmp_path, "other")) and "Containerfile" not in files_of(tmp_path, "other")
    assert open_context(str(tmp_path), "other").text == "FROM b\n"
    (tmp_path / ".containerignore").write_text("[\n")
    with pytest.raises(Refused, match=r"\.containerignore: pattern"):
        open_context(str(tmp_path), None)


def test_contexts_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no Containerfile or Dockerfile"):
        open_context(str(tmp_path), None)
    with pytest.raises(Refused, match="not a directory"):
        open_context(str(tmp_path / "none"), None)
    (tmp_path / "Containerfile").write_bytes(b"\xff")
    with pytest.raises(Refused, match="not UTF-8"):
        open_context(str(tmp_path), None)


# --- what is shown


def told(**fields: object) -> dict[str, Any]:
    usual = {"step": 1, "stage": "", "place": "1/2", "text": "", "seconds": 0.5, "code": 0, "before": "", "run": {}}
    return {**usual, **fields}


def test_steps_output_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(quiet=False)
    for item in (
        told(kind="begin", text="RUN  a\n b"),
        told(kind="output", text="one\ntwo \x1b[31mred\n50%\r100%\nthr"),
        told(kind="output", text="ee"),
        told(kind="done"),
        told(kind="begin", step=2, stage="base", text="COPY a b"),
        told(kind="cached", step=2),
    ):
        watch.take(item)
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] RUN a b",
        "[1/2] | one",
        "[1/2] | two ?[31mred",
        "[1/2] | 100%",
        "[1/2] | three",
        "[1/2] done (0.50 s)",
        "[base 1/2] COPY a b",
        "[base 1/2] cached",
    ]


def test_quiet_until_something_fails(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(quiet=True)
    watch.take(told(kind="begin", text="RUN x"))
    watch.take(told(kind="output", text="".join(f"{number}\n" for number in range(100))))
    assert capsys.readouterr().err == ""
    watch.take(told(kind="failed", code=3))
    watch.failed()
    assert capsys.readouterr().err.split() == [str(number) for number in range(80, 100)]
    assert watch.failure and watch.failure["code"] == 3
