"""Query parameters as the API's description has them: each name known and given once, each value written one way.

In a query everything is text, and pydantic reads text as it pleases: "on" and "yes" as true, "1_000" and " 1" as
numbers; a name that no route knows is dropped, so that a misspelt `?forse=true` is carried out as if it were not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from bulkhead.api.answers import ANSWERS
from bulkhead.errors import Problem, Refused

DETACH = "detach"
MOST_SHOWN = 80
_HINT = "see docs/reference/http-api.md"
_TRUTH = re.compile(r"true|false")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WRITTEN: Mapping[object, tuple[re.Pattern[str], str]] = {
    bool: (_TRUTH, "true or false"),
    int: (_WHOLE, "a whole number"),
    float: (_NUMBER, "a number"),
}


@dataclass(frozen=True, slots=True)
class _Parameter:
    """What may be given; `kind` is bool, int, float, or anything else: text, of which the route judges."""

    kind: object
    many: bool = False


_KNOWN: dict[str, Mapping[str, _Parameter]] = {}
"""By the route's name, which is its operationId."""


def check(connection: HTTPConnection) -> None:
    """Raise Refused with everything that is wrong with a request's query."""
    if not connection.scope["query_string"]:
        return
    known = _parameters(connection.scope["route"])
    problems, seen = list[Problem](), set[str]()
    for name, value in connection.query_params.multi_items():
        parameter = known.get(name)
        if parameter is None:
            wanted = f"known here: {', '.join(sorted(known))}" if known else "nothing can be asked for here"
            problems.append(Problem(f"query parameter {_short(name)} is not known", wanted))
            continue
        if name in seen and not parameter.many:
            problems.append(Problem(f"query parameter {name!r} is given twice", _HINT))
        seen.add(name)
        pattern, words = _WRITTEN.get(parameter.kind, (None, ""))
        if pattern and not pattern.fullmatch(value):
            problems.append(Problem(f"{name} {_short(value)} is not {words}", _HINT))
    if problems:
        raise Refused(problems)


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= MOST_SHOWN else shown[: MOST_SHOWN - 3] + "..."


def _parameters(route: APIRoute) -> Mapping[str, _Parameter]:
    found = _KNOWN.get(route.name)
    if found is None:
        found = _KNOWN[route.name] = _of(route)
    return found


def _of(route: APIRoute) -> Mapping[str, _Parameter]:
    found: dict[str, _Parameter] = {}
    for field in route.dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, inner in kind.model_fields.items():
                found[inner.alias or name] = _parameter(inner.annotation)
        else:
            found[field.alias] = _parameter(kind)
    answer = ANSWERS.get(route.name)
    if answer is not None and answer.lasts:
        found[DETACH] = _Parameter(bool)
    return found


def _parameter(kind: Any) -> _Parameter:
    """Of an annotation, without its None."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        kinds = [each for each in get_args(kind) if each is not type(None)]
        return _parameter(kinds[0]) if len(kinds) == 1 else _Parameter(str)
    if get_origin(kind) in (list, tuple):
        return _Parameter(_parameter(get_args(kind)[0]).kind, many=True)
    return _Parameter(kind)
