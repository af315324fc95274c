"""Projects from texts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bulkhead.compose.project import Given, Project, load
from bulkhead.errors import Refused

DIRECTORY = "/work/shop"


def project(*texts: str, files: Mapping[str, str] | None = None, name: str | None = None, **variables: str) -> Project:
    """The project of compose files; `files` are others, by their path below the directory."""
    known = {f"{DIRECTORY}/{number}.yaml": text for number, text in enumerate(texts)}
    others = {f"{DIRECTORY}/{path}": text for path, text in (files or {}).items()}

    def read(path: str) -> str:
        try:
            return {**known, **others}[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    def show(path: str) -> str:
        return path.removeprefix(f"{DIRECTORY}/")

    given = Given(tuple(known), DIRECTORY, variables, read, name, show)
    return load(given)


def problems(*texts: str, files: Mapping[str, str] | None = None, **variables: str) -> list[str]:
    """What is wrong with such files."""
    with pytest.raises(Refused) as caught:
        project(*texts, files=files, **variables)
    return [problem.what for problem in caught.value.problems]


def service(text: str, top: str = "", **variables: str) -> dict[str, object]:
    """The request of one service, whose keys are `text`."""
    indented = "\n".join(f"    {line}" for line in text.strip("\n").splitlines())
    made = project(f"services:\n  web:\n    image: x\n{indented}\n{top}", **variables)
    return dict(made.services["web"].request)


def wrong(text: str, top: str = "") -> list[str]:
    """What is wrong with such a service, without where."""
    indented = "\n".join(f"    {line}" for line in text.strip("\n").splitlines())
    return [what.partition(": ")[2] for what in problems(f"services:\n  web:\n    image: x\n{indented}\n{top}")]
