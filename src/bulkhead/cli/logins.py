"""Logins as podman and docker keep them: auth.json, config.json, and the helpers that these name.

containers-auth.json(5) is the reference. Only this side reads them: the daemon is told what one request needs.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

from bulkhead.cli.parsing import Namespace
from bulkhead.errors import BulkheadError, Refused
from bulkhead.host.processes import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
"""What docker calls its own registry in config.json."""
TOKEN_USER = "<token>"  # noqa: S105 - what helpers write for a user where they keep a token
HELPER_SECONDS = 60.0


def host_of(text: str) -> str:
    """The host of a registry as a user names it."""
    host = text.removeprefix("https://").removeprefix("http://").removeprefix("docker://").partition("/")[0]
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = HUB
    if not host or not host.isprintable() or " " in host:
        raise Refused(f"{text!r} is no registry", hint="its host, such as quay.io or localhost:5000")
    return host


def own_file(given: str | None) -> Path:
    """Where logins are written."""
    named = given or os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        return Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "containers/auth.json") if runtime else Path(f"/run/containers/{os.getuid()}/auth.json")


def files(given: str | None) -> list[Path]:
    """Where logins are looked for, in this order."""
    if given or os.environ.get("REGISTRY_AUTH_FILE"):
        return [own_file(given)]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return [own_file(None), config / "containers/auth.json", docker / "config.json"]


def for_sources(sources: Sequence[dict[str, Any]], given: str | None) -> list[dict[str, str]]:
    """The logins for registries that a request may talk to; at most one for each."""
    if given and not Path(given).exists():
        raise Refused(f"there is no file {given} of logins", hint="bulkhead image login --authfile makes one")
    documents = [(path, _read(path)) for path in files(given) if path.exists()]
    found: dict[str, dict[str, str]] = {}
    for source in sources:
        for path, document in documents:
            if source["registry"] in found:
                break
            login = _lookup(document, path, source["registry"], source["repository"])
            if login:
                found[source["registry"]] = {"registry": source["registry"], **login}
    return list(found.values())


def _lookup(document: dict[str, Any], path: Path, registry: str, repository: str) -> dict[str, str] | None:
    """A login in one file: that of the repository or what is above it, else the registry's."""
    auths, helpers = document["auths"], document["credHelpers"]
    keys = list(_keys(registry, repository))
    for key in keys:
        if key in helpers:
            return _helped(helpers[key], registry)
        entry = auths.get(key)
        if entry and (login := _entry(entry, path, key)):
            return login
    if store := document["credsStore"]:
        return _helped(store, HUB_KEY if registry == HUB else registry)
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    parts = repository.split("/") if repository else []
    for end in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:end]])
    yield registry
    if registry == HUB:
        yield from (HUB_KEY, "index.docker.io", "registry-1.docker.io")
    yield from (f"https://{registry}", f"https://{registry}/", f"https://{registry}/v2/", f"https://{registry}/v1/")


def _entry(entry: dict[str, Any], path: Path, key: str) -> dict[str, str] | None:
    login: dict[str, str] = {}
    if entry.get("auth"):
        try:
            text = base64.b64decode(entry["auth"], validate=True).decode().rstrip("\0")
        except (ValueError, TypeError) as error:
            raise Refused(f"{path}: the login of {key} is damaged", hint=f"bulkhead image login {key}") from error
        login["username"], _, login["password"] = text.partition(":")
    elif entry.get("username"):
        login = {"username": str(entry["username"]), "password": str(entry.get("password", ""))}
    if entry.get("identitytoken"):
        login |= {"username": login.get("username", ""), "identity_token": str(entry["identitytoken"])}
    return login or None


def _helped(helper: str, registry: str) -> dict[str, str] | None:
    """What a helper program keeps; None where it has nothing for this registry."""
    program = f"docker-credential-{helper}"
    try:
        answer = json.loads(run([program, "get"], stdin=registry.encode(), timeout=HELPER_SECONDS))
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except BulkheadError as error:
        if "credentials not found" in error.what:
            return None
        raise Refused(f"{program}: {error.what}", hint=error.hint) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{program} answered with what is no login") from error
    if username == TOKEN_USER:
        return {"username": "", "identity_token": secret}
    return {"username": username, "password": secret}


# --- changes


def ask(args: Namespace) -> tuple[str, str]:
    """The name and the password, from the arguments, stdin or the terminal. Raises Refused."""
    if args.password is not None and args.password_stdin:
        raise Refused("--password and --password-stdin exclude one another")
    if args.password_stdin:
        if not args.username:
            raise Refused("--password-stdin needs --username")
        return args.username, sys.stdin.readline().rstrip("\r\n")
    if args.username and args.password is not None:
        return args.username, args.password
    if not sys.stdin.isatty():
        raise Refused("there is no terminal to ask for the login", hint="--username NAME --password-stdin")
    from getpass import getpass

    sys.stderr.write("" if args.username else "Username: ")
    sys.stderr.flush()
    username = args.username or sys.stdin.readline().strip()
    return username, args.password if args.password is not None else getpass("Password: ", sys.stderr)


def save(registry: str, username: str, password: str, given: str | None) -> str:
    """Keep a login; where, in words."""
    path = own_file(given)
    document = _raw(path)
    helper = document.get("credHelpers", {}).get(registry) or document.get("credsStore")
    if helper:
        program = f"docker-credential-{helper}"
        entry = {"ServerURL": HUB_KEY if registry == HUB else registry, "Username": username, "Secret": password}
        run([program, "store"], stdin=json.dumps(entry).encode(), timeout=HELPER_SECONDS)
        return program
    auths = document.setdefault("auths", {})
    auths[registry] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    _write(path, document)
    return str(path)


def forget(registry: str | None, given: str | None) -> list[str]:
    """Forget the login of a registry, None: of all; what was done, in words."""
    path = own_file(given)
    document = _raw(path)
    auths = document.get("auths", {})
    keys = [*auths] if registry is None else [key for key in _keys(registry, "") if key in auths]
    for key in keys:
        del auths[key]
    if keys:
        _write(path, document)
    done = [f"forgot the login of {key}" for key in keys]
    helper = registry and (document.get("credHelpers", {}).get(registry) or document.get("credsStore"))
    if helper:
        run(
            [f"docker-credential-{helper}", "erase"],
            stdin=registry.encode() if registry else b"",
            timeout=HELPER_SECONDS,
        )
        done.append(f"docker-credential-{helper} forgot the login of {registry}")
    if not done and registry and for_sources([{"registry": registry, "repository": ""}], given):
        raise Refused(f"the login of {registry} is not in {path}", hint="another program keeps it: log out there")
    return done or [f"there was no login of {registry}" if registry else "there was no login"]


def _raw(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}", hint="it is to be JSON, as podman writes it") from error
    if not isinstance(document, dict):
        raise Refused(f"{path} is no JSON object", hint="it is to be JSON, as podman writes it")
    return document


def _read(path: Path) -> dict[str, Any]:
    """The parts that count, each of its type."""
    document = _raw(path)
    found: dict[str, Any] = {"credsStore": str(document.get("credsStore") or "")}
    for key in ("auths", "credHelpers"):
        part = document.get(key) or {}
        if not isinstance(part, dict):
            raise Refused(f"{path}: {key} is no JSON object")
        found[key] = part
    return found


def _write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file at once; nobody else may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(document, file, indent="\t")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
