"""Which of QEMU's processor models guests can have on this host, as QEMU itself says of host and accelerator.

A model is of use for a fleet where each host can give a guest all that it promises. `unavailable-features` says what is
missing here; under emulation that is what QEMU does not emulate. QEMU 7.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bulkhead.boot.vmm import PACKAGE, PROGRAM
from bulkhead.errors import HostError
from bulkhead.host import facts, processes
from bulkhead.host.workspace import locked

PATIENCE = 30.0
RECORD = "processors.json"
_EXPAND = "query-cpu-model-expansion"
_MOST = 1000
"""Models that are listened to; QEMU 7.2 has 140."""


def known(state: Path, accelerator: str) -> dict[str, tuple[str, ...]]:
    """What `find` finds, which holds until the host boots again or gets another QEMU. `state`: directory of the record.

    A daemon that begins anew says that its host lives only once it can say what that host is: it must not take long.
    """
    stat = processes.require(PROGRAM, PACKAGE).stat()
    key = f"{facts.boot_id()} {accelerator} {stat.st_size} {stat.st_mtime_ns}"
    with locked(state / f"{RECORD}.lock"):
        noted = _read(state / RECORD, key)
        if noted is not None:
            return noted
        found, draft = find(accelerator), state / f"{RECORD}.new"
        draft.write_text(json.dumps({"key": key, "models": found}))
        draft.replace(state / RECORD)
        return found


def _read(record: Path, key: str) -> dict[str, tuple[str, ...]] | None:
    """What was found the last time, None when that was under other circumstances."""
    try:
        noted = json.loads(record.read_text())
        if noted["key"] == key:
            return {str(name): tuple(map(str, missing)) for name, missing in noted["models"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        pass  # never asked, or the record is damaged: ask
    return None


def find(accelerator: str) -> dict[str, tuple[str, ...]]:
    """Names of the models that mean the same everywhere and are 64-bit, with the features that are missing here.

    Raises Unavailable where QEMU is not installed, HostError where it does not say.
    """
    listed = definitions(_ask(accelerator, [("query-cpu-definitions", {})])[0])
    asked = [(_EXPAND, {"type": "full", "model": {"name": name}}) for name in listed]
    return {
        name: missing
        for (name, missing), answer in zip(listed.items(), _ask(accelerator, asked), strict=True)
        if is_long(answer)
    }


def definitions(answer: object) -> dict[str, tuple[str, ...]]:
    """What `query-cpu-definitions` answers, of the models that are the same on every host (not `host`, `max`)."""
    rows = [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []
    found = {}
    for row in rows[:_MOST]:
        # What is static is a bare minimum to build on.
        if row.get("migration-safe") and not row.get("static"):
            found[str(row["name"])] = tuple(map(str, row.get("unavailable-features", ())))
    return found


def is_long(answer: object) -> bool:
    """Whether what `query-cpu-model-expansion` answers is of a 64-bit processor (long mode): no other boots a guest."""
    match answer:
        case {"model": {"props": {"lm": bool(found)}}}:
            return found
    return False


def _ask(accelerator: str, commands: Sequence[tuple[str, Mapping[str, object]]]) -> list[Any]:
    """What a QEMU without a machine answers; None for a command that it refuses."""
    lines = [("qmp_capabilities", {}), *commands, ("quit", {})]
    said = "".join(json.dumps({"execute": name, "arguments": arguments}) + "\n" for name, arguments in lines)
    argv = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", "on", "-machine", "none"]
    argv += ["-accel", accelerator, "-qmp", "stdio"]
    output = processes.run(argv, stdin=said.encode(), timeout=PATIENCE, env={}, package=PACKAGE)
    answers = list(_answers(output))
    if len(answers) != len(lines):
        raise HostError(f"QEMU does not tell its processor models: {len(answers)} answers to {len(lines)} questions")
    return answers[1:-1]


def _answers(output: bytes) -> Iterator[object]:
    for line in output.splitlines():
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise HostError(f"QEMU's monitor says what is no JSON: {line[:80]!r}") from error
        if "return" in answer or "error" in answer:  # not its greeting, nor an event
            yield answer.get("return")
