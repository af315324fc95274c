"""What `image from-server` prints: comments on what was found, then commands that run as they are; or all as JSON."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from bulkhead.cli import options, run
from bulkhead.cli.output import printable
from bulkhead.cli.parsing import Parser
from bulkhead.quantities import format_size
from bulkhead.servers.findings import Findings
from bulkhead.servers.rules import Chosen
from bulkhead.servers.services import Data, Service
from bulkhead.servers.suggest import Suggestion

_MANY = 12


def instance_name(text: str) -> str:
    """A name for an instance from that of a server or an image: "server/web.example:1" becomes "web"."""
    last = text.rpartition("/")[2].partition(":")[0].partition(".")[0]
    return re.sub(r"[^a-zA-Z0-9_-]", "-", last).strip("-_")[:40] or "server"


def image_changes(findings: Findings, suggestion: Suggestion, where: str) -> list[str]:
    """How the image wants to be run, as instructions of an import."""
    lines = [f"EXPOSE {port.number}/{port.protocol}" for port in suggestion.ports]
    lines.append(f"LABEL org.bulkhead.server={shlex.quote(printable(where)[:200])}")
    if findings.init:
        lines += ['CMD ["/sbin/init"]', "STOPSIGNAL SIGRTMIN+3"]
    return lines


def request_of(suggestion: Suggestion) -> dict[str, object]:
    """The API's create request that the suggested command line makes."""
    parser = Parser("bulkhead run")
    run.arguments(parser)
    return options.request(parser.parse_args(list(suggestion.run[1:])))


def as_lines(
    findings: Findings, chosen: Chosen, suggestion: Suggestion, notes: Sequence[str], *, image: str
) -> Iterator[str]:
    """The text: a shell script that says what it is about."""
    yield f"# {findings.system} -> {image}"
    for one in findings.services:
        yield f"# service {_service(one)}"
    for one_place in findings.data:
        yield f"# data    {_data(one_place)}"
    if findings.people:
        yield "# users   " + ", ".join(name for name, _ in findings.people[:_MANY])
    for why, (count, size) in sorted(chosen.left.items()):
        yield f"# left out {count} files, {format_size(size)}: {why}"
    if findings.dropped:
        names = sorted(findings.dropped)
        more = f" and {len(names) - _MANY} more (--format json names them)" if len(names) > _MANY else ""
        yield f"# dropped packages: {', '.join(names[:_MANY])}{more}"
    if findings.masked:
        yield f"# not started in it: {', '.join(findings.masked)}"
    for reason in suggestion.because:
        yield f"# {reason}"
    for note in notes:
        yield f"# note: {note}"
    for words in (*suggestion.prepare, suggestion.run):
        yield "bulkhead " + shlex.join(words)


def _service(one: Service) -> str:
    ports = ", ".join(f"{port.number}/{port.protocol}{' (local)' if port.local else ''}" for port in one.ports)
    package = f" of {one.package}" if one.package else ""
    used = f", uses {format_size(one.memory)}" if one.memory else ""
    return f"{one.name}{package}{f', port {ports}' if ports else ''}{used}{'' if one.measured else ', not measured'}"


def _data(one: Data) -> str:
    return f"/{one.path.decode('utf-8', 'replace')}: {format_size(one.size)} in {one.files} files"


def as_json(
    findings: Findings, chosen: Chosen, suggestion: Suggestion, notes: Sequence[str], *, image: str, digest: str
) -> dict[str, Any]:
    """The same as data, with the request that the API takes."""
    return {
        "image": image,
        "digest": digest,
        "system": findings.system,
        "services": [
            {
                "name": one.name,
                "package": one.package,
                "ports": [{"port": p.number, "protocol": p.protocol, "local": p.local} for p in one.ports],
                "memory": one.memory,
                "uids": list(one.uids),
                "measured": one.measured,
            }
            for one in findings.services
        ],
        "data": [
            {"path": "/" + one.path.decode("utf-8", "replace"), "size": one.size, "files": one.files}
            for one in findings.data
        ],
        "users": [{"name": name, "uid": uid} for name, uid in findings.people],
        "copied": {"files": len(chosen.kept), "size": chosen.size},
        "left_out": [{"why": why, "files": count, "size": size} for why, (count, size) in sorted(chosen.left.items())],
        "dropped_packages": sorted(findings.dropped),
        "masked": list(findings.masked),
        "because": list(suggestion.because),
        "notes": list(notes),
        "prepare": [list(words) for words in suggestion.prepare],
        "run": list(suggestion.run),
        "request": request_of(suggestion),
    }
