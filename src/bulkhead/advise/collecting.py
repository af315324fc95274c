"""An agentless probe: a script of a POSIX shell that reads /proc on a server for a while, and what becomes of its
answer.

Nothing is installed or changed there. The script ends by itself after a number of looks, and with the connection. The
answer is a stranger's: sizes are bounded, what is no number is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bulkhead.advise.exposition import NO_DISK, NO_LINK
from bulkhead.advise.ganeti import At
from bulkhead.advise.measured import Measured, Sample
from bulkhead.advise.troubles import Place, printable
from bulkhead.errors import HostError

MOST_LOOKS = 20_000
LOOK_BYTES = 16 << 10
"""What one look may say: hundreds of links and mounts."""
FACTS_BYTES = 64 << 10
_NUMBER = re.compile(r"[0-9]{1,19}(\.[0-9]{1,9})?")
_CLOCK = re.compile(r"[0-9]{6,8}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

SCRIPT = r"""
LC_ALL=C; export LC_ALL; PATH=$PATH:/usr/sbin:/sbin; export PATH
say() { printf '@%s\n' "$1"; }
say name; uname -n
say cpuinfo; grep -E '^(processor|cpu MHz)' /proc/cpuinfo
say clock; cat /sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq 2>/dev/null
say speed; cat /sys/class/net/*/speed 2>/dev/null
n=0
while [ $n -lt LOOKS ]; do
  [ $n -eq 0 ] || sleep EVERY
  n=$((n+1))
  say look; cat /proc/uptime; grep '^cpu ' /proc/stat
  say memory; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
  say links; grep : /proc/net/dev
  say disks; df -kPT 2>/dev/null || df -kP
done
say end
"""


def script(looks: int, every: float) -> str:
    """The script for so many looks, `every` seconds apart."""
    assert 2 <= looks <= MOST_LOOKS
    return SCRIPT.replace("LOOKS", str(looks)).replace("EVERY", f"{every:g}")


def limit(looks: int) -> int:
    """Bytes that the answer may have."""
    return FACTS_BYTES + looks * LOOK_BYTES


def parse(said: bytes, target: str, now: float) -> Measured:
    """What SCRIPT has said; `now`: when it ended, in seconds since the epoch. Raises HostError where it is something
    else."""
    parts = list(_parts(said.decode("ascii", "replace"), target))
    facts = {name: lines for name, lines in parts if name in ("name", "cpuinfo", "clock", "speed")}
    if not parts or parts[-1][0] != "end":
        raise _strange(target, "it ends in the middle")
    looks: list[dict[str, list[str]]] = []
    for name, lines in parts:
        if name == "look":
            looks.append({})
        if looks and name != "end":
            looks[-1][name] = lines
    if len(looks) < 2:
        raise _strange(target, f"{len(looks)} looks")
    name = "".join(facts.get("name", [])).strip()
    if not _NAME.fullmatch(name):
        raise _strange(target, f"its name is {name[:40]!r}")
    samples, size, total = [], 0.0, 0.0
    for look in looks:
        sample, memory, space = _sample(look, target)
        samples.append(sample)
        total, size = max(total, memory), max(size, space)
    late = now - samples[-1].time
    moved = [Sample(each.time + late, each.busy, each.memory, each.disk, each.received, each.sent) for each in samples]
    cores = sum(line.startswith("processor") for line in facts.get("cpuinfo", []))
    if cores == 0 or total < 1 << 20 or size < 1 << 20:
        raise _strange(target, f"{cores} cores, {total:.0f} bytes of memory, {size:.0f} of disks")
    return Measured(name, At(Place(target, 1)), cores, int(total), int(size), _ghz(facts), _speed(facts), moved)


def _parts(text: str, target: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", list[str]()
    for line in text.split("\n"):
        if line.startswith("@"):
            if name:
                yield name, lines
            name, lines = line[1:].strip(), []
        elif name and line:
            lines.append(line)
        elif line:
            raise _strange(target, f"it begins with {line[:60]!r}")
    if name:
        yield name, lines


def _strange(target: str, what: str) -> HostError:
    return HostError(
        f"{target} gives a strange answer: {printable(what)}", hint="its shell must say nothing of its own"
    )


def _number(text: str, target: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise _strange(target, f"{text[:40]!r} is no number")
    return float(text)


def _sample(look: dict[str, list[str]], target: str) -> tuple[Sample, float, float]:
    """A look, and the memory and the space on disks that there are."""
    try:
        uptime, stat = look["look"][0], look["look"][1].split()
        memory = {line.split()[0]: _number(line.split()[1], target) * 1024 for line in look["memory"]}
        whole, free = memory["MemTotal:"], memory["MemAvailable:"]
        ticks = [_number(word, target) for word in stat[1:9]]
        received, sent = _links(look["links"], target)
        size, used = _disks(look["disks"], target)
    except (KeyError, IndexError):
        raise _strange(target, "a look lacks something") from None
    if len(ticks) < 8:
        raise _strange(target, "/proc/stat is too short")
    # user nice system idle iowait irq softirq steal, in hundredths of a second
    busy = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / 100
    return Sample(_number(uptime.split()[0], target), busy, max(0.0, whole - free), used, received, sent), whole, size


def _links(lines: list[str], target: str) -> tuple[float, float]:
    received = sent = 0.0
    for line in lines:
        name, _, counts = line.partition(":")
        if name.strip().startswith(NO_LINK):
            continue
        words = counts.split()
        received += _number(words[0], target)
        sent += _number(words[8], target)
    return received, sent


def _disks(lines: list[str], target: str) -> tuple[float, float]:
    """Bytes of all disks, and those in use; a device that is mounted twice counts once."""
    found: dict[str, tuple[float, float]] = {}
    root = (0.0, 0.0)
    typed = bool(lines) and "Type" in lines[0].split()
    for line in lines[1:]:
        words = line.split()
        kind, amounts = (words[1], words[2:]) if typed else ("", words[1:])
        if "-" in amounts[:2]:
            continue
        pair = (_number(amounts[0], target) * 1024, _number(amounts[1], target) * 1024)
        if words[-1] == "/":
            root = pair
        if kind not in NO_DISK and words[0].startswith("/"):
            found[words[0]] = pair
    # A container's root is no device: then it is all that there is.
    disks = list(found.values()) or [root]
    return sum(size for size, _ in disks), sum(used for _, used in disks)


def _ghz(facts: dict[str, list[str]]) -> float | None:
    clock = "".join(facts.get("clock", [])[:1]).strip()
    if _CLOCK.fullmatch(clock) and 100_000 <= int(clock) <= 10_000_000:
        return int(clock) / 1e6
    for line in facts.get("cpuinfo", []):
        _, _, value = line.partition(":")
        if line.startswith("cpu MHz") and _NUMBER.fullmatch(value.strip()) and 100 <= float(value) <= 10_000:
            return round(float(value) / 1000, 3)
    return None


def _speed(facts: dict[str, list[str]]) -> int | None:
    speeds = [int(line) for line in facts.get("speed", []) if line.isascii() and line.isdigit() and len(line) < 8]
    return max(speeds) * 10**6 if speeds and max(speeds) > 0 else None
