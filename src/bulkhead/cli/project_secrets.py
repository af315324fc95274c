"""Secrets of a project: kept by the daemon under the project's name, from a file or a variable of who says `up`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bulkhead.cli.app import App
from bulkhead.cli.secret import value_of
from bulkhead.client import quote
from bulkhead.compose.project import Project
from bulkhead.compose.steps import PROJECT
from bulkhead.errors import BulkheadError, Problem, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def put(app: App, project: Project, services: Iterable[str]) -> None:
    """Have the daemon keep what these services are to get; what has not changed stays what it is.

    Raises Refused with everything that cannot be read, and where a secret of that name is not the project's.
    """
    from base64 import b64encode

    there = {secret["name"]: secret for secret in app.client.call("GET", "/v1/secrets")}
    values: dict[str, bytes] = {}
    problems: list[Problem] = []
    for key in dict.fromkeys(use.source for name in services for use in _uses(project, name)):
        source = project.secrets[key]
        if source.kind == "external":
            continue
        if source.name in there and there[source.name]["labels"].get(PROJECT) != project.name:
            what = f"secrets.{key}: there is a secret {source.name}, which is not this project's"
            problems.append(Problem(what, "external: true takes it as it is; name gives this one another name"))
            continue
        try:
            values[source.name] = source.text.encode(errors="surrogateescape") or value_of(
                source.value, env=source.kind == "environment"
            )
        except ValueError as error:
            problems.append(Problem(f"secrets.{key}: {error}"))
    if problems:
        raise Refused(problems)
    for name, value in values.items():
        body = {"name": name, "data": b64encode(value).decode(), "labels": {PROJECT: project.name}, "replace": True}
        app.client.call("POST", "/v1/secrets", body=body)


def ids(app: App, project: Project) -> dict[str, str]:
    """Ids of the values that the daemon has, by "secret/NAME"."""
    if not project.secrets:
        return {}
    there = {secret["name"]: str(secret["id"]) for secret in app.client.call("GET", "/v1/secrets")}
    return {f"secret/{key}": there[use.name] for key, use in project.secrets.items() if use.name in there}


def made(app: App, name: str) -> frozenset[str]:
    """Names of those that the daemon keeps for a project."""
    found: Sequence[Any] = app.client.call("GET", "/v1/secrets")
    return frozenset(secret["name"] for secret in found if secret["labels"].get(PROJECT) == name)


def take_away(app: App, name: str) -> None:
    """Remove those that nothing has; for an `up` that comes to nothing."""
    for secret in made(app, name):
        try:
            app.client.call("DELETE", f"/v1/secrets/{quote(secret)}")
        except BulkheadError:
            continue


def _uses(project: Project, service: str) -> list[Any]:
    return [use for use in project.services[service].files if use.kind == "secret"]
