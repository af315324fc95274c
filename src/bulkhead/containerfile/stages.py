"""Stages: what a Containerfile's instructions come to, which of them are needed, and what waits for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bulkhead.containerfile import lines, syntax
from bulkhead.containerfile.instructions import Copy, From, Instruction, Pairs, Run
from bulkhead.containerfile.words import expand
from bulkhead.errors import NotFound, Problem, Refused

SCRATCH = "scratch"
MOST_STAGES = 200
PREDEFINED = (
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy",
    "ALL_PROXY", "all_proxy",
)  # fmt: skip
"""Arguments that every RUN sees without an ARG, and that are no part of what a step is known by."""
EPOCH = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM with what follows it."""

    number: int
    name: str
    base: str
    """An image's name, "scratch", or with `base_stage` a stage's."""
    base_stage: int | None
    start: From
    steps: tuple[Instruction, ...]
    needs: tuple[int, ...]
    """Stages that it takes files of or begins with."""

    @property
    def shown(self) -> str:
        """What it is called in messages."""
        return self.name or f"stage-{self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A Containerfile that is to be carried out."""

    stages: tuple[Stage, ...]
    """Those that are needed, in the order of the file; the last is the one that is wanted."""
    arguments: Mapping[str, str]
    """What stands before the first FROM, with what was given in its place."""
    escape: str
    unused: tuple[str, ...]
    """Arguments that were given and no ARG asks for."""

    @property
    def images(self) -> dict[str, int]:
        """The images that it begins with or takes files of, with the line that names each first."""
        found: dict[str, int] = {}
        for stage in self.stages:
            if stage.base_stage is None and stage.base.lower() != SCRATCH:
                found.setdefault(stage.base, stage.start.line.number)
            earlier = [each for each in self.stages if each.number < stage.number]
            for step in stage.steps:
                for origin in _origins(step):
                    if find_stage(earlier, origin) is None:
                        found.setdefault(origin, step.line.number)
        return found

    @property
    def target(self) -> Stage:
        """The stage that becomes the image."""
        return self.stages[-1]


def plan(data: bytes, *, given: Mapping[str, str], target: str = "", platform: str = "linux/amd64") -> Plan:
    """Read a Containerfile. Raises Refused with everything that is wrong, NotFound where there is no such target."""
    text = lines.read(data)
    found = syntax.parse_all(text.lines, text.escape)
    before, groups = _grouped(found)
    arguments = _global_arguments(before, given, text.escape, platform)
    stages, problems = list[Stage](), list[Problem]()
    for group in groups:
        stage, wrong = _stage(group, stages, arguments, escape=text.escape, platform=platform)
        stages.append(stage)
        problems += wrong
    if problems:
        raise Refused(problems)
    wanted = _needed(stages, _find(stages, target) if target else stages[-1])
    return Plan(tuple(wanted), arguments, text.escape, _unused(found, given))


def _grouped(found: Sequence[Instruction]) -> tuple[list[Pairs], list[list[Instruction]]]:
    before: list[Pairs] = []
    groups: list[list[Instruction]] = []
    for instruction in found:
        if isinstance(instruction, From):
            groups.append([instruction])
        elif groups:
            groups[-1].append(instruction)
        elif isinstance(instruction, Pairs) and instruction.line.keyword == "ARG":
            before.append(instruction)
        else:
            what = f"line {instruction.line.number}: {instruction.line.keyword} stands before the first FROM"
            raise Refused(what, hint="only ARG may")
    if not groups:
        raise Refused("the Containerfile has no FROM", hint="it begins with FROM IMAGE")
    if len(groups) > MOST_STAGES:
        raise Refused(f"the Containerfile has more than {MOST_STAGES} stages")
    return before, groups


def platform_arguments(platform: str) -> dict[str, str]:
    """What BuildKit calls the platforms; both are this host's."""
    system, _, machine = platform.partition("/")
    return {
        f"{side}{name}": value
        for side in ("BUILD", "TARGET")
        for name, value in (("PLATFORM", platform), ("OS", system), ("ARCH", machine), ("VARIANT", ""))
    }


def _global_arguments(before: Sequence[Pairs], given: Mapping[str, str], escape: str, platform: str) -> dict[str, str]:
    found = platform_arguments(platform)
    for instruction in before:
        for name, value in instruction.pairs:
            try:
                if name in given:
                    found[name] = given[name]
                elif value is not None:
                    found[name] = expand(value, found, escape)
            except ValueError as error:
                raise Refused(f"line {instruction.line.number}: {error}") from error
    return found


def _stage(
    group: Sequence[Instruction], earlier: Sequence[Stage], arguments: Mapping[str, str], *, escape: str, platform: str
) -> tuple[Stage, list[Problem]]:
    number = len(earlier)
    start = group[0]
    assert isinstance(start, From)
    problems = []
    base, wanted = start.image, start.platform
    try:
        base = expand(start.image, arguments, escape)
        wanted = expand(start.platform, arguments, escape)
        if not base:
            raise ValueError(f"FROM {start.image} comes to nothing: which image?")
        if wanted not in ("", platform):
            raise ValueError(f"--platform={wanted}: this host builds {platform}")
        if start.name and any(stage.name == start.name for stage in earlier):
            raise ValueError(f"there are two stages {start.name}")
    except ValueError as error:
        problems.append(Problem(f"line {start.line.number}: {error}"))
    base_stage = next((stage.number for stage in earlier if stage.name and stage.name == base.lower()), None)
    needs = set() if base_stage is None else {base_stage}
    for step in group[1:]:
        for origin in _origins(step):
            if origin.lower() == start.name or (origin.isdecimal() and int(origin) >= number):
                problems.append(Problem(f"line {step.line.number}: stage {origin} is not there yet"))
            elif (other := find_stage(earlier, origin)) is not None:
                needs.add(other.number)
    made = Stage(
        number, start.name, base, base_stage, replace(start, image=base), tuple(group[1:]), tuple(sorted(needs))
    )
    return made, problems


def _origins(step: Instruction) -> list[str]:
    if isinstance(step, Copy):
        return [step.origin] if step.origin else []
    return [mount.origin for mount in step.mounts if mount.origin] if isinstance(step, Run) else []


def find_stage(stages: Sequence[Stage], name: str) -> Stage | None:
    """The stage of a name or a number; None: it is an image."""
    for stage in stages:
        if stage.name == name.lower() or (name.isdecimal() and stage.number == int(name)):
            return stage
    return None


def _find(stages: Sequence[Stage], name: str) -> Stage:
    found = find_stage(stages, name)
    if found is None:
        known = ", ".join(stage.name for stage in stages if stage.name)
        raise NotFound(f"the Containerfile has no stage {name!r}", hint=f"it has {known}" if known else "it names none")
    return found


def _needed(stages: Sequence[Stage], wanted: Stage) -> list[Stage]:
    needed, pending = {wanted.number}, [wanted]
    while pending:
        for number in pending.pop().needs:
            if number not in needed:
                needed.add(number)
                pending.append(stages[number])
    return [stages[number] for number in sorted(needed)]


def _unused(found: Sequence[Instruction], given: Mapping[str, str]) -> tuple[str, ...]:
    asked = {
        name
        for instruction in found
        if isinstance(instruction, Pairs) and instruction.line.keyword == "ARG"
        for name, _ in instruction.pairs
    }
    return tuple(name for name in given if name not in asked and name not in PREDEFINED and name != EPOCH)
