"""From what a user asked for to a spec that can be run: plans, image defaults, names, and every objection at once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bulkhead.advise import Workload, choose
from bulkhead.engine import inits, unikernels, unmodified
from bulkhead.engine.fleet import taking
from bulkhead.engine.names import generate_name
from bulkhead.errors import Problem, Refused
from bulkhead.images import Image, ImageConfig
from bulkhead.isolation.vmm import MAX_INNER
from bulkhead.model import DEFAULT_TENANT, Choice, CreateRequest, HealthCheck, Isolation, Network, Plan, Spec
from bulkhead.quantities import parse_signal

SHARED_NETWORKS = ("none", "host")
DEFAULT_INNER = 2
"""Instances that a VM can hold where nobody says how many."""


def decide_level(request: CreateRequest, image: Image | None) -> tuple[Isolation, Choice | None]:
    """The level that was asked for, or the one that the rules find for what is known of the workload."""
    if request.isolation != "auto":
        return request.isolation, None
    workload = Workload(
        trust=request.trust or "public",
        hostile_input=request.hostile_input,
        needs_kernel=request.needs_kernel,
        system=image is not None and image.kind == "disk",
        shares_network=request.network == "host",
    )
    rule = choose(workload)
    choice = Choice(
        rule=rule.number,
        reason=rule.because,
        trust=workload.trust,
        needs_kernel=workload.needs_kernel,
        hostile_input=workload.hostile_input,
    )
    return rule.level, choice


def resolve_spec(
    request: CreateRequest,
    image: Image,
    plan: Plan,
    *,
    taken_names: Sequence[str],
    level: Isolation,
    choice: Choice | None = None,
) -> Spec:
    """Put the request over the image's configuration. Raises Refused with every problem found."""
    taken = taking.current()
    identifier = taken.place.id if taken else secrets.token_hex(16)
    whole, program = image.disk is not None, unikernels.program_of(request, image)
    argv = request.command if program else inits.command_line(request, image.config)
    if problems := _problems(request, image, plan, level, argv=None if program else argv):
        raise Refused(problems)
    return Spec(
        id=identifier,
        name=request.name or (taken.place.name if taken else generate_name(taken_names)),
        tenant=request.tenant or DEFAULT_TENANT,
        image=request.image,
        image_digest=image.digest,
        architecture=image.architecture,
        isolation=level,
        choice=choice,
        kernel=request.kernel or "",
        cpu_model=taken.place.cpu_model if taken and level is Isolation.VM else "",
        cold=request.cold or bool(request.disks),
        inner=inner_of(request, level, whole=whole or program is not None),
        system=unmodified.system_of(request, image),
        program=program,
        init=request.init,
        plan=plan,
        plan_name=request.plan.name or "",
        argv=() if whole else argv,
        env=merge_environment(image.config.env, request.env),
        workdir=request.workdir or image.config.workdir or "/",
        user=inits.user(request, image.config),
        hostname=request.hostname or identifier[:12],
        aliases=tuple(dict.fromkeys(request.aliases)),
        labels={**image.config.labels, **request.labels},
        network=network_of(request, level),
        ports=request.ports,
        mounts=request.mounts,
        disks=request.disks,
        secrets=request.secrets,
        # A system's console is a terminal, for its messages and whoever attaches.
        tty=request.tty or inits.is_system(request),
        stdin=request.stdin,
        restart=request.restart,
        health=request.health or image_health(image.config),
        stop_signal=inits.stop_signal(request, image.config),
        stop_timeout=unmodified.stop_seconds(request) if whole else inits.stop_seconds(request),
        auto_remove=request.auto_remove,
        where=request.where,
        created=time.time(),
    )


def _problems(
    request: CreateRequest, image: Image, plan: Plan, level: Isolation, *, argv: Sequence[str] | None
) -> list[Problem]:
    """What the image cannot do of what is asked for. `argv`: None for a unikernel."""
    if image.disk is not None:
        return unmodified.problems(request, image, plan, level=level)
    if argv is None:
        return [*unikernels.problems(request, image, level=level), *unmodified.misplaced(request)]
    return [
        *(unikernels.misplaced(image, level) or _argv_problems(argv, image)),
        *unmodified.misplaced(request),
        *signal_problems(request.stop_signal or image.config.stop_signal),
    ]


def inner_of(request: CreateRequest, level: Isolation, *, whole: bool) -> int:
    """Instances that it can hold: a VM with Bulkhead's own agent alone can hold any."""
    if level is not Isolation.VM or whole or request.disks:
        return 0
    return DEFAULT_INNER if request.inner is None else request.inner


def network_of(request: CreateRequest, level: Isolation) -> str:
    """The network asked for, or the level's usual one."""
    return request.network or ("host" if level is Isolation.CHROOT else "default")


def merge_environment(*layers: Sequence[str]) -> tuple[str, ...]:
    """Later settings win; the order of first appearance is kept."""
    merged: dict[str, str] = {}
    for layer in layers:
        for entry in layer:
            key, _, value = entry.partition("=")
            merged[key] = value
    return tuple(f"{key}={value}" for key, value in merged.items())


def image_health(config: ImageConfig) -> HealthCheck | None:
    """The image's HEALTHCHECK (Docker's form, times in nanoseconds), or None."""
    check = config.healthcheck
    if not check:
        return None
    test = check.get("Test")
    if not isinstance(test, list) or len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL"):
        return None
    command = ("/bin/sh", "-c", str(test[1])) if test[0] == "CMD-SHELL" else tuple(map(str, test[1:]))

    def seconds(key: str, usual: float) -> float:
        value = check.get(key)
        return value / 1e9 if isinstance(value, int) and value > 0 else usual

    retries = check.get("Retries")
    return HealthCheck(
        command=command,
        interval=seconds("Interval", 30.0),
        timeout=seconds("Timeout", 30.0),
        start_period=seconds("StartPeriod", 0.0),
        retries=retries if isinstance(retries, int) and retries > 0 else 3,
    )


def request_problems(
    request: CreateRequest, level: Isolation, *, networks: Mapping[str, Network], drivers: Sequence[Isolation]
) -> list[Problem]:
    """What can be said without the image: the level, the network, the sources of the mounts."""
    problems = _level_problems(request, level, drivers)
    network = request.network
    if network and network not in SHARED_NETWORKS and network not in networks:
        problems.append(Problem(f"network {network!r} does not exist", f"bulkhead network create {network}"))
    if network in SHARED_NETWORKS and level is not Isolation.CHROOT and request.ports:
        problems.append(Problem(f"ports cannot be published with network {network!r}", "leave out -p or --network"))
    problems += [
        Problem(f"{mount.source} does not exist", "make it first, or name a volume (no slash) instead")
        for mount in request.mounts
        if mount.kind == "bind" and not Path(mount.source).exists()
    ]
    targets = [mount.target.rstrip("/") for mount in request.mounts]
    problems += [
        Problem(f"{target or '/'} is mounted twice", "give each mount a target of its own")
        for target in sorted({target for target in targets if targets.count(target) > 1})
    ]
    if request.auto_remove and request.restart.kind != "no":
        problems.append(Problem(f"--rm and --restart {request.restart.kind} exclude each other", "give only one"))
    return problems


def _level_problems(request: CreateRequest, level: Isolation, drivers: Sequence[Isolation]) -> list[Problem]:
    problems = []
    if level not in drivers:
        have = ", ".join(drivers)
        problems.append(Problem(f"isolation {level} is not available here", f"use one of: {have}"))
    machine = level is Isolation.VM or request.inside == "new"
    if request.cold and not (machine or level is Isolation.UNIKERNEL):
        problems.append(Problem(f"a {level} has no template to start from", "leave out --no-template"))
    if request.inner is not None and level is not Isolation.VM:
        problems.append(Problem(f"a {level} holds no instances", "leave out --inner, or use --isolation vm"))
    if (request.inner or 0) > MAX_INNER:
        what = f"{request.inner} instances are more than a VM can hold"
        problems.append(Problem(what, f"at most --inner {MAX_INNER}"))
    if request.kernel and not machine:
        problems.append(Problem(f"a {level} has the host's kernel, not {request.kernel}", "use --isolation vm"))
    facts = {
        "--trust": request.trust is not None,
        "--needs-kernel": request.needs_kernel,
        "--hostile-input": request.hostile_input,
    }
    told = [flag for flag, given in facts.items() if given]
    if told and request.isolation != "auto":
        what = f"{', '.join(told)} decides nothing where the level is given: {level}"
        problems.append(Problem(what, "use --isolation auto"))
    return problems


def _argv_problems(argv: Sequence[str], image: Image) -> list[Problem]:
    if image.kind != "rootfs":
        name = image.references[0] if image.references else image.digest
        hint = f"run another image with --isolation vm --kernel {name}" if image.kind == "kernel" else ""
        return [Problem(f"image {name} is a {image.kind}, not a root file system", hint)]
    if not argv:
        name = image.references[0] if image.references else image.digest
        return [Problem(f"image {name} has no command of its own and none was given", "name one after the image")]
    return [Problem(f"argument {word!r} holds a NUL byte") for word in argv if "\0" in word]


def signal_problems(name: str | None) -> list[Problem]:
    try:
        parse_signal(name or "TERM")
    except ValueError as error:
        return [Problem(str(error), "use a name such as TERM or a number such as 15")]
    return []
