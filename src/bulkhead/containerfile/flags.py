"""Flags of instructions: `--name=value` before the rest. An unknown one is an error."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import cast

from bulkhead.containerfile.instructions import Kind, Mount, Sharing
from bulkhead.quantities import parse_size

Given = Mapping[str, Sequence[str]]
_FLAG = re.compile(r"--([a-z][a-z-]*)(=(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|\\.|[^\s\"'\\])*)?(?=\s|$)\s*")
_REPEATED = ("mount", "exclude")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_HEALTH = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}
_KINDS = ("bind", "cache", "tmpfs", "secret")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = {
    "bind": {"source", "target", "from", "readonly", "readwrite"},
    "cache": {"id", "target", "readonly", "readwrite", "sharing", "mode", "uid", "gid"},
    "tmpfs": {"target", "size"},
    "secret": {"id", "target", "required", "mode", "uid", "gid"},
}


def take(text: str, known: Collection[str], escape: str) -> tuple[dict[str, list[str]], str]:
    """The flags at the beginning of `text`, and what follows them. Raises ValueError."""
    given: dict[str, list[str]] = {}
    while text.startswith("--"):
        found = _FLAG.match(text)
        if not found or text.startswith("-- "):
            raise ValueError(f"{text.split(maxsplit=1)[0][:60]!r} is not a flag")
        name, value = found[1], found[2]
        if name not in known:
            raise ValueError(f"flag --{name} is not known here; {', '.join(f'--{each}' for each in sorted(known))} are")
        if name in given and name not in _REPEATED:
            raise ValueError(f"flag --{name} is given twice")
        given.setdefault(name, []).append("" if value is None else _bare(value[1:], escape))
        if value is None and name != "link":
            raise ValueError(f"flag --{name} has no value")
        text = text[found.end() :]
    return given, text


def _bare(value: str, escape: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return re.sub(re.escape(escape) + r"(.)", r"\1", value)


def one(given: Given, name: str) -> str:
    """The value of a flag that can be given once; "" where it was not."""
    return given[name][0] if name in given else ""


def switch(given: Given, name: str) -> bool:
    """Whether a flag is on."""
    return name in given and _truth(given[name][0], f"--{name}")


def health(name: str, text: str) -> tuple[str, int]:
    """An option of HEALTHCHECK by the image's name. Raises ValueError."""
    if name == "retries":
        if not text.isdecimal() or not 0 < int(text) < 1000:
            raise ValueError(f"--retries={text} is not a number from 1 to 999")
        return _HEALTH[name], int(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"--{name}={text} is not a time such as 30s or 1m30s")
    nanoseconds = sum(int(float(number) * _UNITS[unit]) for number, unit in parts)
    if not 0 <= nanoseconds <= 24 * 3600 * 10**9:
        raise ValueError(f"--{name}={text} is more than a day")
    return _HEALTH[name], nanoseconds


def mount(text: str) -> Mount:
    """What `--mount=` says. Raises ValueError."""
    fields: dict[str, str] = {}
    for field in text.split(","):
        name, equals, value = field.strip().partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        if name in fields:
            raise ValueError(f"--mount={text}: {name} is given twice")
        fields[name] = value if equals else "true"
    kind = fields.pop("type", "bind")
    if kind not in _KINDS:
        hint = ": there is no ssh agent behind a wall" if kind == "ssh" else ""
        raise ValueError(f"--mount={text}: type {kind!r} is not one of {', '.join(_KINDS)}{hint}")
    if unknown := sorted(set(fields) - _KEYS[kind]):
        raise ValueError(f"--mount={text}: a {kind} has no {unknown[0]!r}; it has {', '.join(sorted(_KEYS[kind]))}")
    return _mount(kind, fields, text)


def _mount(kind: str, fields: Mapping[str, str], text: str) -> Mount:
    what = f"--mount={text}"
    target = fields.get("target", "")
    identifier = fields.get("id", "")
    if kind == "secret":
        identifier = identifier or target.rpartition("/")[2]
        if not identifier:
            raise ValueError(f"{what}: which secret? give it an id")
        target = target or f"/run/secrets/{identifier}"
    if not target:
        raise ValueError(f"{what}: it has no target")
    read_only = _truth(fields.get("readonly", "false"), what)
    read_write = _truth(fields.get("readwrite", "false"), what)
    if kind == "bind" and read_write:
        raise ValueError(f"{what}: a bind is read-only here; copy what is to be changed")
    sharing = fields.get("sharing", "shared")
    if sharing not in ("shared", "private", "locked"):
        raise ValueError(f"{what}: sharing is shared, private or locked")
    size = parse_size(fields["size"]) if "size" in fields else None
    return Mount(
        cast(Kind, kind),
        target=target,
        source=fields.get("source", ""),
        origin=fields.get("from", ""),
        id=identifier or target,
        read_only=read_only or kind in ("bind", "secret"),
        required=_truth(fields.get("required", "false"), what),
        sharing=cast(Sharing, sharing),
        mode=_octal(fields["mode"], what) if "mode" in fields else None,
        uid=_number(fields.get("uid", "0"), what),
        gid=_number(fields.get("gid", "0"), what),
        size=size,
    )


def _truth(text: str, what: str) -> bool:
    if text.lower() in ("", "true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError(f"{what}: {text!r} is neither true nor false")


def _octal(text: str, what: str) -> int:
    if not re.fullmatch(r"0?o?[0-7]{1,4}", text):
        raise ValueError(f"{what}: mode {text!r} is not octal")
    return int(text.lstrip("0o") or "0", 8)


def _number(text: str, what: str) -> int:
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise ValueError(f"{what}: {text!r} is not an id from 0 to 65535")
    return int(text)
