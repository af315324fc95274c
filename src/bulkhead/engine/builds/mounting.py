"""What `--mount` puts into a RUN: secrets, caches, files of the context and of stages, memory. None is in a layer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bulkhead.containerfile.instructions import Mount
from bulkhead.containerfile.words import expand
from bulkhead.engine.builds.placing import Manner, Placement
from bulkhead.engine.builds.selecting import Chosen, Text
from bulkhead.engine.builds.shared import Build
from bulkhead.engine.builds.state import StageState
from bulkhead.engine.volumes import VolumeCatalog
from bulkhead.errors import Problem, Refused
from bulkhead.images.view import View, components
from bulkhead.model import Isolation, Scratch
from bulkhead.model import Mount as InstanceMount
from bulkhead.tenancy.names import qualified

_ALWAYS = ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/etc")  # noqa: S108 - in the image
"""Where every root gets something."""
SECRET_MODE = 0o400
_NAME = b"source"
_AS_IT_IS = Manner(owner=None, keep_owners=True, mode=None, latest=0, clamp=False, unpack=False)


def expanded(mount: Mount, variables: Mapping[str, str], escape: str) -> Mount:
    """With variables put in. ValueError where it has no absolute target then."""
    target, source = expand(mount.target, variables, escape), expand(mount.source, variables, escape)
    if mount.kind != "secret" and not target.startswith("/"):
        raise ValueError(f"--mount: target {target!r} is not an absolute path")
    return replace(mount, target="/" + target.lstrip("/"), source=source, id=expand(mount.id, variables, escape))


def problems(mounts: Sequence[tuple[int, Mount]], isolation: Isolation) -> list[Problem]:
    """What cannot be had behind a wall; mounts with the line that asks for them."""
    if isolation is not Isolation.VM:
        return []
    hint = "build with --isolation container"
    return [
        Problem(f"line {line}: a virtual machine has no --mount=type={mount.kind}: it sees disks alone", hint)
        for line, mount in mounts
        if mount.kind != "cache"
    ]


@dataclass(frozen=True, slots=True)
class Places:
    """What an instance is given."""

    mounts: tuple[InstanceMount, ...]
    scratch: tuple[Scratch, ...]

    @property
    def targets(self) -> list[str]:
        """Where something is mounted."""
        return [mount.target for mount in self.mounts] + [memory.target for memory in self.scratch]


@contextmanager
def mounted(
    build: Build, state: StageState, mounts: Sequence[Mount], bound: Sequence[Chosen], scripts: Mapping[str, str]
) -> Iterator[Places]:
    """Make everything ready; `bound` are the sources of the binds, in their order. Gone when the block ends."""
    with ExitStack() as always:
        made, scratch = list[InstanceMount](), list[Scratch]()
        sources = iter(bound)
        for mount in mounts:
            target = os.path.normpath(os.path.join(state.workdir, mount.target))  # noqa: PTH118 - in the image
            if mount.kind == "tmpfs":
                scratch.append(Scratch(target=target, size=mount.size or build.plan.memory // 2))
                continue
            place = _place(build, mount, sources, always)
            if place is not None:
                kind: Literal["volume", "bind"] = "volume" if mount.kind == "cache" else "bind"
                made.append(InstanceMount(kind=kind, source=place, target=target, read_only=mount.read_only))
        for target, text in scripts.items():
            path = _file(build, text.encode(), 0o755, (0, 0), always)
            made.append(InstanceMount(kind="bind", source=str(path), target=target, read_only=True))
        yield Places(tuple(made), tuple(scratch))


def _place(build: Build, mount: Mount, sources: Iterator[Chosen], always: ExitStack) -> str | None:
    """The source of one mount on the host: a path, or a volume's name; None where there is nothing to mount."""
    if mount.kind == "bind":
        return str(_tree(build, next(sources), always))
    if mount.kind == "cache":
        return _cache(build, mount, always)
    if mount.id not in build.order.secrets:
        if mount.required:
            raise Refused(f"secret {mount.id!r} was not given", hint=f"--secret id={mount.id},src=FILE")
        return None
    data = secret(build.order.secrets, mount.id)
    mode = SECRET_MODE if mount.mode is None else mount.mode
    return str(_file(build, data, mode, (mount.uid, mount.gid), always))


def secret(given: Mapping[str, str], identifier: str) -> bytes:
    """A secret's bytes. Raises Refused where it was sent wrongly."""
    try:
        return base64.b64decode(given[identifier], validate=True)
    except binascii.Error as error:
        raise Refused(f"secret {identifier!r} is not base64") from error


def _file(build: Build, data: bytes, mode: int, owner: tuple[int, int], always: ExitStack) -> Path:
    """A file that can be bound in, where nothing outlives a reboot."""
    assert build.directory is not None
    placement = Placement(View([]), replace(_AS_IT_IS, owner=owner))
    placement.place([Text(_NAME, data, mode)], (_NAME,), is_directory=False)
    return _mount(build, placement, always, build.directory / "files")


def _cache(build: Build, mount: Mount, always: ExitStack) -> str:
    """A volume that outlives the build, known by the mount's id."""
    name = f"build-cache-{hashlib.sha256(mount.id.encode()).hexdigest()[:16]}"
    if mount.sharing != "shared":
        always.enter_context(build.context.locks.hold(qualified(build.context.tenant, name)))
    with build.context.locks.hold(f"{build.context.tenant}-{name}-made"):
        VolumeCatalog(build.context).ensure(name, tenant=build.context.tenant)
        if (mount.mode, mount.uid, mount.gid) != (None, 0, 0):
            top = build.context.volumes.attach(qualified(build.context.tenant, name))
            os.chown(top, mount.uid, mount.gid)
            if mount.mode is not None:
                top.chmod(mount.mode)
    return name


def _tree(build: Build, source: Chosen, always: ExitStack) -> Path:
    """Files of a view."""
    placement = Placement(View([]), _AS_IT_IS)
    placement.place([source], (_NAME,), is_directory=source.is_directory)
    return _mount(build, placement, always, None)


def _mount(build: Build, placement: Placement, always: ExitStack, parent: Path | None) -> Path:
    """Files in an EROFS file of their own, mounted: as a layer, it can be mapped to any ids (tmpfs: Linux 6.3)."""
    chunks = placement.layer(build.workshop.layout.bounds)
    file = always.enter_context(build.workshop.context(chunks, parent))
    key = "sha256:" + secrets.token_hex(32)
    build.hold.layer(key)
    always.callback(build.context.layers.unmount, key)
    return build.context.layers.mount_layer(key, file) / os.fsdecode(_NAME)


def stubs(root: View, targets: Sequence[str]) -> set[bytes]:
    """Paths that were made for something to be mounted there: those that the image does not have."""
    found = set()
    for target in (*_ALWAYS, *targets):
        parts = components(target)
        for count in range(1, len(parts) + 1):
            if root.find(parts[:count]) is None:
                found.add(b"/".join(parts[:count]))
    return found
