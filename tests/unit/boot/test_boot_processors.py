"""QEMU's processor models: what it answers, and what of it a fleet can go by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bulkhead.boot import processors
from bulkhead.boot.vmm import PROGRAM
from bulkhead.host import processes
from bulkhead.isolation import vmm


def test_models_that_differ_from_host_to_host_are_none() -> None:
    answer = [
        {"name": "max", "migration-safe": False, "static": False, "unavailable-features": []},
        {"name": "base", "migration-safe": True, "static": True, "unavailable-features": []},
        {"name": "Nehalem", "migration-safe": True, "static": False, "unavailable-features": []},
        {"name": "EPYC", "migration-safe": True, "static": False, "unavailable-features": ["sha-ni", "topoext"]},
    ]
    assert processors.definitions(answer) == {"Nehalem": (), "EPYC": ("sha-ni", "topoext")}


@pytest.mark.parametrize("answer", [None, {}, "x", [1, "y"]])
def test_an_answer_that_is_none_tells_of_no_model(answer: object) -> None:
    assert processors.definitions(answer) == {}
    assert not processors.is_long(answer)


def test_a_model_is_64_bit_by_its_long_mode() -> None:
    for has in (True, False):
        assert processors.is_long({"model": {"name": "x", "props": {"lm": has}}}) is has


@pytest.mark.skipif(not shutil.which(PROGRAM), reason="QEMU is not installed")
def test_qemu_says_what_it_emulates_and_what_not() -> None:
    found = processors.find("tcg")
    assert found["qemu64"] == ()
    assert found["EPYC-Milan"]  # QEMU emulates hardly any of what is AMD's alone
    assert not {"host", "max", "base", "pentium3", "qemu32"} & set(found)


def test_a_model_is_given_whole_or_not_at_all() -> None:
    for accelerator, usual in (("kvm", "host"), ("tcg", "max")):
        assert list(vmm.processor(accelerator))[-1] == usual
        assert list(vmm.processor(accelerator, "Nehalem"))[-1] == "Nehalem,enforce"


def test_qemu_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, asked = tmp_path / "qemu", []

    def answer(accelerator: str) -> dict[str, tuple[str, ...]]:
        asked.append(accelerator)
        return {"Nehalem": (), "EPYC": ("sha-ni",)}

    program.write_text("one")
    monkeypatch.setattr(processes, "require", lambda *_: program)
    monkeypatch.setattr(processors, "find", answer)
    for accelerator in ("tcg", "tcg", "kvm"):
        assert processors.known(tmp_path, accelerator) == {"Nehalem": (), "EPYC": ("sha-ni",)}
    program.write_text("another one")
    processors.known(tmp_path, "kvm")
    (tmp_path / processors.RECORD).write_text("{")
    processors.known(tmp_path, "kvm")
    assert asked == ["tcg", "kvm", "kvm", "kvm"]
