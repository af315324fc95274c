"""The C unit tests and a short run of the fuzzer, both under the sanitizers, and what the program is linked like."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "agent"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sanitized programs are."""
    out = tmp_path_factory.mktemp("agent-checked")
    subprocess.run(["make", "-s", "-C", SOURCE, f"OUT={out}", "-j2", f"{out}/tests", "fuzz"], check=True)
    return out


def test_units_under_the_sanitizers(checked: Path) -> None:
    done = subprocess.run([checked / "tests"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_fuzzing_for_a_moment(checked: Path) -> None:
    done = subprocess.run([checked / "fuzz", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "no failure" in done.stdout


def test_the_program_is_static_and_hardened(agent_binary: Path) -> None:
    headers = subprocess.run(["readelf", "-lhdW", agent_binary], capture_output=True, text=True, check=True).stdout
    assert "DYN (Position-Independent Executable file)" in headers
    assert "INTERP" not in headers
    assert "NEEDED" not in headers
    assert "GNU_RELRO" in headers
    assert "NOW" in headers
    stack = next(line for line in headers.splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack
