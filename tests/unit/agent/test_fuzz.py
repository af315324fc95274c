"""A second of the fuzzer; ten minutes are for `python -m tests.unit.agent.fuzz 600`."""

from __future__ import annotations

import pytest

import bulkhead.agent.files
import bulkhead.agent.session
from tests.unit.agent import fuzz


def test_no_agent_brings_the_engine_down(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bulkhead.agent.files, "ANSWER_SECONDS", fuzz.PATIENCE)
    monkeypatch.setattr(bulkhead.agent.session, "DEFAULT_TIMEOUT", fuzz.PATIENCE)
    fuzz.main(1.0, 12345)
    assert "no error but our own" in capsys.readouterr().out
