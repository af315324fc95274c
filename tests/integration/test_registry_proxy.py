"""A registry that is behind a proxy: tinyproxy with a login, whose resolver alone knows the registry's name."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.proxies import NAME, TinyProxy
from tests.harness.registries import PASSWORD, USER, Registry, configure, plain

CREDS = ("--creds", f"{USER}:{PASSWORD}")
HOST = f"{NAME}:5000"
TLS = f"{NAME}:5001"


@pytest.fixture
def proxy(daemon: Daemon, tmp_path: Path) -> Iterator[TinyProxy]:
    """The proxy and two registries behind it: one speaks HTTP and wants a login, one speaks TLS."""
    made = TinyProxy(daemon.sandbox, tmp_path / "proxy")
    one = Registry(daemon.sandbox, tmp_path / "one", port=5000, login=True)
    two = Registry(daemon.sandbox, tmp_path / "two", port=5001, tls=True, names=(f"DNS:{NAME}",))
    try:
        for part in (one, two, made):
            part.start()
        configure(daemon, plain(HOST))
        # Nobody is asked for names: what is not in /etc/hosts is unknown at once.
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        daemon.sandbox.run("mount", "--bind", str(tmp_path / "resolv.conf"), "/etc/resolv.conf")
        trusted = daemon.config.containers_dir / "certs.d" / TLS
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes(two.authority.read_bytes())
        yield made
    finally:
        daemon.sandbox.run("umount", "/etc/resolv.conf", check=False)
        for part in (made, one, two):
            part.stop()


def cli(daemon: Daemon, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line with proxies in its environment."""
    return subprocess.run(
        [str(BULKHEAD), *arguments],
        env={**daemon.environment(), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push_pull_tags_and_login_go_through_the_proxy(
    daemon: Daemon, proxy: TinyProxy, busybox_tar: Path, tmp_path: Path
) -> None:
    daemon.cli("image", "import", busybox_tar, "app:1")
    ways = {"http_proxy": proxy.url, "HTTPS_PROXY": proxy.url}
    directly = cli(daemon, {}, "push", *CREDS, "app:1", f"{HOST}/app:1")
    assert (directly.returncode, f"{NAME} cannot be found" in directly.stderr) == (125, True)
    for name in (f"{HOST}/app:1", f"{TLS}/app:1"):
        creds = CREDS if name.startswith(HOST) else ()
        good(cli(daemon, ways, "push", *creds, "app:1", name))
        assert good(cli(daemon, ways, "image", "tags", *creds, name.rpartition(":")[0])) == "1\n"
        assert good(cli(daemon, ways, "pull", *creds, name)) == f"{name}\n"
    logins = tmp_path / "auth.json"
    login = ("login", "-u", USER, "-p", PASSWORD, "--authfile", str(logins), HOST)
    good(cli(daemon, ways, *login))
    assert HOST in logins.read_text()
    assert f"CONNECT {TLS}" in proxy.log()
    assert f"http://{HOST}/v2/app/" in proxy.log()
    # What no_proxy names is reached directly: here that is nowhere.
    past = cli(daemon, {**ways, "no_proxy": NAME}, "pull", *CREDS, f"{HOST}/app:1")
    assert (past.returncode, f"{NAME} cannot be found" in past.stderr) == (125, True)


def test_the_daemons_own_proxy_and_one_that_wants_to_know_who_asks(
    daemon: Daemon, proxy: TinyProxy, busybox_tar: Path
) -> None:
    daemon.cli("image", "import", busybox_tar, "app:1")
    daemon.restart(env={"https_proxy": proxy.url})
    daemon.cli("push", "app:1", f"{TLS}/app:1")
    assert f"CONNECT {TLS}" in proxy.log()
    nobody = cli(daemon, {"https_proxy": f"http://127.0.0.1:{proxy.port}"}, "pull", f"{TLS}/app:1")
    assert (nobody.returncode, "wants to know who asks" in nobody.stderr) == (125, True)
    other = cli(daemon, {"https_proxy": f"socks5://me:hidden@127.0.0.1:{proxy.port}"}, "pull", f"{TLS}/app:1")
    assert (other.returncode, "only HTTP is spoken to proxies" in other.stderr) == (125, True)
    assert "hidden" not in other.stderr + daemon.log()


def test_signatures_are_checked_through_the_proxy(daemon: Daemon, proxy: TinyProxy, busybox_tar: Path) -> None:
    """skopeo, which does that, goes the same way; its jail has the proxy's login, and no command line does."""
    daemon.cli("image", "import", busybox_tar, "app:1")
    ways = {"https_proxy": proxy.url}
    good(cli(daemon, ways, "push", "app:1", f"{TLS}/app:1"))
    (daemon.config.containers_dir / "key.gpg").write_bytes(b"no key")
    (daemon.config.containers_dir / "policy.json").write_text(
        '{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/containers/key.gpg"}]}'
    )
    subprocess.run(["chmod", "-R", "a+rX", str(daemon.config.containers_dir)], check=True)
    before = proxy.log().count(f"CONNECT {TLS}")
    refused = cli(daemon, ways, "pull", f"{TLS}/app:1")
    assert (refused.returncode, "is not allowed by" in refused.stderr) == (125, True)
    assert "cannot be found" not in refused.stderr
    assert proxy.log().count(f"CONNECT {TLS}") > before
