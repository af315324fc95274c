"""Completion scripts: bash is asked what it would offer, with a `bulkhead` of the test's own for the lists."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from bulkhead.cli.completion import SHELLS, commands, script
from bulkhead.cli.table import COMMANDS
from tests.unit.cli.conftest import Cli

LISTS = """#!/bin/bash
case "$1 $2" in
"ps -a") printf 'ID            NAME\\n012345678901  web\\n112345678901  worker\\n' ;;
"image ls") printf 'NAME              ID\\ndebian:bookworm   1\\ndebian:trixie  2\\n<none>  3\\n' ;;
"plan ls") printf 'default\\nsmall\\n' ;;
"network ls") printf 'default\\nblue\\n' ;;
"volume ls") printf 'data\\n' ;;
"snapshot ls") printf 'web/before\\nworker/s\\n' ;;
esac
"""
ASK = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$' \\t\\n"><=;|&(:'
_bulkhead
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, and the program that it asks."""
    made = tmp_path_factory.mktemp("completion")
    (made / "script").write_text(script("bash"))
    (made / "bulkhead").write_text(LISTS)
    (made / "bulkhead").chmod(0o755)
    return made


def offered(directory: Path, line: str) -> list[str]:
    """What bash offers for a line with the cursor at its end."""
    env = {"PATH": f"{directory}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    argv = ["bash", "--norc", "-c", ASK, "bash", str(directory / "script"), line]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == "", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bulkhead ru", ["run"]),
        ("bulkhead --config /x ru", ["run"]),
        ("bulkhead rm w", ["web", "worker"]),
        ("bulkhead rm -f web w", ["web", "worker"]),
        ("bulkhead stop -t 3 we", ["web"]),
        ("bulkhead exec we", ["web"]),
        ("bulkhead exec web l", []),
        ("bulkhead exec web ls --", []),
        ("bulkhead run --isolation c", ["chroot", "container"]),
        ("bulkhead run --plan ", ["default", "small"]),
        ("bulkhead run -d --network b", ["blue"]),
        ("bulkhead run -d --name web -m 64M deb", ["debian:bookworm", "debian:trixie"]),
        ("bulkhead run debian:b", ["bookworm"]),
        ("bulkhead run --on-unhealthy r", ["restart"]),
        ("bulkhead run --name x", []),
        ("bulkhead run --health-i", ["--health-interval"]),
        ("bulkhead image b", ["bootstrap"]),
        ("bulkhead image rm debian:t", ["trixie"]),
        ("bulkhead image bootstrap --mir", ["--mirror"]),
        ("bulkhead plan rm s", ["small"]),
        ("bulkhead plan create s", []),
        ("bulkhead network rm ", ["default", "blue"]),
        ("bulkhead volume rm d", ["data"]),
        ("bulkhead snapshot rm web", ["web/before"]),
        ("bulkhead snapshot create w", ["web", "worker"]),
        ("bulkhead snapshot restore web b", []),
        ("bulkhead run --from wo", ["worker/s"]),
        ("bulkhead completion ", ["bash", "zsh"]),
        ("bulkhead frobnicate ", []),
    ],
)
def test_what_bash_offers(directory: Path, line: str, expected: list[str]) -> None:
    assert offered(directory, line) == expected


def test_every_command_is_offered(directory: Path) -> None:
    assert set(COMMANDS) <= set(offered(directory, "bulkhead "))


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    text = script(shell)
    assert not re.search("@[A-Z]+@", text), "a mark of the template is left"
    for name, parser in commands():
        assert f"'{name}')" in text
        for action in parser._actions:
            assert all(flag in text for flag in action.option_strings)


def test_the_command_prints_it(cli: Cli) -> None:
    for shell in SHELLS:
        printed = cli("completion", shell)
        assert (printed.code, printed.out) == (0, script(shell))
    assert cli("completion", "fish").code == 125
