"""The daemon is killed while a secret is kept, replaced or removed: the next one has one value or the other, whole."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from bulkhead.engine.faults import SECRETS
from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, with_image

CALM = {"BULKHEAD_CRASH_AT": ""}
WRITTEN, RECORDED, FORGOTTEN = SECRETS


@pytest.fixture(scope="module")
def crashing(module_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """One daemon for all points: it is killed and started again."""
    return with_image(module_daemon, busybox_tar, "busybox")


def kept(daemon: Daemon) -> set[str]:
    """Ids of the values that lie on the disk; the same as the records'."""
    ids = {secret["id"] for secret in daemon.api("GET", "/v1/secrets").body}
    assert {path.name for path in daemon.config.secrets_dir.iterdir()} == ids
    return ids


def read(daemon: Daemon) -> str:
    """The value as an instance gets it."""
    return daemon.cli("run", "--rm", *PLAN, "--secret", "key", "busybox", "cat", "/run/secrets/key").stdout


def dies(daemon: Daemon, point: str, *words: str, stdin: str = "") -> None:
    """A command whose daemon kills itself at `point`, and the next daemon."""
    daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    assert daemon.cli(*words, stdin=stdin, check=False).returncode == 125
    daemon.wait(60)
    daemon.start(env=CALM)
    assert "could not repair" not in daemon.log()


@pytest.mark.parametrize("point", [WRITTEN, RECORDED])
@pytest.mark.parametrize("first", [True, False], ids=["kept", "replaced"])
def test_a_secret_whose_daemon_dies_while_it_is_written(
    shared_daemon: Daemon, crashing: Daemon, point: str, first: bool
) -> None:
    old, new = f"old-{secrets.token_hex(8)}", f"new-{secrets.token_hex(8)}"
    if not first:
        crashing.cli("secret", "create", "key", "-", stdin=old)
    dies(crashing, point, "secret", "create", "--replace", "key", "-", stdin=new)
    there = kept(crashing)
    if point == WRITTEN:
        assert len(there) == (0 if first else 1)
        assert first or read(crashing) == old
    else:
        assert len(there) == 1 and read(crashing) == new, "it was recorded; only nobody had been told"
    again = f"again-{secrets.token_hex(8)}"
    crashing.cli("secret", "create", "--replace", "key", "-", stdin=again)
    assert read(crashing) == again and len(kept(crashing)) == 1
    crashing.cli("secret", "rm", "key")
    assert kept(crashing) == set()


def test_a_secret_whose_daemon_dies_while_it_is_removed(shared_daemon: Daemon, crashing: Daemon) -> None:
    crashing.cli("secret", "create", "key", "-", stdin="a value")
    dies(crashing, FORGOTTEN, "secret", "rm", "key")
    assert kept(crashing) == set()
    crashing.cli("secret", "create", "key", "-", stdin="another")
    assert read(crashing) == "another"
    crashing.cli("secret", "rm", "key")
