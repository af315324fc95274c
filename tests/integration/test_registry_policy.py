"""policy.json: what is rejected, and signatures that skopeo makes and checks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.abilities import require
from tests.harness.daemon import Daemon
from tests.harness.registries import PASSWORD, USER, Registry, configure, plain

KEY = "signer@example.test"
ANYTHING = [{"type": "insecureAcceptAnything"}]


@pytest.fixture
def registry(daemon: Daemon) -> Iterator[Registry]:
    made = Registry(daemon.sandbox, daemon.directory / "registry", login=True)
    try:
        made.start()
        configure(daemon, plain(made.host))
        yield made
    finally:
        made.stop()


@pytest.fixture
def home(daemon: Daemon) -> Iterator[Path]:
    """A key of the test's own."""
    require("gpg", "skopeo", "bwrap")
    home = daemon.directory / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", KEY, "ed25519", "sign"], check=True, capture_output=True)
    public = daemon.config.containers_dir / "key.gpg"
    public.parent.mkdir(exist_ok=True)
    public.write_bytes(subprocess.run([*gpg, "--export", KEY], check=True, capture_output=True).stdout)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True, capture_output=True)


def allow(daemon: Daemon, scope: str, requirements: list[dict[str, str]]) -> None:
    """Write the daemon's policy.json: everything may come, but what is below `scope` must be as required."""
    document = {"default": ANYTHING, "transports": {"docker": {scope: requirements}}}
    (daemon.config.containers_dir / "policy.json").write_text(json.dumps(document))
    # As on any host: whoever may pull may know the rules.
    subprocess.run(["chmod", "-R", "a+rX", str(daemon.config.containers_dir)], check=True)


def test_only_what_the_policy_allows_comes(
    daemon: Daemon, registry: Registry, home: Path, busybox_tar: Path, tmp_path: Path
) -> None:
    creds = ("--creds", f"{USER}:{PASSWORD}")
    signed, unsigned = f"{registry.host}/team/signed:1", f"{registry.host}/team/unsigned:1"
    daemon.cli("image", "import", busybox_tar, "app:1")
    daemon.cli("push", *creds, "app:1", unsigned)
    daemon.cli("image", "rm", "app:1")
    sign(daemon, registry, home, unsigned, signed)
    allow(daemon, f"{registry.host}/team", [{"type": "reject"}])
    assert "is rejected by" in daemon.cli("pull", *creds, unsigned, check=False).stderr
    key = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/containers/key.gpg"}
    allow(daemon, f"{registry.host}/team", [key])
    refused = daemon.cli("pull", *creds, unsigned, check=False)
    assert refused.returncode == 125
    assert "is not allowed by" in refused.stderr
    assert "signature" in refused.stderr
    assert daemon.json("image", "ls", "--format", "json") == []
    assert daemon.cli("pull", *creds, signed).stdout == f"{signed}\n"
    assert daemon.cli("run", "--rm", signed, "echo", "signed").stdout == "signed\n"
    # The same signature under another name is worth nothing.
    allow(daemon, f"{registry.host}/team", [{**key, "signedIdentity": identity(f"{registry.host}/other:1")}])
    daemon.cli("image", "rm", signed)
    assert "is not allowed by" in daemon.cli("pull", *creds, signed, check=False).stderr
    assert not [path for path in (daemon.config.images_dir / "ingest").iterdir() if path.is_dir()]
    kept = subprocess.run(["grep", "-r", PASSWORD, str(daemon.config.state_dir)], capture_output=True, check=False)
    assert kept.returncode == 1


def identity(name: str) -> dict[str, str]:
    return {"type": "exactReference", "dockerReference": name}


def sign(daemon: Daemon, registry: Registry, home: Path, source: str, target: str) -> None:
    """Copy an image with a signature, which is put where the jail's skopeo looks for it: below its own settings."""
    settings = daemon.config.containers_dir
    staging, used = home / "registries.d", settings / "registries.d"
    for directory, root in ((staging, settings), (used, Path("/etc/containers"))):
        directory.mkdir()
        text = f"default-docker:\n  sigstore: file://{root}/signatures\n  sigstore-staging: file://{root}/signatures\n"
        (directory / "default.yaml").write_text(text)
    login = f"{USER}:{PASSWORD}"
    registry.run(
        *("skopeo", "--registries.d", staging, "copy", "-q", "--sign-by", KEY),
        *("--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", login, "--dest-creds", login),
        *(f"docker://{source}", f"docker://{target}"),
        env={"GNUPGHOME": str(home)},
    )
