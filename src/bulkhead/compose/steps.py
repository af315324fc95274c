"""What is to be done, as data: steps, and which of them come after which. Whoever carries them out decides nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bulkhead.compose.project import Project
from bulkhead.compose.services import LABEL, Service

PROJECT, SERVICE, NUMBER = f"{LABEL}project", f"{LABEL}service", f"{LABEL}number"
HASH, NAME, DEPENDS = f"{LABEL}hash", f"{LABEL}name", f"{LABEL}depends"
NETWORK, VOLUMES = f"{LABEL}network", f"{LABEL}volumes"
"""Labels of instances. NAME is the instance's own: a clone has the labels, and another name. NETWORK and VOLUMES are
what the project has made for it."""
GOING = ("running", "paused")
HALF = ("creating", "deleting")


@dataclass(frozen=True, slots=True)
class Existing:
    """An instance of the project as it is."""

    id: str
    name: str
    state: str
    service: str
    number: int
    hash: str = ""
    image_digest: str = ""
    depends: tuple[str, ...] = ()
    network: str = ""
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """What there is before anything is done."""

    instances: tuple[Existing, ...] = ()
    networks: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    images: Mapping[str, str] = field(default_factory=dict)
    """Digest by service, of those whose image is there."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Digest of each config, by "config/NAME"; id of each secret's value in the daemon, by "secret/NAME"."""
    secrets: frozenset[str] = frozenset()
    """Names of the secrets that the project has made."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do with `subject`, after all of `after` (keys of other steps)."""

    verb: str
    """network, volume, pull, build, create, start, stop, remove, healthy, completed, drop-network, drop-secret,
    drop-volume."""
    subject: str
    service: str = ""
    after: tuple[str, ...] = ()
    request: Mapping[str, object] = field(default_factory=dict)
    tolerated: bool = False
    """What comes after goes on where this fails."""

    @property
    def key(self) -> str:
        """How other steps name it."""
        return f"{self.verb} {self.subject}{'?' if self.tolerated else ''}"


@dataclass(frozen=True, slots=True)
class How:
    """What `up` was told."""

    build: bool = False
    force: bool = False
    recreate: bool = True
    remove_orphans: bool = False
    start: bool = True
    wait: bool = False
    scale: Mapping[str, int] = field(default_factory=dict)


def existing(record: Mapping[str, object], project: str) -> Existing | None:
    """An instance's record, where it is the project's; None for all others, clones of the project's among them."""
    spec = record["spec"]
    assert isinstance(spec, dict)
    labels = spec["labels"]
    if labels.get(PROJECT) != project or labels.get(NAME) != spec["name"]:
        return None
    number = labels.get(NUMBER, "")
    return Existing(
        id=spec["id"],
        name=spec["name"],
        state=str(record["state"]),
        service=labels.get(SERVICE, ""),
        number=int(number) if number.isascii() and number.isdigit() else 0,
        hash=labels.get(HASH, ""),
        image_digest=spec["image_digest"],
        depends=tuple(filter(None, labels.get(DEPENDS, "").split(","))),
        network=labels.get(NETWORK, ""),
        volumes=tuple(filter(None, labels.get(VOLUMES, "").split(","))),
    )


# --- up


def images(project: Project, chosen: Sequence[str], world: World, how: How) -> list[Step]:
    """The images that are to be built or pulled first; what is made anew depends on what comes of it."""
    steps = []
    for name in chosen:
        service = project.services[name]
        there = name in world.images
        if service.build and (how.build or service.pull == "build" or not there):
            steps.append(Step("build", name, name))
        elif not service.build and service.pull != "never" and (service.pull == "always" or not there):
            request = {"policy": service.pull, "platform": service.platform}
            steps.append(Step("pull", service.image, name, request=request))
    return list({step.key: step for step in steps}.values())


def up(project: Project, chosen: Sequence[str], world: World, how: How) -> list[Step]:
    """The steps that make the world what the project says: only what has changed is made anew, volumes stay."""
    shared = _shared(project, chosen, world)
    steps, anew, starts = list(shared), set[str](), dict[str, list[str]]()
    after = tuple(step.key for step in shared)
    for name in chosen:
        service = project.services[name]
        own = [each for each in world.instances if each.service == name]
        wanted = how.scale.get(name, service.replicas)
        starts[name] = []
        linked = any(link.restart and other in anew for other, link in service.depends.items())
        for number in range(1, wanted + 1):
            request = request_of(project, service, number, world.files)
            found = next((each for each in own if each.number == number), None)
            fresh = found is None or linked or _changed(found, request, world.images.get(name), how)
            if fresh:
                anew.add(name)
            made = _instance(found, service, request, after, fresh=fresh, how=how)
            steps += made
            starts[name] += [step.key for step in made if step.verb == "start"]
        surplus = [each for each in own if not 1 <= each.number <= wanted]
        steps += [step for each in surplus for step in _removal(each)]
    if how.remove_orphans:
        steps += [step for each in orphans(project, world) for step in _removal(each)]
    return _ordered(steps, project, chosen, starts, how)


def orphans(project: Project, world: World) -> list[Existing]:
    """Instances of the project whose service the file no longer has."""
    return [each for each in world.instances if each.service not in project.services]


def _changed(found: Existing, request: Mapping[str, object], digest: str | None, how: How) -> bool:
    """Whether an instance is to be made anew. `digest`: of the image that it would have."""
    if found.state in HALF or how.force:
        return True
    labels = request["labels"]
    assert isinstance(labels, dict)
    return how.recreate and (found.hash != labels[HASH] or digest not in (None, found.image_digest))


def _shared(project: Project, chosen: Sequence[str], world: World) -> list[Step]:
    """Networks and volumes that are wanted and not there. External ones are not made: a start says what is missing."""
    networks = [project.services[name].network for name in chosen]
    volumes = [mount.source for name in chosen for mount in project.services[name].mounts if mount.kind == "volume"]
    steps = []
    for key in dict.fromkeys(each for each in networks if each):
        use = project.networks[key]
        if not use.external and use.name not in world.networks:
            subnets = {"subnet4": use.subnet4 or None, "subnet6": use.subnet6 or None}
            steps.append(Step("network", use.name, request={"name": use.name, **subnets}))
    for key in dict.fromkeys(volumes):
        volume = project.volumes[key]
        if not volume.external and volume.name not in world.volumes:
            steps.append(Step("volume", volume.name, request={"name": volume.name, "size": volume.size}))
    return steps


def _instance(
    found: Existing | None,
    service: Service,
    request: Mapping[str, object],
    after: tuple[str, ...],
    *,
    fresh: bool,
    how: How,
) -> list[Step]:
    name = str(request["name"])
    steps: list[Step] = []
    create: tuple[str, ...] = ()
    if fresh:
        old = _removal(found, after) if found else []
        made = Step("create", name, service.name, (*after, *(step.key for step in old)), request)
        steps, create = [*old, made], (made.key,)
    if how.start and (fresh or not found or found.state not in GOING):
        steps.append(Step("start", name, service.name, create))
    return steps


def _removal(found: Existing, after: tuple[str, ...] = ()) -> list[Step]:
    stop = [Step("stop", found.name, found.service, after)] if found.state in (*GOING, "starting", "stopping") else []
    return [*stop, Step("remove", found.name, found.service, (*after, *(step.key for step in stop)))]


def _ordered(
    steps: list[Step], project: Project, chosen: Sequence[str], starts: Mapping[str, list[str]], how: How
) -> list[Step]:
    """Starts after what their services depend on; what is waited for."""
    gates: dict[str, Step] = {}
    waits: dict[str, list[str]] = {}
    for name in chosen:
        for other, link in project.services[name].depends.items():
            if other not in chosen:
                continue
            verb = {"service_healthy": "healthy", "service_completed_successfully": "completed"}.get(link.condition)
            if verb:
                gate = Step(verb, other, other, tuple(starts[other]), tolerated=not link.required)
                gates[gate.key] = gate
                waits.setdefault(name, []).append(gate.key)
            else:
                waits.setdefault(name, []).extend(starts[other])
    if how.wait:
        for name in chosen:
            verb = "healthy" if "health" in project.services[name].request else "running"
            gate = Step(verb, name, name, tuple(starts[name]))
            gates.setdefault(gate.key, gate)
    ordered = []
    for step in steps:
        extra = waits.get(step.service, []) if step.verb == "start" else []
        ordered.append(replace(step, after=(*step.after, *extra)))
    needed = {key for step in ordered for key in step.after}
    return [*ordered, *(gate for key, gate in gates.items() if key in needed or gate.verb == "running" or how.wait)]


# --- one instance


def request_of(project: Project, service: Service, number: int, files: Mapping[str, str]) -> dict[str, object]:
    """The body of the create of a service's instance. `files`: digests of configs and secrets, which count as well."""
    request = dict(service.request)
    name = service.container_name or f"{project.name}-{service.name}-{number}"
    request |= {"name": name, "image": image_of(project, service)}
    network = project.networks[service.network] if service.network else None
    if network:
        request["network"] = network.name
    volumes = [project.volumes[mount.source] for mount in service.mounts if mount.kind == "volume"]
    if service.mounts:
        request["mounts"] = mounts_of(project, service)
    if secrets := secrets_of(project, service):
        request["secrets"] = secrets
    contents = {f"{use.kind}/{use.source}@{use.target}": files.get(f"{use.kind}/{use.source}") for use in service.files}
    text = json.dumps([{**request, "name": ""}, contents], sort_keys=True)
    given = service.request.get("labels", {})
    assert isinstance(given, dict)
    request["labels"] = {
        **given,
        PROJECT: project.name,
        SERVICE: service.name,
        NUMBER: str(number),
        NAME: name,
        HASH: hashlib.sha256(text.encode()).hexdigest()[:32],
        DEPENDS: ",".join(service.depends),
        NETWORK: network.name if network and not network.external else "",
        VOLUMES: ",".join(volume.name for volume in volumes if not volume.external),
    }
    return request


def mounts_of(project: Project, service: Service) -> list[dict[str, object]]:
    """The volumes and paths that a service mounts, as the API takes them."""
    return [
        {
            "kind": mount.kind,
            "source": project.volumes[mount.source].name if mount.kind == "volume" else mount.source,
            "target": mount.target,
            "read_only": mount.read_only,
        }
        for mount in service.mounts
    ]


def secrets_of(project: Project, service: Service) -> list[dict[str, object]]:
    """The secrets that a service gets, as the API takes them."""
    return [
        {
            "source": project.secrets[use.source].name,
            "target": use.target,
            "uid": use.owner[0],
            "gid": use.owner[1],
            "mode": use.mode,
        }
        for use in service.files
        if use.kind == "secret"
    ]


def image_of(project: Project, service: Service) -> str:
    """What its image is called: as it says, else after the project and the service."""
    return service.image or f"{project.name}-{service.name}:latest"


# --- down, stop


def stops(instances: Sequence[Existing]) -> list[Step]:
    """Stop what runs, each service before those that it depends on."""
    going = [each for each in instances if each.state in (*GOING, "starting", "stopping")]
    return [
        Step(
            "stop",
            each.name,
            each.service,
            tuple(f"stop {user.name}" for user in going if each.service in user.depends),
        )
        for each in going
    ]


def down(world: World, networks: Sequence[str], volumes: Sequence[str]) -> list[Step]:
    """Stop and remove everything of a project; then these networks, and these volumes with their data."""
    steps = stops(world.instances)
    stopped = {step.subject: step.key for step in steps}
    removals = [
        Step("remove", each.name, each.service, (stopped[each.name],) if each.name in stopped else ())
        for each in world.instances
    ]
    after = tuple(step.key for step in removals)
    steps += removals
    steps += [Step("drop-network", name, after=after) for name in dict.fromkeys(networks) if name in world.networks]
    steps += [Step("drop-secret", name, after=after) for name in sorted(world.secrets)]
    return steps + [Step("drop-volume", name, after=after) for name in dict.fromkeys(volumes) if name in world.volumes]


VERBS = {
    "network": "make the network",
    "volume": "make the volume",
    "pull": "pull the image",
    "build": "build the image of",
    "create": "create the instance",
    "start": "start the instance",
    "stop": "stop the instance",
    "remove": "remove the instance",
    "healthy": "wait until healthy:",
    "running": "wait until running:",
    "completed": "wait until it has ended well:",
    "drop-network": "remove the network",
    "drop-secret": "remove the secret",
    "drop-volume": "remove the volume, with its data:",
}


def words(step: Step) -> str:
    """A step in words, for --dry-run."""
    return f"{VERBS[step.verb]} {step.subject}"
