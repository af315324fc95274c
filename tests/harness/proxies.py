"""A real proxy (tinyproxy) in a daemon's sandbox, which alone knows a name of a registry there."""

from __future__ import annotations

from pathlib import Path

from tests.harness.abilities import require
from tests.harness.namespaces import Sandbox
from tests.harness.serving import Served

NAME = "registry.test"
USER, PASSWORD = "ali", "sesame"


class TinyProxy(Served):
    """Listens on the sandbox's loopback, wants a login, and finds NAME there. Its log has a line for each request."""

    what, path = "proxy", "/usr/sbin:/usr/bin:/bin"

    def __init__(self, sandbox: Sandbox, directory: Path, *, port: int = 3128) -> None:
        require("tinyproxy", "unshare")
        super().__init__(sandbox, directory, port=port)
        self.url = f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"
        hosts, settings = directory / "hosts", directory / "tinyproxy.conf"
        hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
        lines = (f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "LogLevel Connect", "MaxClients 32")
        # No ConnectPort: it joins with every port.
        settings.write_text("\n".join((*lines, f"BasicAuth {USER} {PASSWORD}", "")))
        script = 'mount --bind "$1" /etc/hosts && exec tinyproxy -d -c "$2"'
        self.argv = ["/usr/bin/unshare", "-m", "sh", "-c", script, "sh", str(hosts), str(settings)]
