"""Reports of audits as text: one by itself, several side by side, and both as Markdown. Pure: reports in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bulkhead.cli.output import printable
from bulkhead.cli.output import table as columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Report = dict[str, Any]
    Layout = Callable[[Sequence[str], Sequence[Sequence[object]]], str]

NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
CALLS = ("reachable", "guarded", "filtered", "absent", "closed", "untried")
USUAL_CAPABILITIES = 6
"""Names of capabilities that a cell holds."""
MEANING = "That makes none of them work: it takes a kernel that has the flaw"


def table(reports: Sequence[Report]) -> str:
    """For a terminal."""
    if len(reports) > 1:
        return columns(("", *map(_title, reports)), _rows(reports))
    return "\n".join(_sections(reports[0], lambda title: f"{title.upper()}\n", columns))


def markdown(reports: Sequence[Report]) -> str:
    """For a page: side by side where there are several, then each by itself."""
    parts = []
    if len(reports) > 1:
        parts.append(_markdown_table(("", *map(_title, reports)), _rows(reports)))
    for report in reports:
        parts.append(f"## {_escape(_title(report))}\n")
        parts += _sections(report, lambda title: f"### {title}\n\n", _markdown_table)
    return "\n".join(parts)


def _title(report: Report) -> str:
    where = f" in {report['inside']}" if report["inside"] else ""
    return str(report.get("label") or f"{report['level']}{where}")


# --- one report


def _sections(report: Report, heading: Callable[[str], str], layout: Layout) -> Iterable[str]:
    yield _head(report, layout)
    yield heading("Findings") + layout(("POINTS", "GROUP", "WHERE", "WHAT", "DETAIL"), _found_rows(report["findings"]))
    if report["calls"]:
        rows = [(each["user"], each["abi"], *(each["counts"].get(how, 0) for how in CALLS)) for each in report["calls"]]
        yield heading("System calls, tried") + layout(("AS", "ABI", *(how.upper() for how in CALLS)), rows)
    for name in ("process", "hypervisor"):
        if report[name]:
            yield heading(f"The {name}, from outside") + layout(("FACT", "VALUE"), _process(report[name]))
    if report["exploits"]:
        yield heading("Published exploits") + _exploit_text(report, layout)
    if report["raises"]:
        yield heading("What would raise the score") + "".join(f"- {printable(each)}\n" for each in report["raises"])
    if report["notes"]:
        yield heading("Notes") + "".join(f"- {printable(each)}\n" for each in report["notes"])


def _found_rows(findings: Sequence[Report]) -> list[tuple[str, ...]]:
    """What is about the host, each by itself; what a guest's own kernel lets be in one row."""
    rows: list[tuple[str, ...]] = [
        (_points(each["weight"]), each["group"], each["side"], each["title"], each["detail"])
        for each in findings
        if each["side"] != "guest"
    ]
    guest = [each["rule"] for each in findings if each["side"] == "guest"]
    if guest:
        what = f"{len(guest)} things can be done to its own kernel and machine, which are the guest's"
        rows.append(("0", "kernel", "guest", what, "--format json has each"))
    return rows


def _exploit_text(report: Report, layout: Layout) -> str:
    """How many find what they need, and those of which the kernel's version does not rule out the flaw."""
    reachable = [each for each in report["exploits"] if each["reachable"]]
    whose = "" if report["process"] else ", in the guest's own kernel"
    open_ones = [each for each in reachable if each["in_range"] is not False]
    text = f"{len(reachable)} of {len(report['exploits'])} find the interfaces that they need{whose}. {MEANING}.\n"
    if len(open_ones) < len(reachable):
        ruled = len(reachable) - len(open_ones)
        text += f"Of these, {ruled} are ruled out by the kernel's version, by which upstream has mended them.\n"
    rows = [(each["cve"], _range(each), each["affected"], each["title"]) for each in open_ones]
    return text + ("\n" + layout(("CVE", "THIS KERNEL", "AFFECTED", "WHAT"), rows) if rows else "")


def _head(report: Report, layout: Layout) -> str:
    score = "none" if report["score"] is None else f"{report['score']} of 100"
    lost = ", ".join(f"{each['group']} {_points(each['points'])}" for each in report["deductions"])
    kernel = report["kernel"] + ("" if report["kernel"] == report["host_kernel"] else f", host {report['host_kernel']}")
    rows: list[tuple[str, ...]] = [
        ("instance", report["instance"]),
        ("level", _title(report)),
        ("image", report["image"]),
        ("kernel", kernel),
        ("score", score),
        ("points lost", lost or "none"),
    ]
    return layout(("AUDIT", ""), rows)


def _process(process: Report) -> list[tuple[str, str]]:
    return [
        ("program", process["program"] or "gone"),
        ("namespaces of the host's", ", ".join(process["shared"]) or "none"),
        ("user on the host", str(process["uid"])),
        ("root inside is", "nobody" if process["root_uid"] is None else str(process["root_uid"])),
        ("capabilities", _some(process["effective"])),
        ("may get", _some(process["bounding"])),
        ("no_new_privs", "yes" if process["no_new_privs"] else "no"),
        ("filters of system calls", str(process["filters"] or process["seccomp"])),
        ("paths of the host's", ", ".join(path["target"] for path in process["host_paths"]) or "none"),
        ("open files", ", ".join(process["open_files"]) or "none"),
    ]


def _some(names: Sequence[str]) -> str:
    short = [name.removeprefix("CAP_").lower() for name in names]
    rest = len(short) - USUAL_CAPABILITIES
    return (", ".join(short[:USUAL_CAPABILITIES]) + (f" and {rest} more" if rest > 0 else "")) or "none"


def _range(exploit: Report) -> str:
    return {True: "in range", False: "not in range", None: "cannot be told"}[exploit["in_range"]]


def _points(points: float) -> str:
    return f"{points:g}" if points else "0"


# --- side by side


def _rows(reports: Sequence[Report]) -> list[tuple[str, ...]]:
    facts: list[tuple[str, Callable[[Report], str]]] = [
        ("score", lambda report: "none" if report["score"] is None else str(report["score"])),
        ("kernel that the workload calls", lambda report: "the host's" if report["process"] else "its own"),
        *((f"{kind} namespace", lambda report, kind=kind: _namespace(report, kind)) for kind in NAMESPACES),
        ("root inside is on the host", _root),
        ("capabilities of root, in the host", _host_capabilities),
        ("capabilities in its own namespace", _own_capabilities),
        ("no_new_privs", lambda report: _of_outer(report, "no_new_privs")),
        ("system calls reachable, x86_64", lambda report: _calls(report, "x86_64")),
        ("system calls reachable, i386", lambda report: _calls(report, "i386")),
        ("user namespaces can be made", lambda report: _found(report, "userns")),
        ("io_uring", lambda report: _found(report, "io_uring")),
        ("bpf", lambda report: _found(report, "bpf")),
        ("performance events", lambda report: _found(report, "perf")),
        ("userfaultfd", lambda report: _found(report, "userfaultfd")),
        ("keyrings", lambda report: _found(report, "keys")),
        ("mounts", lambda report: _found(report, "mounts")),
        ("files by handle", lambda report: _found(report, "handles")),
        ("families of sockets beyond the usual", lambda report: _found(report, "families")),
        ("the kernel's log", lambda report: _found(report, "log", "read /dev/kmsg")),
        ("device nodes", lambda report: _found(report, "node-made", "node-opened")),
        ("devices beyond null and its like", _devices),
        ("settings and /sys writable", lambda report: _found(report, "sysctl", "sysfs", "release-agent")),
        ("paths of the host's", _host_paths),
        ("exploits whose interfaces are there", _exploits),
    ]
    return [(title, *(tell(report) for report in reports)) for title, tell in facts]


def _outer(report: Report) -> Report:
    """The process that the host sees: the workload's, or its hypervisor's."""
    return dict(report["process"] or report["hypervisor"] or {})


def _namespace(report: Report, kind: str) -> str:
    return "the host's" if kind in _outer(report).get("shared", ()) else "own"


def _root(report: Report) -> str:
    root = _outer(report).get("root_uid")
    return "nobody" if root is None else "root" if root == 0 else "an unprivileged user"


def _host_capabilities(report: Report) -> str:
    outer = _outer(report)
    return str(len(outer["bounding"])) if "user" in outer["shared"] else "0"


def _own_capabilities(report: Report) -> str:
    outer = _outer(report)
    return "-" if "user" in outer["shared"] else str(len(outer["bounding"]))


def _of_outer(report: Report, key: str) -> str:
    return "yes" if _outer(report).get(key) else "no"


def _calls(report: Report, abi: str) -> str:
    counts = [each["counts"]["reachable"] for each in report["calls"] if each["user"] == "root" and each["abi"] == abi]
    own = "" if report["process"] else " of its own kernel"
    return f"{counts[0]}{own}" if counts else "0" if report["probed"] else "not known"


def _found(report: Report, *rules: str) -> str:
    if not report["probed"]:
        return "not known"
    found = [each for each in report["findings"] if each["rule"] in rules]
    return "no" if not found else "yes" if found[0]["side"] == "host" else "in its own kernel"


def _devices(report: Report) -> str:
    if not report["probed"]:
        return "not known"
    found = [each for each in report["findings"] if each["rule"].startswith("device")]
    return "no" if not found else "yes" if found[0]["side"] == "host" else "its own machine's"


def _host_paths(report: Report) -> str:
    return str(len(_outer(report).get("host_paths", ())))


def _exploits(report: Report) -> str:
    if not report["exploits"]:
        return "not known"
    reachable = sum(1 for each in report["exploits"] if each["reachable"])
    own = "" if report["process"] else ", against its own kernel"
    return f"{reachable} of {len(report['exploits'])}{own}"


# --- Markdown


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(_escape(str(cell)) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """A cell of a table whose text is not Bulkhead's: no markup, no other cell."""
    return "".join(f"\\{char}" if char in "\\`*[]<>|#" else char for char in printable(text))
