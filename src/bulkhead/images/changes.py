"""Configuration that a user gives to an image: fields, or instructions as in `podman import --change "CMD nginx"`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bulkhead.errors import Problem, Refused
from bulkhead.images.config import ImageConfig, port_of

_CHANGE = re.compile(r"\s*([A-Za-z]+)[ =]\s*(.*)", re.DOTALL)
_FIELDS = {"command": "cmd", "ports": "exposed_ports"}
"""The API's words where they are not the field's."""


def changed(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """`config` with Dockerfile instructions applied. Raises Refused with every one that is wrong."""
    problems = []
    for change in changes:
        found = _CHANGE.fullmatch(change)
        instruction = _INSTRUCTIONS.get(found[1].upper()) if found else None
        if not found or not instruction:
            problems.append(Problem(f"change {change!r} is not known", f"one of {', '.join(_INSTRUCTIONS)}"))
            continue
        try:
            config = instruction(config, found[2].strip())
        except ValueError as error:
            problems.append(Problem(f"change {change!r}: {error}"))
    if problems:
        raise Refused(problems)
    return config


def from_fields(fields: Mapping[str, object]) -> ImageConfig:
    """A configuration from fields by name, `command` and `ports` being what the API calls cmd and exposed_ports.

    Raises Refused for a field that is not known and for a port that is none.
    """
    named = {_FIELDS.get(key, key): value for key, value in fields.items() if value is not None}
    unknown = sorted(set(named) - set(ImageConfig.__slots__))
    if unknown:
        raise Refused(Problem(f"image configuration: {name!r} is not known") for name in unknown)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in named.items()}
    config = ImageConfig(**values)  # type: ignore[arg-type]
    return replace(config, exposed_ports=_ports(config.exposed_ports))


def _ports(ports: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(sorted(set(map(port_of, ports))))
    except ValueError as error:
        raise Refused(str(error)) from error


def _command(text: str) -> tuple[str, ...]:
    """The exec form (a JSON array), or the shell form, run by /bin/sh."""
    if not text.startswith("["):
        if not text:
            raise ValueError("there is no command")
        return ("/bin/sh", "-c", text)
    return _array(text)


def _array(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a JSON array: {error}") from error
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"{text!r} is not a JSON array of strings")
    return tuple(found)


def _words(text: str) -> tuple[str, ...]:
    return _array(text) if text.startswith("[") else tuple(shlex.split(text))


def _pairs(text: str) -> dict[str, str]:
    """`A=1 B="two words"`, or the old `A value`."""
    words = shlex.split(text)
    if len(words) > 1 and "=" not in words[0]:
        words = [f"{words[0]}={text.split(None, 1)[1]}"]
    pairs = dict(word.split("=", 1) for word in words if "=" in word[1:])
    if not pairs or len(pairs) != len(words):
        raise ValueError("it is not NAME=value")
    return pairs


def _environment(config: ImageConfig, text: str) -> ImageConfig:
    old = dict(entry.partition("=")[::2] for entry in config.env)
    return replace(config, env=tuple(f"{name}={value}" for name, value in {**old, **_pairs(text)}.items()))


def _workdir(config: ImageConfig, text: str) -> ImageConfig:
    if not text.startswith("/"):
        raise ValueError("it is not an absolute path")
    return replace(config, workdir=text)


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, exposed_ports=tuple(sorted({*config.exposed_ports, *map(port_of, _words(text))})))


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": lambda config, text: replace(config, cmd=_command(text)),
    "ENTRYPOINT": lambda config, text: replace(config, entrypoint=_command(text)),
    "ENV": _environment,
    "EXPOSE": _expose,
    "LABEL": lambda config, text: replace(config, labels={**config.labels, **_pairs(text)}),
    "STOPSIGNAL": lambda config, text: replace(config, stop_signal=text),
    "USER": lambda config, text: replace(config, user=text),
    "VOLUME": lambda config, text: replace(config, volumes=tuple(sorted({*config.volumes, *_words(text)}))),
    "WORKDIR": _workdir,
}
