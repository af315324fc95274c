"""bulkhead web"""

from __future__ import annotations

import os
import socket

from bulkhead.cli.app import App
from bulkhead.cli.output import talk, write
from bulkhead.cli.parsing import Namespace, Parser

PORT = 8006


def arguments(parser: Parser) -> None:
    """Where, and whether to open it."""
    parser.add_argument("--port", type=int, metavar="N", help=f"port on this host's loopback ({PORT}, or a free one)")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")


def main(args: Namespace, app: App) -> int:
    """Serve the page on a port of the loopback until interrupted, and print its address."""
    from bulkhead.cli.forwarding import forward, listening

    app.client.call("GET", "/v1/ping")
    allowed = {0, os.getuid(), int(os.environ.get("SUDO_UID") or 0)}
    with listening(args.port, usual=PORT) as listener:
        port = listener.getsockname()[1]
        address = f"http://localhost:{port}/"
        write(address)
        talk(
            f"from another machine: ssh -N -L {port}:localhost:{port} root@{socket.gethostname()}, and the same address"
        )
        talk("for programs of your own alone; Ctrl-C ends it, the daemon runs on")
        if args.open:
            import webbrowser

            if not webbrowser.open(address):
                talk("there is no browser here: open the address yourself")
        forward(listener, app.client.path, allowed=allowed)
    return 0
