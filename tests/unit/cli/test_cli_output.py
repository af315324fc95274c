"""Tables, ages and what a terminal must not get to see."""

from __future__ import annotations

import pytest

from bulkhead.cli import output
from bulkhead.cli.events import line
from bulkhead.cli.logs import stamp
from bulkhead.cli.ps import port_text, status
from bulkhead.cli.stats import with_cpu


def test_table() -> None:
    assert output.table(("ID", "NAME"), [("1", "web"), ("22", "")]) == "ID  NAME\n1   web\n22\n"


def test_escape_sequences_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in output.table(("A",), [("\x1b[2Jx\n",)])
    assert output.table(("A",), [("\x1b[2Jx\n",)]) == "A\n?[2Jx?\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 100, "3 months"),
        (86400 * 800, "2 years"),
        (-5, "0 seconds"),
    ],
)
def test_age(seconds: float, words: str) -> None:
    assert output.age(1000.0, 1000.0 + seconds) == words


def test_status() -> None:
    ended = {"code": 137, "signal": 9, "oom": True, "ended": 40.0}
    base = {"state": "running", "health": "healthy", "started": 40.0, "exit": None}
    assert status(base, 100.0) == "Up 1 minute (healthy)"
    assert status({**base, "state": "exited", "exit": ended}, 100.0) == "Exited (137, out of memory) 1 minute ago"
    assert status({**base, "state": "created"}, 100.0) == "Created"


def test_ports_stamps_events_and_cpu() -> None:
    port = {"host_ip": "", "host_port": 8080, "port": 80, "protocol": "tcp"}
    assert port_text(port) == "0.0.0.0:8080->80/tcp"
    assert port_text({**port, "host_ip": "::1"}) == "[::1]:8080->80/tcp"
    assert stamp(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
    event = {
        "when": 0.0,
        "kind": "instance",
        "id": "a" * 32,
        "name": "web",
        "action": "exit",
        "attributes": {"code": "1"},
    }
    assert line(event) == "1970-01-01T00:00:00.000Z instance exit web (aaaaaaaaaaaa) code=1"
    first = [{"id": "a", "when": 10.0, "cpu_seconds": 5.0}]
    second = [{"id": "a", "when": 12.0, "cpu_seconds": 6.0}, {"id": "b", "when": 12.0, "cpu_seconds": 9.0}]
    assert [usage["cpu_percent"] for usage in with_cpu(second, first)] == [50.0, 0.0]
