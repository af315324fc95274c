"""policy.json: what is rejected, and signatures that skopeo makes and checks."""

from __future__ import annotations

import json
import re
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
    before = fetched(registry)
    assert daemon.cli("pull", *creds, signed).stdout == f"{signed}\n"
    (layer,) = daemon.json("image", "inspect", signed)[0]["RootFS"]["Layers"]
    assert layer
    assert max(fetched(registry)[len(before) :].count(path) for path in layers(registry)) == 1, "once, not twice"
    assert not list((daemon.config.images_dir / "partial").iterdir())
    assert daemon.cli("run", "--rm", signed, "echo", "signed").stdout == "signed\n"
    # The same signature under another name is worth nothing.
    allow(daemon, f"{registry.host}/team", [{**key, "signedIdentity": identity(f"{registry.host}/other:1")}])
    daemon.cli("image", "rm", signed)
    assert "is not allowed by" in daemon.cli("pull", *creds, signed, check=False).stderr
    assert not [path for path in (daemon.config.images_dir / "ingest").iterdir() if path.is_dir()]
    kept = subprocess.run(["grep", "-r", PASSWORD, str(daemon.config.state_dir)], capture_output=True, check=False)
    assert kept.returncode == 1


def fetched(registry: Registry) -> list[str]:
    """Paths that were got from the registry, in order."""
    return re.findall(r'"GET (/v2/\S+/blobs/\S+) HTTP/1\.1" 200', registry.log())


def layers(registry: Registry) -> set[str]:
    """Paths of blobs that are larger than any config."""
    blobs = (registry.directory / "data/docker/registry/v2/blobs/sha256").glob("*/*/data")
    return {f"/v2/team/signed/blobs/sha256:{path.parent.name}" for path in blobs if path.stat().st_size > 100_000}


def test_sigstores_signatures_are_demanded_in_earnest(
    daemon: Daemon, registry: Registry, busybox_tar: Path, tmp_path: Path
) -> None:
    """An image that has none is refused, by a skopeo that checks them and by one (Debian's) that cannot."""
    require("openssl", "skopeo", "bwrap")
    creds, name = ("--creds", f"{USER}:{PASSWORD}"), f"{registry.host}/team/app:1"
    daemon.cli("image", "import", busybox_tar, "app:1")
    daemon.cli("push", *creds, "app:1", name)
    private, public = tmp_path / "key.pem", daemon.config.containers_dir / "key.pub"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    allow(daemon, f"{registry.host}/team", [{"type": "sigstoreSigned", "keyPath": "/etc/containers/key.pub"}])
    refused = daemon.cli("pull", *creds, name, check=False)
    assert refused.returncode == 125
    assert "is not allowed by" in refused.stderr
    assert "sigstore" in refused.stderr or "signature" in refused.stderr
    assert "hint: " in refused.stderr
    assert len(daemon.json("image", "ls", "--format", "json")) == 1


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
