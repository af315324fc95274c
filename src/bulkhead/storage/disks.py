"""Instances' disks: one sparse raw file each, which holds ext4 and is as large as the plan says."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Collection
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path

from bulkhead.config import Config
from bulkhead.errors import Conflict, HostError, NotFound, Refused
from bulkhead.host import cgroups, loop, mounts, sparse, syscalls
from bulkhead.host.loop import Transferred
from bulkhead.quantities import format_size
from bulkhead.storage import area, copies, ext4, foreign
from bulkhead.storage.blank import Blanks
from bulkhead.storage.pool import Pool, Ready
from bulkhead.storage.reaper import Reaper

DIRECTORIES = ("upper", "work")
"""Made in every disk for the overlay, owned by 0:0, 0755."""
_FLAGS = syscalls.MS_NODEV | syscalls.MS_NOSUID
"""On the host's own mount of a disk; an overlay over it has its own."""
_LOCKS = 64


class Disks:
    """Makes, attaches, grows and throws away disks. Thread-safe.

    A disk's file is `path`, wherever the caller keeps it below the state directory; it is mounted at
    `run_dir/disks/<id>`. Another process finds every disk as this one left it.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._area = area.directory(config, "disks")
        self._pool_files = config.state_dir / "pool"
        self._blanks = Blanks(config.state_dir / "pool")
        self._pool = Pool(self._make_ready, self._drop_ready)
        self._reaper = Reaper()
        self._abandoned: dict[str, Transferred | None] = {}
        """What had been moved by then: the file system itself tells nothing any more."""
        """Attached disks whose file systems `abandon` has stopped: they cannot be written out any more."""
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    @cached_property
    def _layout(self) -> cgroups.Layout:
        return cgroups.detect()

    def prepare(self) -> None:
        """Make the directories and the private mounts that everything of this package lies on. Idempotent."""
        area.prepare(self._config)
        self._pool_files.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create(self, instance_id: str, path: Path, size: int, *, mount: bool = True) -> None:
        """Make `path` a disk of `size` bytes and mount it. Fine when it is there; Conflict when with another size."""
        with self._lock(instance_id):
            if path.exists():
                self._check_size(path, size)
                return
            if not mount:
                self._blanks.write(path, size, DIRECTORIES)
                return
            ready = self._pool.take(size)
            if ready is None:
                self._blanks.write(path, size, DIRECTORIES)
                ext4.mount_file(path, self._target(instance_id), flags=_FLAGS, fresh=True)
                return
            # The file first: whatever comes between, the mount left in the pool's area leads to the instance's file.
            ready.file.rename(path)
            target = self._target(instance_id)
            target.mkdir(exist_ok=True, mode=0o700)
            syscalls.mount(ready.target, target, flags=syscalls.MS_MOVE)
            area.remove_mount_point(ready.target)

    def copy(self, instance_id: str, source: Path, path: Path, size: int) -> None:
        """Make `path` a copy of the disk `source`, grown to `size` bytes, that the host never mounts.

        Conflict when it is there, HostError when it cannot be made.
        """
        with self._lock(instance_id):
            if path.exists():
                raise Conflict(f"disk {path} is there already")
            foreign.mark(path)
            draft = path.with_suffix(".img.new")
            draft.unlink(missing_ok=True)
            sparse.copy_sparse(source, draft, size)
            draft.rename(path)

    def attach(self, instance_id: str, path: Path) -> Path:
        """Mount the disk and return where: a directory with `upper` and `work`. Fine when it is mounted."""
        with self._lock(instance_id):
            target = self._target(instance_id)
            if not path.exists():
                raise NotFound(f"instance {instance_id} has no disk {path}")
            foreign.check(path, f"the disk of instance {instance_id[:12]}")
            ext4.mount_file(path, target, flags=_FLAGS)
            return target

    def give(self, instance_id: str, path: Path) -> Path:
        """The file of a disk, for the kernel of a guest; the host has it no more. From now on `attach` refuses it."""
        with self._lock(instance_id):
            if not path.exists():
                raise NotFound(f"instance {instance_id} has no disk {path}")
            busy = ext4.release(self._target(instance_id), layout=self._layout)
            if busy is not None:
                raise Conflict(f"the disk of instance {instance_id[:12]} is still in use on the host as {busy.path}")
            foreign.mark(path)
            return path

    def still(self, instance_id: str, path: Path) -> None:
        """Let the file of a disk hold all that was written, and change no more until `attach` or `give`.

        Conflict where a process of the host's is in it.
        """
        with self._lock(instance_id):
            busy = ext4.release(self._target(instance_id), layout=self._layout)
            if busy is not None:
                raise Conflict(f"the disk {path.name} of instance {instance_id[:12]} is in use on the host")

    def held(self, instance_id: str, path: Path) -> int:
        """Bytes that a disk holds, with what waits in the host's memory to be written to it."""
        target = self._target(instance_id)
        if mounts.device_at(target):
            syscalls.syncfs(target)
        return path.stat().st_blocks * 512

    def device(self, instance_id: str) -> tuple[int, int] | None:
        """(major, minor) of the block device of an attached disk."""
        return mounts.device_at(self._target(instance_id))

    def detach(self, instance_id: str) -> None:
        """Write everything, unmount, and free the loop device. Idempotent.

        Where a process of the host's is in it, the device stays until that ends; `attach` joins it.
        """
        with self._lock(instance_id):
            abandoned = instance_id in self._abandoned
            ext4.release(self._target(instance_id), layout=self._layout, shutdown=abandoned)
            self._abandoned.pop(instance_id, None)

    def abandon(self, instance_id: str) -> None:
        """Stop all I/O of an attached disk at once, for an instance that is being deleted: its processes are not kept
        waiting for writes that nobody will read. The data is lost. Fine when it is not attached."""
        with self._lock(instance_id):
            target = self._target(instance_id)
            device = mounts.device_at(target)
            if device:
                if instance_id not in self._abandoned:
                    self._abandoned[instance_id] = ext4.transferred(target)
                cgroups.clear_throttles(self._layout, device)
                syscalls.ext4_shutdown(target)

    def discard(self, instance_id: str, path: Path) -> None:
        """Throw a disk away: its file's name is gone on return, the rest soon after (see `settle`). Idempotent."""
        with self._lock(instance_id):
            target = self._target(instance_id)
            self._abandoned.pop(instance_id, None)
            descriptor = ext4.condemn(path, target)
            job = partial(ext4.destroy, descriptor, target, layout=self._layout)
            if mounts.device_at(target):
                self._reaper.submit(instance_id, job)
            else:
                job()

    def settle(self) -> None:
        """Wait until everything that was thrown away is really gone and the pool is full."""
        self._reaper.settle()
        self._pool.settle()

    def resize(self, instance_id: str, path: Path, size: int) -> None:
        """Grow a disk, in use or not. Refused when it would shrink, or when this host cannot grow it in use.

        Conflict where a guest has written it.
        """
        with self._lock(instance_id):
            foreign.check(path, f"the disk of instance {instance_id[:12]}")
            ext4.grow(path, self._target(instance_id), size)

    def check_room(self, instance_id: str, path: Path, directory: Path, *, more: int = 0) -> None:
        """Raise Refused where a copy of a disk and `more` bytes do not fit into the file system of `directory`."""
        target = self._target(instance_id)
        if mounts.device_at(target):
            syscalls.syncfs(target)  # what waits in memory takes no space yet
        copies.check_room(path, directory, more=more)

    def copy_out(self, instance_id: str, path: Path, target: Path, *, told: copies.Told) -> None:
        """Make `target` a copy of a disk as it is at one moment; what the host has mounted is frozen meanwhile."""
        copies.copy(path, target, path.stat().st_size, told=told, mounted_at=self._target(instance_id))
        copies.unfinished(target).rename(target)

    def bring_in(self, source: Path, path: Path, size: int, *, told: copies.Told) -> None:
        """Copy a disk that nobody uses to where `put` takes it from, grown to `size` bytes."""
        copies.check_room(source, path.parent)
        copies.copy(source, path, size, told=told)

    def forget_copy(self, path: Path) -> None:
        """Remove what `bring_in` has copied and nobody has put in its place."""
        copies.unfinished(path).unlink(missing_ok=True)

    def put(self, instance_id: str, path: Path) -> None:
        """Make what `bring_in` has copied the disk of an instance that does not run, in the place of its old one."""
        with self._lock(instance_id):
            busy = ext4.release(self._target(instance_id), layout=self._layout, shutdown=True)
            if busy is not None:
                raise Conflict(f"the disk of instance {instance_id[:12]} is still in use on the host as {busy.path}")
            copies.unfinished(path).rename(path)

    def exchange(self, instance_id: str, path: Path, fresh: Path) -> None:
        """Make the disk `fresh`, that only the host has written, the one at `path`; what was there is kept beside it.

        Neither is in use. A crash in between leaves what `put_back` makes the old disk of.
        """
        with self._lock(instance_id):
            old = _kept(path)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())  # the old one goes soon
            if foreign.is_marked(path):
                foreign.mark(old)
            path.rename(old)
            fresh.rename(path)
            foreign.forget(path)

    def put_back(self, instance_id: str, path: Path) -> None:
        """Undo `exchange`: the fresh disk goes. Fine where nothing was exchanged."""
        with self._lock(instance_id):
            old = _kept(path)
            if not old.exists():
                foreign.forget(old)
                return
            ext4.release(self._target(instance_id), layout=self._layout, shutdown=True)
            if foreign.is_marked(old):
                foreign.mark(path)
            old.rename(path)
            foreign.forget(old)

    def forget_old(self, path: Path) -> None:
        """Throw away what `exchange` has kept. Idempotent."""
        _kept(path).unlink(missing_ok=True)
        foreign.forget(_kept(path))

    def finish_exchange(self, instance_id: str, path: Path) -> bool:
        """After a crash: whether `exchange` came so far that the fresh disk is in its place; else it is undone."""
        if _kept(path).exists() and path.exists():
            foreign.forget(path)
            return True
        self.put_back(instance_id, path)
        return False

    def thaw(self) -> list[str]:
        """After a crash: let the file systems that a copy has frozen be changed again. Says which."""
        mounted = area.mounted(self._config, "disks")
        return [f"disk of {entry.target.name} thawed" for entry in mounted if syscalls.thaw(entry.target)]

    def check_extension(self, path: Path, size: int) -> None:
        """Raise Refused where `extend` would shrink a disk."""
        present = path.stat().st_size
        if size < present:
            what = f"the disk has {format_size(present)}, {format_size(size)} is less: a disk cannot shrink"
            raise Refused(what, hint="create a new instance with the smaller plan and copy the data")

    def extend(self, instance_id: str, path: Path, size: int) -> None:
        """Make the file of a disk larger, and not the file system in it: that is for the kernel of its guest."""
        with self._lock(instance_id):
            self.check_extension(path, size)
            foreign.mark(path)
            os.truncate(path, size)

    def usage(self, instance_id: str) -> tuple[int, int]:
        """Bytes used and in all, as df tells. NotFound when the disk is not attached."""
        if self.device(instance_id) is None:
            raise NotFound(f"the disk of instance {instance_id} is not attached")
        return ext4.usage(self._target(instance_id))

    def transferred(self, instance_id: str) -> tuple[int, int]:
        """Bytes read and written since the disk was attached; zeros when it is not."""
        found = self.counted(instance_id)
        return (found.read, found.written) if found else (0, 0)

    def counted(self, instance_id: str) -> Transferred | None:
        """The same with the operations; None when it is not attached."""
        if instance_id in self._abandoned:
            return self._abandoned[instance_id]
        return ext4.transferred(self._target(instance_id))

    def flush(self, instance_id: str) -> None:
        """Write what waits in memory, at the host's pace, as `detach` does. Fine when it is not attached."""
        with self._lock(instance_id):
            target = self._target(instance_id)
            device = mounts.device_at(target)
            if device and instance_id not in self._abandoned:
                cgroups.clear_throttles(self._layout, device)
                syscalls.syncfs(target)

    def prefill(self, size: int) -> None:
        """Keep `config.disk_pool` disks of this size ready from now on."""
        self._pool.want(size, self._config.disk_pool)

    @property
    def pool_problem(self) -> Exception | None:
        """Why the pool could not be filled the last time; None when it could."""
        return self._pool.problem

    def close(self) -> None:
        """Throw the pool away and finish what is being thrown away. Disks of instances stay attached."""
        with ExitStack() as undo:
            undo.callback(area.release, self._config)
            undo.callback(self._reaper.close)
            undo.callback(self._pool.close)

    def recover(self, known: Collection[str]) -> list[str]:
        """After a crash: let go of everything of ours that belongs to no instance in `known`. Says what it was.

        Files of instances are not deleted: only what this class alone knows of is (the pool, unfinished disks).
        """
        self._reaper.wait_all()
        found: list[str] = []
        for entry in area.mounted(self._config, "pool"):
            found.append(f"pool disk {entry.target.name}")
            ext4.release(entry.target, layout=self._layout)
        for entry in area.mounted(self._config, "disks"):
            if entry.target.name not in known:
                found.append(f"disk of {entry.target.name}")
                ext4.release(entry.target, layout=self._layout, shutdown=self._is_deleted(entry.device))
        found += self._recover_loops(known) + self._recover_files()
        for name in ("pool", "disks"):
            area.tidy(self._config, name)
        return list(dict.fromkeys(found))  # a disk of the pool is a mount, a device and a file

    def probe_direct_io(self) -> tuple[bool, str]:
        """Whether loop devices read and write past the host's page cache here, and why not.

        Where they do not, limits hold all the same, but the host caches a disk's blocks a second time.
        """
        self._pool_files.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = self._pool_files / f"probe-{threading.get_ident()}"
        with ExitStack() as always:
            always.callback(probe.unlink, missing_ok=True)
            with probe.open("wb") as file:
                file.truncate(1 << 20)
            attached = loop.attach(probe)
            always.callback(attached.close)
            if attached.direct_io:
                return True, ""
        return False, f"the file system of {self._config.state_dir} has no direct I/O in blocks of {loop.BLOCK_SIZE}"

    def _lock(self, instance_id: str) -> threading.Lock:
        return self._locks[hash(instance_id) % _LOCKS]

    def _target(self, instance_id: str) -> Path:
        if not instance_id.isalnum():
            raise HostError(f"{instance_id!r} is no instance's id")
        return self._area / instance_id

    def _check_size(self, path: Path, size: int) -> None:
        present = path.stat().st_size
        if present != size:
            raise Conflict(f"disk {path} is there with {format_size(present)}, not {format_size(size)}")

    def _make_ready(self, name: str, size: int) -> Ready:
        ready = Ready(self._pool_files / f"{name}.img", area.directory(self._config, "pool") / name)
        with ExitStack() as undo:
            self._blanks.write(ready.file, size, DIRECTORIES)
            undo.callback(ready.file.unlink)
            ext4.mount_file(ready.file, ready.target, flags=_FLAGS, fresh=True)
            undo.pop_all()
        return ready

    def _drop_ready(self, ready: Ready) -> None:
        ext4.destroy(ext4.condemn(ready.file, ready.target), ready.target, layout=self._layout)

    def _is_deleted(self, device: tuple[int, int]) -> bool:
        holder = loop.by_device(device)
        return holder is not None and holder.deleted

    def _recover_loops(self, known: Collection[str]) -> list[str]:
        """Devices on our files that are mounted nowhere: attached just before the crash."""
        instances, pool = self._config.instances_dir.resolve(), self._pool_files.resolve()
        found = []
        for device in loop.attached():
            owner = device.backing.parent
            if owner == pool or (owner.parent == instances and owner.name not in known):
                found.append(
                    f"pool disk {device.backing.stem}" if owner == pool else f"loop device of {device.backing}"
                )
                ext4.free(device, layout=self._layout)
        return found

    def _recover_files(self) -> list[str]:
        leftovers = [*self._pool_files.glob("*"), *self._config.instances_dir.glob("*/*.img.new")]
        for file in leftovers:
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()
        return [f"pool disk {file.stem}" if file.suffix == ".img" else f"file {file}" for file in leftovers]


def _kept(path: Path) -> Path:
    """Where `exchange` leaves the old disk."""
    return path.with_name(f"old-{path.name}")
