"""What comes of a copy that breaks off: an error before the end, so that nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bulkhead.cli import from_server
from bulkhead.cli.from_server import Server
from bulkhead.errors import HostError
from bulkhead.host import remote
from bulkhead.host.remote import Shell
from bulkhead.servers.archiving import Complaints


def server(script: str) -> Server:
    """One whose every command is this script."""
    return Server(Shell("there", ("sh", "-c", script)), "/", live=True, name="")


def take(chunks: Iterator[bytes]) -> bytes:
    return b"".join(chunks)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("printf data; exit 255", "tar on there failed with 255"),
        ("printf data; echo 'tar: ./x: Cannot open: Permission denied' >&2; exit 2", "Permission denied"),
        ("printf data; kill -KILL $$", "tar on there failed with -9"),
        ("printf data; printf 'tar: ./\\033[2Jx: Cannot open: Input/output error' >&2; exit 2", r"\?\[2Jx"),
    ],
)
def test_a_tar_that_ends_before_its_end(script: str, said: str) -> None:
    with from_server._tar(server(script), [b"x"], Complaints()) as chunks, pytest.raises(HostError, match=said):
        take(chunks)


def test_files_that_change_are_no_failure() -> None:
    complaints = Complaints()
    script = "printf data; echo 'tar: ./x: file changed as we read it' >&2; exit 1"
    with from_server._tar(server(script), [b"x"], complaints) as chunks:
        assert take(chunks) == b"data"
    assert complaints.changed == ["tar: ./x: file changed as we read it"]


def test_a_list_without_an_end_is_none() -> None:
    with pytest.raises(HostError, match="could not be listed"):
        from_server.listed(server("echo find: not found >&2; exit 127"), (".",))


def test_a_user_who_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        remote.Shell, "run", lambda self, script, limit, **_: b"1000\n" if script == "id -u" else _refuse()
    )
    with pytest.raises(from_server.Refused, match="sudo asks"):
        from_server._as_root(Shell("there", ("sh",)))


def _refuse() -> bytes:
    raise HostError("sudo: a password is required")
