"""bulkhead advise apply: carry out a report's steps in the fleet that it is of, one after the other.

What is done already is seen by where things are, so nothing has to be kept: stopped at any step, it goes on when it is
run again.
"""

from __future__ import annotations

import json
import sys

from bulkhead.cli.app import App
from bulkhead.cli.each import instance_path
from bulkhead.cli.output import printable, talk, write
from bulkhead.cli.parsing import Namespace
from bulkhead.errors import Conflict, Problem, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

MOST_BYTES = 256 << 20
DOING = ("move", "enclose", "create")


def main(args: Namespace, app: App) -> int:
    """Do what is left to do, or with --dry-run only say it."""
    report = _report(args.report)
    levels = {each["name"]: each["level"] for each in report["workloads"]}
    steps, new = report["steps"], {each["name"]: each for each in report["workloads"] if each.get("image")}
    _check(steps, levels, _where(app), args.report, new)
    for number, step in enumerate(steps, 1):
        told = f"{number}/{len(steps)} {step['text']}"
        if step["what"] not in DOING:
            _say(told, "yours to do, once it is empty" if step["what"] == "retire" else "nothing to do")
            continue
        # Each step is judged by how things are now, not by how they were when the first one began.
        where = _where(app)
        made = step["what"] == "create" and step["workload"] not in where
        left = [] if made else _left(steps[number - 1 :], levels[step["workload"]], where)
        if not left and not made:
            _say(told, "done already")
        elif args.dry_run:
            _say(told, "to do")
        else:
            talk(printable(told))
            if made:
                _create(app, new[step["workload"]], step["host"])
            for body in left:
                _move(app, step["workload"], body)
            _say(told, "done")
    return 0


def _say(told: str, what: str) -> None:
    """At once: whoever reads along, or stops it, knows how far it is."""
    write(printable(f"{told}: {what}"))
    sys.stdout.flush()


def _report(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    hint = "bulkhead advise --fleet -o FILE.json writes one"
    try:
        report: dict[str, Any] = json.loads(data)
        good = report["version"] == 1 and all(
            isinstance(step[key], str)
            for step in report["steps"]
            for key in ("what", "host", "workload", "text", "source")
        )
        good = good and all(isinstance(each[key], str) for each in report["workloads"] for key in ("name", "level"))
        fleet = report["estate"]["fleet"]
    except (ValueError, KeyError, TypeError, RecursionError):
        good = fleet = False
    if not good:
        raise Refused(f"{path} is no report of bulkhead advise as JSON", hint=hint)
    if fleet is not True:
        raise Refused(
            f"{path} is not of a fleet: what runs on bare servers moves by bulkhead image from-server", hint=hint
        )
    return report


def _where(app: App) -> dict[str, tuple[str, str]]:
    """Instance -> its host, its level. Those of other tenants than the default one are TENANT@NAME."""
    found = {}
    for each in app.client.call("GET", "/v1/instances"):
        spec = each["spec"]
        name = spec["name"] if spec["tenant"] == "default" else f"{spec['tenant']}@{spec['name']}"
        found[name] = (str(each.get("host", "")), str(spec["isolation"]))
    return found


def _check(
    steps: list[dict[str, Any]],
    levels: Mapping[str, str],
    where: Mapping[str, tuple[str, str]],
    path: str,
    new: Mapping[str, Mapping[str, Any]],
) -> None:
    """Everything that stands in the way, before anything is done."""
    problems = []
    for step in steps:
        name = step["workload"]
        if step["what"] == "create":
            if name not in new:
                what = f"{step['text']}: of what image is not said"
                problems.append(Problem(what, "bulkhead advise --add N:PLAN:IMAGE says it"))
            elif name in where and where[name][0] not in _hosts(steps, name):
                problems.append(Problem(f"{step['text']}: there is one on {where[name][0]} already"))
        elif step["what"] in DOING and (name not in where or name not in levels):
            problems.append(Problem(f"{step['text']}: there is no instance {name}"))
    places = {name: host for name, (host, _) in where.items()}
    for step in steps:
        name = step["workload"]
        known = _hosts(steps, name) | {each["source"] for each in steps if each["workload"] == name}
        if step["what"] == "move" and name in places and places[name] not in known:
            problems.append(
                Problem(f"{step['text']}: it is on {places[name]} by now", "have the fleet looked at again")
            )
    if problems:
        raise Refused([*problems[:-1], Problem(problems[-1].what, problems[-1].hint or f"nothing of {path} was done")])


def _hosts(steps: Sequence[Mapping[str, Any]], name: str) -> set[str]:
    """Where these steps bring an instance: on a detour to several hosts."""
    return {step["host"] for step in steps if step["what"] in ("move", "create") and step["workload"] == name}


def _left(
    steps: Sequence[Mapping[str, Any]], level: str, where: Mapping[str, tuple[str, str]]
) -> list[dict[str, object]]:
    """What the first of these steps still has to do: bodies of moves. What a later one has done is behind it."""
    step = steps[0]
    if step["workload"] not in where:
        raise Conflict(f"{step['text']}: there is no instance {step['workload']} any more")
    host, wall = where[step["workload"]]
    left: list[dict[str, object]] = []
    if step["what"] == "move" and host not in _hosts(steps, step["workload"]):
        left.append({"host": step["host"], "dry_run": False})
    if wall != level:
        left.append({"isolation": level, "plan": {}})
    return left


def _create(app: App, new: Mapping[str, Any], host: str) -> None:
    """Make a new one, and start it. Amounts of 0 were not asked for."""
    plan = {name: value for name, value in new["plan"].items() if value}
    body = {"image": new["image"], "name": new["name"], "isolation": new["level"], "plan": plan}
    app.client.call("POST", "/v1/instances", query={"start": True, "host": host}, body=body)


def _move(app: App, name: str, body: Mapping[str, object]) -> None:
    from bulkhead.cli.steps import show

    with app.client.stream("POST", instance_path(name, "move"), body=dict(body)) as response:
        show(response.json_lines())
