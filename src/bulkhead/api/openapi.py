"""The API's description (OpenAPI 3.1): FastAPI's, with answers, problems, operations and entity tags put in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI
from pydantic import TypeAdapter

from bulkhead.api.answers import ANSWERS, EVENT_STREAMS, JSON, Answer
from bulkhead.api.conditions import HONOURED
from bulkhead.api.problems import MEDIA_TYPE, ProblemDetails
from bulkhead.api.responses import NDJSON
from bulkhead.api.sse import EVENT_STREAM
from bulkhead.operation import Operation

_REF = "#/components/schemas/{model}"
TAGS = {
    "system": "The daemon and its host, and what happens.",
    "instances": "An image, a plan and a wall: their life, state, logs and files.",
    "streams": "Terminals and pipes, joined with a workload in one request both ways.",
    "images": "Images, registries, builds.",
    "plans": "Plans that have a name.",
    "networks": "Bridges with their subnets.",
    "volumes": "Disks that outlive instances.",
    "secrets": "Values that instances get as files in memory. What is in them is never told.",
    "snapshots": "What a disk, and maybe a memory, held.",
    "rooms": "Instances that belong to the request which opened them, and what has been changed in any.",
    "operations": "What lasts longer than a request may.",
    "access": "Tenants, users, tokens, and who did what.",
    "audits": "What a wall lets through, found out by trying.",
    "billing": "Prices and invoices.",
    "metering": "What has been used.",
    "fleet": "Hosts that share what is where, and how they come and go.",
}
_PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="ProblemDetails")}}}}
_HOST = {
    "name": "host",
    "in": "query",
    "required": False,
    "description": "the host of the fleet that it is to be on",
    "schema": {"type": "string"},
}
MAKING = ("create_instance", "run", "dry_run")
_DETACH = {
    "name": "detach",
    "in": "query",
    "required": False,
    "description": "do not wait: 202, with the operation",
    "schema": {"type": "boolean", "default": False},
}


def install(app: FastAPI) -> None:
    """Make `app` describe itself so."""
    generate = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(generate())
        return app.openapi_schema

    setattr(app, "openapi", described)  # noqa: B010 - FastAPI's own way, which its types do not know


def document() -> dict[str, Any]:
    """The description, without a daemon."""
    from bulkhead.api.app import create_app
    from bulkhead.api.service import Whole

    return create_app(cast(Whole, SimpleNamespace(seen_by=None, fleet=None))).openapi()


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """What FastAPI has made, with all that it does not know."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _schema(ProblemDetails, schemas)
    _schema(Operation, schemas)
    for methods in document["paths"].values():
        for method, operation in methods.items():
            name = operation["operationId"]
            answer = ANSWERS.get(name) or Answer(dict[str, Any])  # a test asks for every one of them
            operation["responses"] = _responses(name, method, answer, operation["responses"], schemas)
            if name in MAKING:
                operation.setdefault("parameters", []).append(_HOST)
            if answer.lasts:
                operation.setdefault("parameters", []).append(_DETACH)
            operation.setdefault("parameters", []).extend(_headers(name, method, answer))
            if not operation["parameters"]:
                del operation["parameters"]
            first, _, rest = (operation.get("description") or operation["summary"]).partition("\n\n")
            operation["summary"] = " ".join(first.split()).rstrip(".")
            operation["description"] = rest.strip() or operation["summary"] + "."
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    document["servers"] = [{"url": "/", "description": "the daemon's unix socket"}]
    document["info"]["description"] = "See docs/reference/http-api.md."
    return document


def _responses(
    name: str, method: str, answer: Answer, known: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": answer.stream or known.get(str(answer.status), {}).get("description", "")}
    good["description"] = good["description"] or "done"
    if content := _content(answer, schemas):
        good["content"] = content
    if name in EVENT_STREAMS:
        good["content"][EVENT_STREAM] = {"schema": {"type": "string"}}
    tagged = answer.media == JSON and answer.type is not None and (method in ("get", "patch") or answer.status == 201)
    if tagged:
        good["headers"] = {"ETag": {"description": "stands for these very bytes", "schema": {"type": "string"}}}
    found = {str(answer.status): good}
    found |= {
        str(status): {"description": known.get(str(status), {}).get("description", "nothing")} for status in answer.also
    }
    if tagged and method == "get":
        found["304"] = {"description": "what If-None-Match has named"}
    if answer.lasts:
        found["202"] = {
            "description": "the operation that it is; it goes on",
            "headers": {"Location": {"description": "where its record is", "schema": {"type": "string"}}},
            "content": {JSON: {"schema": {"$ref": _REF.format(model="Operation")}}},
        }
    found["4XX"] = {"description": "a problem: the request is wrong, or cannot be carried out", **_PROBLEM}
    found["5XX"] = {"description": "a problem of the host's, or of Bulkhead's own", **_PROBLEM}
    return found


def _content(answer: Answer, schemas: dict[str, Any]) -> dict[str, Any]:
    if answer.status == 204:
        return {}
    if answer.media == JSON:
        others = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in answer.forms}
        return {JSON: {"schema": _schema(answer.type, schemas)}, **others}
    if answer.media == NDJSON and answer.type is not None:
        # A media type of a sequence has the schema of its items (OpenAPI 3.2); in 3.1 it is said in words.
        line = _schema(answer.type, schemas)
        words = "lines of JSON" if answer.stream else 'lines of JSON: {"step": ...}, then {"result": ...}'
        return {NDJSON: {"schema": {"type": "string", "description": words}, "x-itemSchema": line}}
    return {answer.media: {"schema": {"type": "string", "format": "binary"}}}


def _headers(name: str, method: str, answer: Answer) -> list[dict[str, Any]]:
    found = []
    if name in HONOURED:
        found.append(_header("If-Match", "the entity tag of what it is to be done to; 412 where it has another"))
    if method == "get" and answer.media == JSON:
        found.append(_header("If-None-Match", "entity tags of what the client has: 304 where it is one of them"))
    if answer.lasts:
        found.append(_header("Prefer", "respond-async: as detach"))
    if name in EVENT_STREAMS:
        found.append(_header("Last-Event-ID", "the number of the last event that the client has"))
    return found


def _header(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; what it is made of goes to `schemas`."""
    made = TypeAdapter(kind).json_schema(mode="serialization", ref_template=_REF)
    for name, schema in made.pop("$defs", {}).items():
        schemas.setdefault(name, schema)
    title = made.get("title")
    if made.get("type") == "object" and isinstance(kind, type) and title == kind.__name__:
        schemas.setdefault(title, made)
        return {"$ref": _REF.format(model=title)}
    return made
