"""Where the daemon of a configuration listens. `config.load` knows more, but pydantic takes 200 ms to load."""

# pathlib takes 4 ms too.
# ruff: noqa: PTH100, PTH123

from __future__ import annotations

import os
from collections import namedtuple

DEFAULT_FILE = "/etc/bulkhead/config.toml"
DEFAULT_RUN_DIR = "/run/bulkhead"
SOCKET_NAME = "bulkhead.sock"

Places = namedtuple("Places", ("socket", "run_dir", "file"))
"""The socket, the directory for the daemon's log, and the configuration's file ("" where it is the default one)."""


def find_places(named: str | None) -> Places:
    """Look at --config, $BULKHEAD_CONFIG and the default file, in this order. Raises Refused."""
    given = named or os.environ.get("BULKHEAD_CONFIG", "")
    try:
        with open(given or DEFAULT_FILE, encoding="utf-8") as file:
            settings = _read(file.read())
    except (OSError, ValueError) as error:
        if not given and isinstance(error, FileNotFoundError):
            settings = {}
        else:
            from bulkhead.errors import Refused

            raise Refused(
                f"configuration {given or DEFAULT_FILE}: {getattr(error, 'strerror', None) or error}",
                hint="check --config and $BULKHEAD_CONFIG",
            ) from error
    run_dir = str(settings.get("run_dir", DEFAULT_RUN_DIR))
    socket = str(settings.get("socket") or f"{run_dir}/{SOCKET_NAME}")
    return Places(socket, run_dir, os.path.abspath(given) if given else "")


def _read(text: str) -> dict[str, object]:
    """The settings of a TOML file. Only one that is more than plain `key = value` lines needs the parser (4 ms)."""
    settings: dict[str, object] = {}
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or key.startswith("#"):
            continue
        quoted = len(value) > 1 and value[0] == value[-1] == '"' and '"' not in value[1:-1] and "\\" not in value
        plain = value.replace(".", "").replace("_", "").isalnum()
        if not equals or not key.replace("_", "").isalnum() or not (quoted or plain):
            import tomllib

            return tomllib.loads(text)
        settings[key] = value[1:-1] if quoted else value
    return settings
