"""What the hot path may load: every module there is time that each command takes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bulkhead.cli.table import COMMANDS

HEAVY = {
    "asyncio",
    "bulkhead.config",
    "bulkhead.errors",
    "bulkhead.model",
    "dataclasses",
    "email",
    "fastapi",
    "http",
    "importlib.metadata",
    "inspect",
    "pathlib",
    "pydantic",
    "rich",
    "shutil",
    "subprocess",
    "tempfile",
    "tomllib",
    "typing",
    "urllib",
}
HOT = ("run", "exec", "start", "stop", "rm", "ps", "logs")
LOADED = """
import sys
from bulkhead.cli import main
from bulkhead.cli.parsing import Subcommand, subcommand_parser
import bulkhead.cli.places, bulkhead.client
module = main.load(sys.argv[1])
subcommand_parser("bulkhead", Subcommand("", module.arguments, module.main))
import json
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("command", HOT)
def test_hot_commands_load_little(command: str) -> None:
    out = subprocess.run([sys.executable, "-I", "-c", LOADED, command], capture_output=True, check=True).stdout
    modules = set(json.loads(out))
    assert not HEAVY & modules
    assert not {f"bulkhead.cli.{other}" for other in COMMANDS if other != command} & modules


def test_every_command_has_its_module() -> None:
    from bulkhead.cli import main

    for name in COMMANDS:
        module = main.load(name)
        assert hasattr(module, "SUBCOMMANDS") or (hasattr(module, "arguments") and hasattr(module, "main")), name
