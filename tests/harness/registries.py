"""A real registry (docker-registry) in a daemon's sandbox, with and without logins and TLS."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.abilities import require
from tests.harness.daemon import Daemon
from tests.harness.namespaces import Sandbox
from tests.harness.serving import Served

USER, PASSWORD = "ali", "open sesame"
_HTPASSWD = f"{USER}:$2b$04$LkM3AXMPSc9YIuT7jR7XA.xyCRhQ0V0QwfpGoVcQ2cyA7CelhBb46\n"


class Registry(Served):
    """One registry. Its address is that of the sandbox's loopback."""

    what, path = "registry", "/usr/bin"

    def __init__(
        self,
        sandbox: Sandbox,
        directory: Path,
        *,
        port: int = 5000,
        login: bool = False,
        tls: bool = False,
        names: Sequence[str] = ("DNS:localhost", "IP:127.0.0.1"),
    ) -> None:
        require("docker-registry")
        super().__init__(sandbox, directory, port=port)
        self.host = f"localhost:{port}"
        http: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "none"}
        self.authority = directory / "ca.crt"
        if tls:
            make_certificate(directory, names)
            http["tls"] = {"certificate": str(self.authority), "key": str(directory / "ca.key")}
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
            "http": http,
        }
        if login:
            (directory / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self.argv = ["/usr/bin/docker-registry", "serve", str(directory / "config.yml")]

    def skopeo(self, *arguments: str | Path, check: bool = True) -> str:
        """Run skopeo beside it."""
        require("skopeo")
        return self.run("skopeo", *arguments, check=check)

    def run(self, *argv: str | Path, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Run a program beside it; what it printed. Without `check` what it said on stderr too."""
        enter = ["nsenter", "-t", str(self.sandbox.pid), "-m", "-n", "--wd=/", "--"]
        done = subprocess.run(
            [*enter, *map(str, argv)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **(env or {})},
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout if check else done.stdout + done.stderr


def make_certificate(directory: Path, names: Sequence[str]) -> None:
    """`ca.crt` and `ca.key`: a certificate that is its own authority."""
    require("openssl")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-keyout", str(directory / "ca.key"), "-out", str(directory / "ca.crt"), "-days", "2", "-subj", "/CN=test"]
    argv += ["-addext", f"subjectAltName={','.join(names)}"]
    subprocess.run(argv, check=True, capture_output=True)


def configure(daemon: Daemon, text: str) -> None:
    """Write the daemon's registries.conf."""
    daemon.config.containers_dir.mkdir(exist_ok=True)
    (daemon.config.containers_dir / "registries.conf").write_text(text)


def plain(*hosts: str) -> str:
    """registries.conf for registries that speak HTTP."""
    return "".join(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in hosts)
