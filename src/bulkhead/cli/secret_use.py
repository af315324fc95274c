"""--secret of the commands that make instances, in podman's form."""

from __future__ import annotations

import re

from bulkhead.cli.values import NAME

_NUMBER, _MODE = re.compile("[0-9]{1,10}"), re.compile("0{0,4}[0-7]{1,3}")
SHAPE = "NAME[,target=/PATH][,uid=N][,gid=N][,mode=0400]"


def parse_secret(text: str) -> dict[str, object]:
    """`NAME[,type=mount][,target=PATH][,uid=N][,gid=N][,mode=0444]`; a relative target is below /run/secrets.

    Raises ValueError.
    """
    name, *options = text.split(",")
    if name.startswith("source="):
        name = name.removeprefix("source=")
    if not NAME.fullmatch(name):
        raise ValueError(f"--secret {text!r}: secrets are given as {SHAPE}")
    found: dict[str, object] = {"source": name}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in _READ or (key != "type" and key in found):
            raise ValueError(f"--secret {text!r}: {option!r} is not one of {', '.join(_READ)}, given once")
        read = _READ[key](text, value)
        if read is not None:
            found[key] = read
    return found


def _type(text: str, value: str) -> None:
    if value == "env":
        raise ValueError(
            f"--secret {text!r}: a secret is not put into the environment, which every program inherits, which /proc"
            " shows and crash reports copy: leave type out, and let the program read the file"
        )
    if value != "mount":
        raise ValueError(f"--secret {text!r}: the type {value!r} is not mount")


def _target(text: str, value: str) -> str:
    if not value:
        raise ValueError(f"--secret {text!r}: the target is empty")
    return value if value.startswith("/") else f"/run/secrets/{value}"


def _number(text: str, value: str) -> int:
    if not (_NUMBER.fullmatch(value) and int(value) < (1 << 32) - 1):
        raise ValueError(f"--secret {text!r}: {value!r} is no uid or gid: a number")
    return int(value)


def _mode(text: str, value: str) -> int:
    if not _MODE.fullmatch(value):
        raise ValueError(f"--secret {text!r}: {value!r} is no mode such as 0400")
    return int(value, 8)


_READ = {"type": _type, "target": _target, "uid": _number, "gid": _number, "mode": _mode}
