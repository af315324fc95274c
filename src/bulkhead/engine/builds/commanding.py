"""From a RUN instruction to the words that are executed, and what is known of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead.containerfile.instructions import Run
from bulkhead.engine.builds.state import StageState

SCRIPTS = "/run/bulkhead-build"
"""Where a here-document that names its own interpreter is found."""
_ALONE = re.compile(r"<<-?(?:'[^']+'|\"[^\"]+\"|\S+)")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command."""

    argv: tuple[str, ...]
    scripts: Mapping[str, str]
    """Files that it executes, by their path."""
    shown: str
    """For people and for the history."""


def invocation(step: Run, state: StageState) -> Invocation:
    """What a RUN executes."""
    if step.words is not None:
        return Invocation(step.words, {}, f"RUN {list(step.words)}")
    first = step.text.split("\n", 1)[0].strip()
    if len(step.heredocs) == 1 and _ALONE.fullmatch(first):
        document = step.heredocs[0]
        if document.text.startswith("#!"):
            path = f"{SCRIPTS}/{re.sub(r'[^A-Za-z0-9_.-]', '_', document.name)}"
            return Invocation((path,), {path: document.text}, f"RUN {step.text}")
        return Invocation((*state.shell, document.text), {}, f"RUN {' '.join(state.shell)} {document.text}")
    return Invocation((*state.shell, step.text), {}, f"RUN {' '.join(state.shell)} {step.text}")
