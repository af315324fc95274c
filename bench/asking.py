"""A client beside the host that is measured: a network namespace of its own, in which a program asks for pages."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.statistics import quantile
from bench.timing import find, output

SOURCE = Path(__file__).with_name("load") / "ask.c"
NAME, LINK = "bench-client", "bench-up"
HOST, CLIENT = "192.0.2.1", "192.0.2.2"
"""The host's address as the client sees it (RFC 5737), and the client's."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How a server did. Milliseconds of those that were answered; the others' errors."""

    times: tuple[float, ...]
    errors: tuple[str, ...]

    @property
    def p50(self) -> float:
        """The middle; infinite where nothing was answered."""
        return quantile(self.times, 0.5) if self.times else float("inf")

    @property
    def p99(self) -> float:
        """Of a hundred answers the slowest but one."""
        return quantile(self.times, 0.99) if self.times else float("inf")


class Client:
    """Asks at a fixed rate, whether it is answered or not."""

    def __init__(self, directory: Path, stack: ExitStack, *, core: int) -> None:
        """`core` is where it runs: that of the victim, so that the rogue's is the rogue's alone."""
        self._program, self._core = directory / "ask", core
        output([find("gcc", "gcc"), "-O2", "-static", "-o", str(self._program), str(SOURCE)])
        ip = find("ip", "iproute2")
        for words in (
            f"netns add {NAME}",
            f"link add {LINK} type veth peer name uplink netns {NAME}",
            f"address add {HOST}/24 dev {LINK}",
            f"link set {LINK} up",
            f"-n {NAME} address add {CLIENT}/24 dev uplink",
            f"-n {NAME} link set dev uplink up",
            f"route replace default via {CLIENT}",
        ):
            output([ip, *words.split()])
        stack.callback(subprocess.run, [ip, "netns", "del", NAME], check=False)

    def ask(self, port: int, *, rate: float, seconds: float) -> Answers:
        """Every answer of so many seconds, and what became of the rest."""
        argv = ["ip", "netns", "exec", NAME, "taskset", "-c", str(self._core), str(self._program)]
        said = output([*argv, HOST, str(port), f"{rate:g}", f"{seconds:g}"]).splitlines()
        errors = [line.removeprefix("error ") for line in said if line.startswith("error ")]
        return Answers(tuple(int(line) / 1000 for line in said if line.isdigit()), tuple(errors))
