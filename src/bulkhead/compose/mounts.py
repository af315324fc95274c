"""Ports, volumes, configs and secrets of a service: what of the world outside it gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from bulkhead.compose.reading import Reader
from bulkhead.secret import LAST_ID

MOST_PORTS = 1024
_PORT = re.compile(r"(?:(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):)?(?P<host>[0-9-]*):)?(?P<port>[0-9-]+)(?:/(?P<protocol>\w+))?")
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_OPTIONS = {"ro": True, "rw": False}
_SELINUX = ("z", "Z")
Absolute = Callable[[str, Reader], str]
"""A path of the host as it was written, made absolute."""


@dataclass(frozen=True, slots=True)
class FileUse:
    """A config or a secret that a service gets at `target`."""

    kind: str
    """ "config" or "secret"."""
    source: str
    target: str
    owner: tuple[int, int] = (0, 0)
    mode: int = 0o444
    """Of a secret; a config has what it has."""


# --- ports


def read_ports(reader: Reader) -> list[dict[str, object]]:
    """The published ports, ranges taken apart."""
    found: list[dict[str, object]] = []
    for each in reader.items():
        made = _long_port(each) if each.is_mapping else _short_port(each)
        if len(found) + len(made) > MOST_PORTS:
            each.wrong(f"there are more than {MOST_PORTS} ports")
            break
        found += made
    return found


def _short_port(reader: Reader) -> list[dict[str, object]]:
    text = reader.text()
    if text is None:
        return []
    match = _PORT.fullmatch(text)
    if not match:
        reader.wrong(f"{text!r} is not [IP:]HOST:PORT[/udp]")
        return []
    return _ports(reader, match["ip"] or "", match["host"] or "", match["port"], match["protocol"] or "tcp")


def _long_port(reader: Reader) -> list[dict[str, object]]:
    fields = reader.fields("port")
    if "mode" in fields:
        fields["mode"].choice("host", "ingress")
    texts = {name: fields[name].text() or "" if name in fields else "" for name in ("host_ip", "published", "target")}
    protocol = (fields["protocol"].text() if "protocol" in fields else None) or "tcp"
    if not texts["target"]:
        reader.wrong("target is missing: which port inside?")
        return []
    return _ports(reader, texts["host_ip"], texts["published"], texts["target"], protocol)


def _ports(reader: Reader, ip: str, published: str, target: str, protocol: str) -> list[dict[str, object]]:
    if protocol not in ("tcp", "udp"):
        reader.wrong(f"{protocol!r} is not tcp or udp")
        return []
    if not published:
        reader.wrong(f"port {target} is to be published at any port of the host", f"say which: {target}:{target}")
        return []
    inside, outside = _range(reader, target), _range(reader, published)
    if not inside or not outside:
        return []
    if len(inside) != len(outside):
        reader.wrong(f"{published} and {target} are not as many", "ranges of the same length")
        return []
    host_ip = ip.strip("[]")
    return [
        {"host_ip": host_ip, "host_port": host, "port": port, "protocol": protocol}
        for host, port in zip(outside, inside, strict=True)
    ]


def _range(reader: Reader, text: str) -> list[int]:
    match = _RANGE.fullmatch(text)
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if 1 <= first <= last <= 65535:
            return list(range(first, last + 1))
    reader.wrong(f"{text!r} is no port, or range of ports, in 1 to 65535")
    return []


# --- volumes


@dataclass(frozen=True, slots=True)
class MountUse:
    """A volume of the project (by its key) or a path of the host."""

    kind: str
    source: str
    target: str
    read_only: bool
    said: Reader


def read_mounts(reader: Reader, absolute: Absolute) -> list[MountUse]:
    """What is mounted."""
    found = [
        _long_mount(each, absolute) if each.is_mapping else _short_mount(each, absolute) for each in reader.items()
    ]
    return [each for each in found if each]


def _short_mount(reader: Reader, absolute: Absolute) -> MountUse | None:
    text = reader.text()
    if text is None:
        return None
    source, colon, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not colon:
        reader.wrong(f"{text!r} is a volume without a name", f"give it one, below volumes: NAME:{text}")
        return None
    read_only = False
    for option in filter(None, options.split(",")):
        if option in _OPTIONS:
            read_only = _OPTIONS[option]
        elif option not in _SELINUX:
            reader.wrong(f"the option {option!r} of {text!r} is not honoured: known are ro and rw")
    return _mount(reader, "", source, target, absolute, read_only=read_only)


def _long_mount(reader: Reader, absolute: Absolute) -> MountUse | None:
    fields = reader.fields("mount")
    kind = fields["type"].choice("volume", "bind") if "type" in fields else None
    if "type" not in fields:
        reader.wrong("type is missing: volume or bind")
    source = (fields["source"].text() if "source" in fields else None) or ""
    target = (fields["target"].text() if "target" in fields else None) or ""
    read_only = bool(fields["read_only"].truth()) if "read_only" in fields else False
    if "bind" in fields:
        for key, value, _ in fields["bind"].entries():
            match key:
                case "create_host_path":
                    value.only(False, "no path of the host is made")
                case "propagation":
                    value.only_word(("rprivate", "private"), "mounts inside stay inside")
                case _:
                    value.wrong("is not honoured: a path is mounted as it is")
    if "volume" in fields:
        for key, value, _ in fields["volume"].entries():
            if key == "nocopy":
                value.only(True, "nothing of an image is copied into a volume")
            else:
                value.wrong("is not honoured: a volume is mounted whole")
    if kind is None:
        return None
    if not source:
        reader.wrong("source is missing: which volume, or which path?")
        return None
    return _mount(reader, kind, source, target, absolute, read_only=read_only)


def _mount(
    reader: Reader, kind: str, source: str, target: str, absolute: Absolute, *, read_only: bool
) -> MountUse | None:
    if not target.startswith("/"):
        reader.wrong(f"{target!r}, where it is to be mounted, is not an absolute path")
        return None
    is_path = source.startswith(("/", ".", "~"))
    if kind == "volume" and is_path:
        reader.wrong(f"{source!r} is a path and no volume's name", "type: bind")
        return None
    if kind == "bind" or (not kind and is_path):
        return MountUse("bind", absolute(source, reader), target, read_only, reader)
    return MountUse("volume", source, target, read_only, reader)


# --- configs and secrets


def read_files(reader: Reader, kind: str) -> list[tuple[FileUse, Reader]]:
    """Which configs or secrets a service gets, and where."""
    found = []
    for each in reader.items():
        owner, mode = (0, 0), None
        if each.is_mapping:
            fields = each.fields("file_use")
            for key in ("uid", "gid", "mode") if kind == "config" else ():
                if key in fields:
                    fields[key].wrong("is not honoured: a config belongs to root, and has the mode of its source")
            owner = (_id(fields.get("uid")), _id(fields.get("gid")))
            mode = fields["mode"].parsed(_mode) if "mode" in fields else None
            source = (fields["source"].text() if "source" in fields else None) or ""
            target = (fields["target"].text() if "target" in fields else None) or ""
            if not source:
                each.wrong(f"source is missing: which {kind}?")
                continue
        else:
            source, target = each.text() or "", ""
        default = f"/run/secrets/{source}" if kind == "secret" else f"/{source}"
        if target and not target.startswith("/"):
            target = f"/run/secrets/{target}" if kind == "secret" else f"/{target}"
        found.append((FileUse(kind, source, target or default, owner, 0o444 if mode is None else mode), each))
    return found


def _id(reader: Reader | None) -> int:
    number = reader.whole() if reader else 0
    if reader and number and number > LAST_ID:
        reader.wrong(f"{number} is more than {LAST_ID}")
    return min(number or 0, LAST_ID)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"{text!r} is no mode such as 0400")
    return mode
