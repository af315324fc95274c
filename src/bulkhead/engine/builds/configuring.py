"""The instructions that change the configuration alone. Pure: a state in, a state out; ValueError with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bulkhead.containerfile.instructions import Command, Health, Instruction, Onbuild, Pairs, Words
from bulkhead.containerfile.stages import EPOCH, PREDEFINED
from bulkhead.containerfile.words import expand, expand_words
from bulkhead.engine.builds.state import StageState, merged
from bulkhead.images.config import port_of
from bulkhead.quantities import parse_signal

MOST_PORTS = 10_000
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})(/(?:tcp|udp|sctp))?")


def configure(state: StageState, step: Instruction, escape: str) -> StageState:
    """After one of these instructions."""
    return _WRITERS[step.line.keyword](state, step, escape)


def is_configuring(step: Instruction) -> bool:
    """Whether an instruction is one of these."""
    return step.line.keyword in _WRITERS


def declare(
    state: StageState, step: Pairs, given: Mapping[str, str], before: Mapping[str, str], escape: str
) -> StageState:
    """After an ARG: what was given on the command line, else its default, else what stands before the first FROM."""
    found = dict(state.arguments)
    for name, value in step.pairs:
        if name in given:
            found[name] = given[name]
        elif value is not None:
            found[name] = expand(value, {**found, **state.environment}, escape)
        elif name in before:
            found[name] = before[name]
    return replace(state, arguments=found)


def _env(state: StageState, step: Instruction, escape: str) -> StageState:
    assert isinstance(step, Pairs)
    pairs = {name: expand(value or "", state.variables, escape) for name, value in step.pairs}
    config = replace(state.config, env=merged(state.config.env, pairs))
    return state.with_config(config, f"ENV {_told(pairs)}")


def _label(state: StageState, step: Instruction, escape: str) -> StageState:
    assert isinstance(step, Pairs)
    variables = state.variables
    pairs = {expand(name, variables, escape): expand(value or "", variables, escape) for name, value in step.pairs}
    config = replace(state.config, labels={**state.config.labels, **pairs})
    return state.with_config(config, f"LABEL {_told(pairs)}")


def _told(pairs: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs.items())


def _user(state: StageState, step: Instruction, escape: str) -> StageState:
    assert isinstance(step, Words)
    user = expand(step.words[0], state.variables, escape)
    if not re.fullmatch(r"[^\s:]+(:[^\s:]+)?", user):
        raise ValueError(f"USER {user!r} is not user or user:group")
    return state.with_config(replace(state.config, user=user), f"USER {user}")


def _expose(state: StageState, step: Instruction, escape: str) -> StageState:
    assert isinstance(step, Words)
    ports = set(state.config.exposed_ports)
    given = [port for word in step.words for port in expand_words(word, state.variables, escape)]
    for text in given:
        found = _RANGE.fullmatch(text.lower())
        if found and int(found[1]) <= int(found[2]) <= 65535:
            ports |= {port_of(f"{port}{found[3] or ''}") for port in range(int(found[1]), int(found[2]) + 1)}
        else:
            ports.add(port_of(text.lower()))
    if len(ports) > MOST_PORTS:
        raise ValueError(f"more than {MOST_PORTS} ports are exposed")
    return state.with_config(replace(state.config, exposed_ports=tuple(sorted(ports))), f"EXPOSE {' '.join(given)}")


def _volume(state: StageState, step: Instruction, escape: str) -> StageState:
    assert isinstance(step, Words)
    given = [path for word in step.words for path in _volumes(state, word, literal=step.literal, escape=escape)]
    for path in given:
        if not path.startswith("/"):
            raise ValueError(f"VOLUME {path!r} is not an absolute path")
    config = replace(state.config, volumes=tuple(sorted({*state.config.volumes, *given})))
    return state.with_config(config, f"VOLUME {' '.join(given)}")


def _volumes(state: StageState, word: str, *, literal: bool, escape: str) -> list[str]:
    if literal:
        return [expand(word, state.variables, escape)]
    return expand_words(word, state.variables, escape)


def _stop_signal(state: StageState, step: Instruction, escape: str) -> StageState:
    assert isinstance(step, Words)
    name = expand(step.words[0], state.variables, escape)
    parse_signal(name)
    return state.with_config(replace(state.config, stop_signal=name), f"STOPSIGNAL {name}")


def _maintainer(state: StageState, step: Instruction, escape: str) -> StageState:  # noqa: ARG001 - one signature
    assert isinstance(step, Words)
    labels = {**state.config.labels, "maintainer": step.words[0]}
    return state.with_config(replace(state.config, labels=labels), f"MAINTAINER {step.words[0]}")


def _cmd(state: StageState, step: Instruction, escape: str) -> StageState:  # noqa: ARG001 - one signature
    assert isinstance(step, Command)
    words = step.words if step.words is not None else (*state.shell, step.text)
    return state.with_config(replace(state.config, cmd=words), f"CMD {list(words)}", own_command=True)


def _entrypoint(state: StageState, step: Instruction, escape: str) -> StageState:  # noqa: ARG001 - one signature
    assert isinstance(step, Command)
    words = step.words if step.words is not None else (*state.shell, step.text)
    # A base image's arguments are for its own program.
    cmd = state.config.cmd if state.own_command else ()
    return state.with_config(replace(state.config, entrypoint=words, cmd=cmd), f"ENTRYPOINT {list(words)}")


def _shell(state: StageState, step: Instruction, escape: str) -> StageState:  # noqa: ARG001 - one signature
    assert isinstance(step, Command)
    assert step.words is not None
    return state.with_config(replace(state.config, shell=step.words), f"SHELL {list(step.words)}")


def _health(state: StageState, step: Instruction, escape: str) -> StageState:  # noqa: ARG001 - one signature
    assert isinstance(step, Health)
    check = {"Test": list(step.test), **dict(step.options)}
    return state.with_config(replace(state.config, healthcheck=check), f"HEALTHCHECK {step.line.rest}")


def _onbuild(state: StageState, step: Instruction, escape: str) -> StageState:  # noqa: ARG001 - one signature
    assert isinstance(step, Onbuild)
    onbuild = (*state.onbuild, step.text)
    return state.with_config(state.config, f"ONBUILD {step.line.rest}", onbuild=onbuild)


_WRITERS: Mapping[str, Callable[[StageState, Instruction, str], StageState]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
}


def proxies(arguments: Mapping[str, str]) -> dict[str, str]:
    """Those of the arguments that every RUN sees without an ARG."""
    return {name: value for name, value in arguments.items() if name in PREDEFINED}


def epoch_of(arguments: Mapping[str, str], epoch: int | None) -> int | None:
    """The latest time in what is built. Raises ValueError."""
    text = arguments.get(EPOCH)
    if text is None:
        return epoch
    if not text.isdecimal() or len(text) > 12:
        raise ValueError(f"{EPOCH}={text[:40]} is not a number of seconds since 1970")
    return int(text)
