"""bulkhead serve"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser

LEVELS = ("debug", "info", "warning", "error")


def arguments(parser: Parser) -> None:
    """No more than how much it says: everything else is in the configuration."""
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="how much to say on stderr (info)")


def main(args: Namespace, app: App) -> int:
    """Run the daemon until TERM or INT."""
    from bulkhead.api.server import serve
    from bulkhead.config import load
    from bulkhead.engine import build_engine
    from bulkhead.host.syscalls import never_dump

    logging.basicConfig(
        stream=sys.stderr,
        level=args.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    never_dump()
    serve(load(Path(app.config) if app.config else None), build_engine)
    return 0
