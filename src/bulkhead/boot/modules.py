"""Which of a kernel's modules a guest needs, and in which order they are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from bulkhead.errors import ImageError

REQUIRED = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "erofs", "overlay", "ext4", "af_packet", "ipv6")
"""Without these a guest has no way to its agent, its files or its network."""
WELCOME = ("virtio_rng", "virtio_balloon", "virtio_mem", "vmgenid", "macvlan")
"""Loaded where the kernel has them: entropy, memory that changes, news of a restore, interfaces of instances within."""
_MAX_DEPTH = 50
_SIGNED = b"~Module signature appended~\n"
_SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The modules of a kernel, as depmod lists them: paths below its directory by name, and what each needs."""

    paths: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Paths by path, as in modules.dep: what is to be loaded first comes last."""
    builtin: frozenset[str] = frozenset()


def read_catalogue(dependencies: str, builtin: str) -> Catalogue:
    """The texts of modules.dep and modules.builtin. Raises ImageError for paths that lead elsewhere."""
    needs = {}
    for line in dependencies.splitlines():
        path, colon, rest = line.partition(":")
        if not colon:
            raise ImageError(f"modules.dep holds the line {line[:80]!r}, which is none of its format")
        needs[path] = tuple(rest.split())
    for path in {*needs, *(path for paths in needs.values() for path in paths)}:
        if path.startswith("/") or ".." in path.split("/") or not path.endswith(_SUFFIXES):
            raise ImageError(f"modules.dep names {path[:80]!r}, which is no module of this kernel")
    return Catalogue({name_of(path): path for path in needs}, needs, frozenset(map(name_of, builtin.split())))


def name_of(path: str) -> str:
    """A module's name: "kernel/drivers/char/hw_random/virtio-rng.ko.xz" is "virtio_rng"."""
    return PurePosixPath(path).name.partition(".")[0].replace("-", "_")


def order(
    catalogue: Catalogue, *, required: Iterable[str] = REQUIRED, welcome: Iterable[str] = WELCOME
) -> tuple[str, ...]:
    """Paths of the modules, each after everything that it needs. Built-in ones are left out.

    Raises ImageError naming every required one that the kernel does not have.
    """
    required = tuple(required)
    missing = [name for name in required if name not in catalogue.paths and name not in catalogue.builtin]
    if missing:
        raise ImageError(f"the kernel has no {', '.join(missing)}", hint="take a kernel made for virtual machines")
    loaded: dict[str, None] = {}
    for name in (*required, *welcome):
        if name in catalogue.paths:
            _load(catalogue.paths[name], catalogue, loaded, ())
    return tuple(loaded)


def _load(path: str, catalogue: Catalogue, loaded: dict[str, None], above: tuple[str, ...]) -> None:
    if path in loaded:
        return
    if path in above or len(above) == _MAX_DEPTH:
        raise ImageError(f"modules need one another in a circle: {' -> '.join((*above, path))[:300]}")
    if path not in catalogue.needs:
        raise ImageError(f"module {path} is needed, but the kernel does not have it")
    for needed in reversed(catalogue.needs[path]):
        _load(needed, catalogue, loaded, (*above, path))
    loaded[path] = None


def without_signature(module: bytes) -> bytes:
    """A module without what the distribution signed it with.

    The initrd is as trusted as the kernel. To check a signature takes a guest 6 ms for each module under TCG.
    """
    if not module.endswith(_SIGNED) or len(module) < len(_SIGNED) + 12:
        return module
    # struct module_signature: the last of its 12 bytes are the signature's length, big-endian.
    size = int.from_bytes(module[-len(_SIGNED) - 4 : -len(_SIGNED)], "big")
    end = len(module) - len(_SIGNED) - 12 - size
    if end <= 0:
        raise ImageError(f"a module's signature claims {size} bytes, more than the module has")
    return module[:end]
