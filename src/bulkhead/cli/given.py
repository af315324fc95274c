"""Configs of a project as files in memory: below the daemon's `run_dir`, where nobody else may look.

An instance gets each by a mount of its own, read-only. `down` takes them away; a reboot does as well, and the next `up`
puts them back.
"""

# ruff: noqa: PTH103, PTH110, PTH118, PTH123, PTH105, PTH101

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from bulkhead.cli.app import App
from bulkhead.cli.places import find_places
from bulkhead.compose.project import Project
from bulkhead.compose.services import Service
from bulkhead.errors import Refused

Contents = Mapping[str, tuple[bytes, str]]
"""Bytes and their digest, by "config/NAME"."""


def directory_of(app: App, name: str) -> str:
    """Where a project's files are."""
    return os.path.join(find_places(app.config).run_dir, "compose", name)


def place(app: App, project: Project, wanted: Sequence[str], contents: Contents) -> bool:
    """Write what services are to get, each under its digest, so that one that runs keeps its own. False: nothing is.

    Raises Refused where this user may not.
    """
    found = [use for name in wanted for use in project.services[name].files]
    uses = {f"config/{use.source}" for use in found if use.kind == "config"}
    if not uses:
        return False
    app.require_local("a config is a file")
    directory = directory_of(app, project.name)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for key in sorted(uses):
            data, _ = contents[key]
            path = _path(directory, key, contents)
            if os.path.exists(path):
                continue
            # Whoever it is in the instance may read it; on the host the directory lets nobody pass.
            descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o444)
            with open(descriptor, "wb") as file:
                file.write(data)
            os.chmod(f"{path}.new", 0o444)
            os.replace(f"{path}.new", path)
    except OSError as error:
        raise Refused(
            f"configs cannot be put into {directory}: {error.strerror}",
            hint="up must run on the daemon's host, as root",
        ) from None
    return True


def mounts(app: App, project: Project, service: Service, contents: Contents) -> list[dict[str, object]]:
    """How a service gets its configs."""
    directory = directory_of(app, project.name)
    return [
        {
            "kind": "bind",
            "source": _path(directory, f"{use.kind}/{use.source}", contents),
            "target": use.target,
            "read_only": True,
        }
        for use in service.files
        if use.kind == "config"
    ]


def take_away(app: App, name: str) -> None:
    """Remove a project's files; idempotent."""
    shutil.rmtree(directory_of(app, name), ignore_errors=True)


def _path(directory: str, key: str, contents: Contents) -> str:
    return os.path.join(directory, f"{key.replace('/', '-')}-{contents[key][1][:16]}")
