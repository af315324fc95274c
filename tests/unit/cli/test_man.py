"""The manual page and the list of commands say what the parsers say."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

from bulkhead.cli.table import COMMANDS

SCRIPT = Path(__file__).parents[3] / "scripts/make-man"


def make_man() -> ModuleType:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("make_man", str(SCRIPT))
    spec = importlib.util.spec_from_loader("make_man", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_man"] = module
    loader.exec_module(module)
    return module


def test_documents_are_up_to_date() -> None:
    for path, text in make_man().wanted().items():
        assert path.read_text() == text, f"run scripts/make-man: {path.name} is not up to date"


def test_every_command_and_option_is_there() -> None:
    script = make_man()
    page = script.man_page()
    for name in COMMANDS:
        assert f".SS bulkhead {script.roff(name)}" in page
    for command in script.commands():
        for term, meaning in command.arguments():
            assert meaning, f"bulkhead {command.name} {term} has no help"
