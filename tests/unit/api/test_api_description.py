"""The API's description: complete, and the one that is in the reference."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from bulkhead.api.answers import ANSWERS
from bulkhead.api.openapi import TAGS, document

ROOT = Path(__file__).parents[3]


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every route."""
    return [(method, path, each) for path, methods in document()["paths"].items() for method, each in methods.items()]


def test_the_reference_is_up_to_date() -> None:
    loader = importlib.machinery.SourceFileLoader("make_reference", str(ROOT / "scripts/make-reference"))
    spec = importlib.util.spec_from_loader("make_reference", loader)
    assert spec
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)
    text = (ROOT / "docs/reference/openapi.json").read_text()
    assert json.loads(text) == json.loads(script.openapi()), "run scripts/make-reference"


def test_every_route_says_what_it_answers() -> None:
    names = [each["operationId"] for _, _, each in operations()]
    assert len(names) == len(set(names))
    assert set(names) == set(ANSWERS), "say in api/answers.py what the route answers with"


def test_every_route_is_described() -> None:
    for method, path, each in operations():
        where = f"{method} {path}"
        assert each["summary"], where
        assert not each["summary"].endswith("."), where
        assert each["description"], where
        assert set(each["tags"]) <= set(TAGS), where
        assert {"4XX", "5XX"} <= set(each["responses"]), where
        assert any(status in each["responses"] for status in ("200", "201", "202", "204")), where
        for status, response in each["responses"].items():
            assert response["description"], where
            if status in ("4XX", "5XX"):
                assert list(response["content"]) == ["application/problem+json"], where
            elif status not in ("204", "304"):
                [content] = list(response["content"].values())[:1]
                assert content["schema"], where
        named = set(re.findall(r"{(\w+)}", path))
        assert named == {each["name"] for each in each.get("parameters", ()) if each["in"] == "path"}, where


def test_every_reference_leads_somewhere() -> None:
    made = document()
    schemas = made["components"]["schemas"]
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(made)))
    assert names <= set(schemas), names - set(schemas)


def test_what_lasts_and_what_is_edited_says_so() -> None:
    by_name = {each["operationId"]: each for _, _, each in operations()}
    pull = by_name["pull_image"]
    assert pull["responses"]["202"]["content"]["application/json"]["schema"]["$ref"].endswith("/Operation")
    assert {"detach", "Prefer"} <= {each["name"] for each in pull["parameters"]}
    assert "If-Match" in {each["name"] for each in by_name["update_instance"]["parameters"]}
    assert "304" in by_name["get_instance"]["responses"]
    assert "text/event-stream" in by_name["events"]["responses"]["200"]["content"]
