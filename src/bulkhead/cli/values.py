"""Values as users write them, made into what the API takes. All raise ValueError with the reason."""

# pathlib takes 4 ms to load.
# ruff: noqa: PTH100, PTH123

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

MAX_TEXT = 1 << 18
"""Bytes of what is passed on as text."""
NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$")
_PORT = re.compile(r"^(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):)?(?P<host>[^:]*):(?P<port>[^:]*)$")
_MOUNT_MODES = {"": False, "rw": False, "ro": True}
RESTARTS = ("no", "on-failure", "always")


def parse_port(text: str) -> dict[str, object]:
    """`[IP:]HOST:PORT[/tcp|/udp]`; an IPv6 address in brackets."""
    shape = f"-p {text!r}: ports are given as [IP:]HOST:PORT[/udp]"
    mapping, _, protocol = text.partition("/")
    if protocol not in ("", "tcp", "udp"):
        raise ValueError(f"-p {text!r}: {protocol!r} is not tcp or udp")
    found = _PORT.match(mapping)
    if not found:
        raise ValueError(shape)
    host_ip = _address(text, found["ip"]) if found["ip"] is not None else ""
    numbers = []
    for which in ("host", "port"):
        digits = found[which]
        if not digits.isascii() or not digits.isdigit():
            raise ValueError(shape)
        if not 1 <= int(digits[:6]) <= 65535:
            raise ValueError(f"-p {text!r}: port {digits} is not in 1 to 65535")
        numbers.append(int(digits))
    return {"host_ip": host_ip, "host_port": numbers[0], "port": numbers[1], "protocol": protocol or "tcp"}


def _address(text: str, given: str) -> str:
    from ipaddress import IPv6Address, ip_address

    try:
        address = ip_address(given.strip("[]"))
    except ValueError:
        raise ValueError(f"-p {text!r}: {given!r} is not an IP address") from None
    if isinstance(address, IPv6Address) != given.startswith("["):
        raise ValueError(f"-p {text!r}: an IPv6 address, and no other, stands in brackets")
    return str(address)


def parse_volume(text: str) -> dict[str, object]:
    """`SRC:DST[:ro|rw]`: SRC is a volume's name, or a path with a slash in it."""
    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or not source or not target:
        raise ValueError(f"-v {text!r}: volumes are given as NAME:/DIR[:ro] or /PATH:/DIR[:ro]")
    if mode not in _MOUNT_MODES or text.endswith(":"):
        raise ValueError(f"-v {text!r}: {mode!r} is not ro or rw")
    if not target.startswith("/"):
        raise ValueError(f"-v {text!r}: {target!r}, where it is to be mounted, is not an absolute path")
    is_path = "/" in source or source in (".", "..")
    if not is_path and not NAME.match(source):
        raise ValueError(f"-v {text!r}: {source!r} is neither a path nor a volume's name")
    return {
        "kind": "bind" if is_path else "volume",
        "source": os.path.abspath(source) if is_path else source,
        "target": target,
        "read_only": _MOUNT_MODES[mode],
    }


def parse_env(text: str, environment: Mapping[str, str]) -> str | None:
    """`K=V`, or `K` with its value taken from `environment` (None where it has none)."""
    key, equals, _ = text.partition("=")
    if not key or "\0" in text:
        raise ValueError(f"{text!r} is not K=V")
    if equals:
        return text
    value = environment.get(key)
    return None if value is None else f"{key}={value}"


def read_env_file(path: str, environment: Mapping[str, str]) -> list[str]:
    """Lines of K=V or K; empty ones and those that begin with # are passed over."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ValueError(f"--env-file {path}: {error.strerror}") from None
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = parse_env(line.lstrip(), environment)
        except ValueError as error:
            raise ValueError(f"--env-file {path}, line {number}: {error}") from None
        if entry is not None:
            entries.append(entry)
    return entries


def read_text(path: str) -> str:
    """A small text file, or with "-" stdin."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_TEXT + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise ValueError(f"{path} has more than {MAX_TEXT} bytes")
        return data.decode()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text (UTF-8)") from None


def parse_label(text: str) -> tuple[str, str]:
    """`K=V` or `K`."""
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"--label {text!r} is not K=V")
    return key, value


def parse_restart(text: str) -> dict[str, object]:
    """`no`, `on-failure[:n]` or `always`."""
    kind, colon, count = text.partition(":")
    if kind not in RESTARTS or (colon and kind != "on-failure"):
        raise ValueError(f"--restart {text!r} is not no, on-failure[:n] or always")
    if colon and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise ValueError(f"--restart {text!r}: {count!r} is not a number of retries")
    return {"kind": kind, "retries": int(count) if colon else 0}


def parse_entrypoint(text: str) -> list[str]:
    """One program, a JSON array of words, or "" for none."""
    if text.startswith("["):
        import json

        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"--entrypoint {text!r} is not a JSON array of words")
        return words
    return [text] if text else []


def parse_number(text: str, flag: str, *, low: float, whole: bool = True) -> float:
    """A number that is at least `low`."""
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"{flag} {text!r} is not a{' whole' if whole else ''} number") from None
    if not low <= number < float("inf"):
        raise ValueError(f"{flag} {text} is less than {low:g}" if number < low else f"{flag} {text} is not finite")
    return number


def parse_when(text: str, flag: str, now: float) -> float:
    """Seconds since the epoch of a time ago ("10m"), a date and time ("2026-01-02T03:04:05Z"), or such seconds."""
    from bulkhead.quantities import parse_seconds

    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        return float(text)
    try:
        return now - parse_seconds(text)
    except ValueError:
        pass
    from datetime import datetime

    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise ValueError(f"{flag} {text!r} is neither a time ago (10m) nor a date (2026-01-02T03:04:05)") from None
