"""One service: what it runs, behind which wall, with what, after whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bulkhead.compose import dotenv
from bulkhead.compose.builds import Build, read_build
from bulkhead.compose.mounts import FileUse, MountUse, read_files, read_mounts, read_ports
from bulkhead.compose.reading import Reader
from bulkhead.compose.resources import Fields, read_plan

LEVELS = ("auto", "chroot", "container", "vm", "unikernel")
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
LABEL = "bulkhead.compose."
"""How labels begin that `up` sets itself."""
MOST_REPLICAS = 1000
_MODES = {"none": "none", "host": "host", "bridge": "default"}


@dataclass(frozen=True, slots=True)
class Dependency:
    """On whom a service depends, and how far that one must be."""

    condition: str = "service_started"
    restart: bool = False
    required: bool = True


@dataclass(frozen=True, slots=True)
class Service:
    """A service as it was asked for. `request` is the body of a create, without what belongs to the project."""

    name: str
    request: dict[str, object]
    image: str
    build: Build | None = None
    pull: str = "missing"
    platform: str | None = None
    depends: dict[str, Dependency] = field(default_factory=dict)
    replicas: int = 1
    profiles: tuple[str, ...] = ()
    attach: bool = True
    container_name: str = ""
    network: str | None = None
    """A key below networks; None: network_mode has said it, or there is none."""
    mounts: tuple[MountUse, ...] = ()
    files: tuple[FileUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What reading a service needs of the world."""

    variables: Mapping[str, str]
    absolute: Callable[[str, Reader], str]
    read: Callable[[str], str]
    """A text file. Raises OSError, UnicodeDecodeError."""
    networks: frozenset[str]
    configs: frozenset[str]
    secrets: frozenset[str]


def read_service(name: str, reader: Reader, around: Surroundings) -> Service:
    """The service; what is wrong with it goes to the reader's troubles."""
    fields = reader.fields("service")
    own = fields["x-bulkhead"].fields("bulkhead") if "x-bulkhead" in fields else {}
    deploy = fields["deploy"].fields("deploy") if "deploy" in fields else {}
    _refuse_false_promises(fields, deploy)
    build = read_build(fields["build"], around.absolute) if "build" in fields else None
    image = _text(fields, "image")
    if image is None and build is None:
        reader.wrong("neither image nor build: what is it to run?")
    network, mode, aliases = _network(fields, around)
    request = {
        **_command(fields),
        **_manner(fields, own, deploy),
        "plan": read_plan(fields, own, deploy),
        "env": _environment(fields, around),
        "labels": _labels(fields, around),
        "network": mode,
        "aliases": list(dict.fromkeys((name, *aliases))) if network is not None else [],
        "ports": read_ports(fields["ports"]) if "ports" in fields else [],
    }
    if "expose" in fields:
        _exposed(fields["expose"])
    replicas = _replicas(fields, deploy)
    container_name = _text(fields, "container_name") or ""
    if container_name and replicas > 1:
        fields["container_name"].wrong(f"there are {replicas} replicas, and a name is one instance's")
    if request["ports"] and replicas > 1:
        fields["ports"].wrong(f"there are {replicas} replicas, and a port of the host is one instance's")
    return Service(
        name=name,
        request={key: value for key, value in request.items() if value not in (None, [], {})},
        image=image or "",
        build=build,
        pull=_pull(fields, build),
        platform=_text(fields, "platform"),
        depends=_depends(fields),
        replicas=replicas,
        profiles=tuple(fields["profiles"].strings()) if "profiles" in fields else (),
        attach=(fields["attach"].truth() if "attach" in fields else None) is not False,
        container_name=container_name,
        network=network,
        mounts=tuple(read_mounts(fields["volumes"], around.absolute)) if "volumes" in fields else (),
        files=_files(fields, around),
    )


def _text(fields: Fields, name: str) -> str | None:
    return fields[name].text() if name in fields else None


def _refuse_false_promises(fields: Fields, deploy: Fields) -> None:
    """Keys of which one value alone is so."""
    for name, why in (
        ("privileged", "nobody is"),
        ("read_only", "an instance's disk is its own"),
        ("oom_kill_disable", "who exceeds its plan's memory is ended"),
        ("init", "a small init is the image's to bring, such as tini"),
    ):
        if name in fields:
            fields[name].only(False, why)
    for name in ("ipc", "cgroup"):
        if name in fields:
            fields[name].only_word(("private",), "every instance has its own")
    for each in fields["security_opt"].items() if "security_opt" in fields else ():
        each.only_word(
            ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"), "walls are the level's"
        )
    if "mode" in deploy:
        deploy["mode"].only_word(("replicated",), "there is one host")
    if "endpoint_mode" in deploy:
        deploy["endpoint_mode"].only_word(("dnsrr",), "a name is answered with the addresses of all instances")


def _command(fields: Fields) -> dict[str, object]:
    found: dict[str, object] = {}
    if "command" in fields:
        found["command"] = fields["command"].words()
    if "entrypoint" in fields:
        # An empty one takes the image's away: it must not be dropped with what is empty.
        found["entrypoint"] = tuple(fields["entrypoint"].words() or ())
    for name, key in (("working_dir", "workdir"), ("user", "user"), ("hostname", "hostname")):
        if name in fields:
            found[key] = fields[name].text()
    for name, key in (("tty", "tty"), ("stdin_open", "stdin")):
        if name in fields:
            found[key] = fields[name].truth() or None
    return found


def _manner(fields: Fields, own: Fields, deploy: Fields) -> dict[str, object]:
    """Its wall, and how it ends, is begun again and looked after."""
    found: dict[str, object] = {"restart": _restart(fields, deploy), "health": _health(fields, own)}
    if "isolation" in own:
        found["isolation"] = own["isolation"].choice(*LEVELS)
    if "trust" in own:
        found["trust"] = own["trust"].choice("own", "partner", "public")
    for name in ("needs_kernel", "hostile_input"):
        if name in own:
            found[name] = own[name].truth() or None
    for name in ("kernel", "inside"):
        found[name] = _text(own, name)
    if "init" in own:
        found["init"] = own["init"].choice("none", "system")
    if "stop_signal" in fields:
        found["stop_signal"] = fields["stop_signal"].text()
    if "stop_grace_period" in fields:
        found["stop_timeout"] = fields["stop_grace_period"].seconds()
    return found


def _restart(fields: Fields, deploy: Fields) -> dict[str, object] | None:
    def parse(text: str) -> dict[str, object]:
        kind, colon, count = text.partition(":")
        if colon and not (kind == "on-failure" and count.isascii() and count.isdigit() and int(count)):
            raise ValueError(f"{text!r}: on-failure alone takes a number of retries")
        known = {"no": "no", "always": "always", "on-failure": "on-failure", "unless-stopped": "always"}
        if kind not in known:
            raise ValueError(f"{text!r} is not one of {', '.join(known)}")
        return {"kind": known[kind], "retries": int(count) if colon else 0}

    older = fields["restart"].parsed(parse) if "restart" in fields else None
    if "restart_policy" not in deploy:
        return older
    policy = deploy["restart_policy"].fields("restart_policy")
    condition = policy["condition"].choice("none", "on-failure", "any") if "condition" in policy else "any"
    attempts = policy["max_attempts"].whole() if "max_attempts" in policy else 0
    if attempts and condition != "on-failure":
        policy["max_attempts"].wrong(f"with the condition {condition} there is no bound", "condition: on-failure")
    kinds = {"none": "no", "on-failure": "on-failure", "any": "always"}
    newer: dict[str, object] = {"kind": kinds[condition or "any"], "retries": attempts or 0}
    if older is not None and older != newer:
        fields["restart"].wrong(f"is not what {deploy['restart_policy'].path} says", "say it once")
    return newer


def _health(fields: Fields, own: Fields) -> dict[str, object] | None:
    action = own["on_unhealthy"].choice("none", "restart") if "on_unhealthy" in own else None
    check = fields["healthcheck"].fields("healthcheck") if "healthcheck" in fields else {}
    times: dict[str, object] = {
        name: check[name].seconds() for name in ("interval", "timeout", "start_period") if name in check
    }
    retries = check["retries"].whole(low=1) if "retries" in check else None
    command: list[str] | None = None
    if "test" in check:
        command = _test(check["test"])
    disabled = "disable" in check and check["disable"].truth()
    if disabled or command == []:
        return None
    if command is None:
        if times or retries or action:
            said = fields.get("healthcheck") or own["on_unhealthy"]
            said.wrong("there is no test: how is it found out whether it is well?")
        return None
    found: dict[str, object] = {"command": command, **times, "retries": retries, "on_unhealthy": action}
    return {key: value for key, value in found.items() if value is not None}


def _test(reader: Reader) -> list[str] | None:
    """The command; [] for none at all."""
    if reader.is_scalar:
        text = reader.text()
        return None if text is None else ["/bin/sh", "-c", text]
    words = reader.strings()
    if words[:1] == ["NONE"] and len(words) == 1:
        return []
    if words[:1] == ["CMD"] and len(words) > 1:
        return words[1:]
    if words[:1] == ["CMD-SHELL"] and len(words) == 2:
        return ["/bin/sh", "-c", words[1]]
    reader.wrong("is not [CMD, word, ...], [CMD-SHELL, text] or [NONE]")
    return None


# --- names and values


def _environment(fields: Fields, around: Surroundings) -> list[str]:
    found: dict[str, str | None] = {}
    if "env_file" in fields:
        reader = fields["env_file"]
        for each in reader.items() if not reader.is_scalar else (reader,):
            found |= _env_file(each, around)
    if "environment" in fields:
        found |= fields["environment"].pairs()
    taken = {name: around.variables.get(name) if value is None else value for name, value in found.items()}
    return [f"{name}={value}" for name, value in taken.items() if value is not None]


def _env_file(reader: Reader, around: Surroundings) -> dict[str, str | None]:
    parts = reader.fields("env_file") if reader.is_mapping else {"path": reader}
    path = parts["path"].text() if "path" in parts else None
    if path is None:
        reader.wrong("path is missing: which file?")
        return {}
    required = (parts["required"].truth() if "required" in parts else True) is not False
    raw = "format" in parts and parts["format"].choice("raw") == "raw"
    try:
        text = around.read(around.absolute(path, reader))
        if raw:
            pairs = [line.partition("=") for line in text.splitlines() if line.strip() and not line.startswith("#")]
            return {key: value if equals else None for key, equals, value in pairs}
        return dotenv.parse(text, around.variables)
    except FileNotFoundError:
        if required:
            reader.wrong(f"there is no file {path}")
    except OSError as error:
        reader.wrong(f"{path} cannot be read: {error.strerror}")
    except ValueError as error:
        reader.wrong(f"{path}: {error}")
    return {}


def _labels(fields: Fields, around: Surroundings) -> dict[str, str]:
    found: dict[str, str | None] = {}
    for path in fields["label_file"].string_or_list() if "label_file" in fields else ():
        try:
            found |= dotenv.parse(around.read(around.absolute(path, fields["label_file"])), {})
        except OSError as error:
            fields["label_file"].wrong(f"{path} cannot be read: {error.strerror}")
        except ValueError as error:
            fields["label_file"].wrong(f"{path}: {error}")
    if "labels" in fields:
        found |= fields["labels"].pairs()
        if own := [name for name in found if name.startswith(LABEL)]:
            fields["labels"].wrong(f"labels that begin with {LABEL} are set by up: {', '.join(own)}")
    return {name: value or "" for name, value in found.items()}


# --- others


def _network(fields: Fields, around: Surroundings) -> tuple[str | None, str | None, list[str]]:
    """Key of its network, the mode where it has none, its other names there."""
    if "network_mode" in fields:
        reader = fields["network_mode"]
        mode = reader.text() or ""
        if mode not in _MODES:
            reader.wrong(f"{mode!r} is not honoured: known are {', '.join(_MODES)}", "put both on one network")
        if "networks" in fields:
            reader.wrong("is there beside networks", "say one of them")
        return None, _MODES.get(mode), []
    if "networks" not in fields:
        return "default", None, []
    reader, aliases = fields["networks"], list[str]()
    if reader.is_mapping:
        names = []
        for key, value, _ in reader.entries():
            names.append(key)
            inner = value.fields("service_network")
            aliases += inner["aliases"].strings() if "aliases" in inner else []
    else:
        names = reader.strings()
    for name in names:
        if name not in around.networks:
            reader.wrong(f"the network {name} is not there", f"add it below networks: {name}:")
    if len(names) > 1:
        reader.wrong(f"an instance is on one network, not on {len(names)}: {', '.join(names)}", "one for all that talk")
    return (names[0], None, aliases) if names else (None, "none", [])


def _depends(fields: Fields) -> dict[str, Dependency]:
    found: dict[str, Dependency] = {}
    for text in fields["links"].strings() if "links" in fields else ():
        name, colon, alias = text.partition(":")
        if colon and alias != name:
            fields["links"].wrong(f"the alias {alias!r} of {text!r} is not honoured", f"a network's aliases, in {name}")
        found[name] = Dependency()
    if "depends_on" not in fields:
        return found
    reader = fields["depends_on"]
    if not reader.is_mapping:
        return found | {name: Dependency() for name in reader.strings()}
    for name, value, _ in reader.entries():
        inner = value.fields("depends_on")
        condition = inner["condition"].choice(*CONDITIONS) if "condition" in inner else CONDITIONS[0]
        found[name] = Dependency(
            condition=condition or CONDITIONS[0],
            restart=bool(inner["restart"].truth()) if "restart" in inner else False,
            required=(inner["required"].truth() if "required" in inner else True) is not False,
        )
    return found


def _replicas(fields: Fields, deploy: Fields) -> int:
    older = fields["scale"].whole() if "scale" in fields else None
    newer = deploy["replicas"].whole() if "replicas" in deploy else None
    if older is not None and newer is not None and older != newer:
        fields["scale"].wrong(f"{older} is not the {newer} of {deploy['replicas'].path}", "say it once")
    count = newer if newer is not None else 1 if older is None else older
    if count > MOST_REPLICAS:
        (deploy.get("replicas") or fields["scale"]).wrong(f"{count} is more than {MOST_REPLICAS}")
        return 1
    return count


def _exposed(reader: Reader) -> None:
    for each in reader.items():
        text = each.text() or ""
        port, _, protocol = text.partition("/")
        first, _, last = port.partition("-")
        if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 65535 for part in (first, last or first)):
            each.wrong(f"{text!r} is not a port")
        if protocol not in ("", "tcp", "udp"):
            each.wrong(f"{protocol!r} is not tcp or udp")


def _pull(fields: Fields, build: Build | None) -> str:
    if "pull_policy" not in fields:
        return "missing"
    reader = fields["pull_policy"]
    policy = reader.choice("always", "missing", "if_not_present", "never", "build")
    if policy == "build" and build is None:
        reader.wrong("there is no build")
    return "missing" if policy in (None, "if_not_present") else policy


def _files(fields: Fields, around: Surroundings) -> tuple[FileUse, ...]:
    found = []
    for kind, known in (("config", around.configs), ("secret", around.secrets)):
        for use, said in read_files(fields[f"{kind}s"], kind) if f"{kind}s" in fields else ():
            if use.source not in known:
                said.wrong(f"there is no {kind} {use.source!r}", f"add it below {kind}s:")
            found.append(use)
    return tuple(found)
