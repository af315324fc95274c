"""The operation lists that make an instance's root and run a program in it, as far as both levels share them.

Pure: from a bundle to data. The order is the order in which the agent carries them out. "Stage" is what the host's
root does in a private mount namespace, "inside" what the instance's own first process does. On id maps: layers, disk,
volumes and bind mounts are all id-mapped for a container, so that uid N inside is uid N in the image, on the disk
and on the host's directory alike, whatever range of host uids the container runs with, and behind whichever wall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path, PurePosixPath

from bulkhead.agent.operations import IDMAP, RECURSIVE, Attr, Code, Operation, bind, mount, simple
from bulkhead.errors import Problem
from bulkhead.isolation import hardening
from bulkhead.isolation.base import Bundle, Command, MountedVolume
from bulkhead.isolation.hardening import KERNEL_FS
from bulkhead.model import Spec

UPPER, WORK = "upper", "work"
"""Directories on an instance's disk."""
ROOT = "root"
"""The overlay's name below the stage."""
CREATE = 1
"""Flag of CHDIR."""
MOST = 255
"""Arguments of one operation."""
HOST_LXCFS = "/dev/.host"
"""Where the stage puts lxcfs until /proc is mounted inside."""
CGROUP_ROOT = "/sys/fs/cgroup"
V1_SHOWN = ("memory", "cpu", "cpuacct", "cpuset", "pids")
"""Controllers whose limits runtimes such as Java's look for."""


class Namespace(IntFlag):
    """CLONE_NEW* of clone(2)."""

    NONE = 0
    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NETWORK = 0x40000000


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a program may do: the same for a workload and for every command run beside it."""

    bounding: int
    """Mask of capabilities; also the effective, permitted ones of root. Inheritable and ambient are empty."""
    seccomp: bytes = b""
    """A filter (array of struct sock_filter); empty: none."""
    no_new_privs: bool = True
    """False: set-id programs work; the filter is then loaded while the process still is root with SYS_ADMIN."""
    hard_limits: Mapping[int, int] = field(default_factory=dict)


def stage(bundle: Bundle, at: Path, *, id_mapped: bool) -> list[Operation]:
    """Layers and disk to an overlay, made the root. The stage covers the directory `at`, which must hold no source."""
    flags = IDMAP if id_mapped else 0
    layers = [
        simple(Code.ATTACH, str(layer), f"l{number}", int(Attr.RDONLY), flags)
        for number, layer in enumerate(bundle.layers)
    ]
    lower = ":".join(f"l{number}" for number in reversed(range(len(bundle.layers))))
    return [
        simple(Code.STAGE, str(at)),
        *layers,
        simple(Code.ATTACH, str(bundle.disk), "disk", 0, flags),
        # Device nodes of an image are files like any other: none can be opened.
        simple(Code.OVERLAY, lower, f"disk/{UPPER}", f"disk/{WORK}", ROOT, int(Attr.NODEV)),
        simple(Code.ROOT, ROOT),
    ]


def volumes(mounted: Sequence[MountedVolume], *, id_mapped: bool) -> list[Operation]:
    """Volumes and directories of the host's, those higher up first. Never set-uid, never devices."""
    operations = []
    for volume in sorted(mounted, key=lambda volume: len(PurePosixPath(volume.target).parts)):
        attrs = Attr.NOSUID | Attr.NODEV | (Attr.RDONLY if volume.read_only else Attr.NONE)
        # What is mounted below a directory of the host's comes along, as with podman and docker.
        flags = (IDMAP if id_mapped else 0) | (0 if volume.volume else RECURSIVE)
        operations.append(bind(volume.source, volume.target, attrs=attrs, flags=flags))
    return operations


def volume_problems(spec: Spec) -> list[Problem]:
    """Mount targets that would be lost below what every root gets."""
    problems = []
    for asked in (*(item.target for item in spec.mounts), *(use.path for use in spec.secrets)):
        target = PurePosixPath("/" + asked.lstrip("/"))
        if ".." in target.parts or "\0" in asked:
            problems.append(Problem(f"mount target {asked!r} is not a plain absolute path", "leave out '..'"))
        elif target == PurePosixPath("/") or any(target.is_relative_to(top) for top in hardening.RESERVED_TARGETS):
            reserved = ", ".join(("/", *hardening.RESERVED_TARGETS))
            problems.append(
                Problem(
                    f"nothing can be mounted at {asked}: {reserved} are the instance's own",
                    "choose another target such as /data",
                )
            )
    return problems


def kernel(join: Sequence[str], *, lxcfs: Path | None = None, delegated: str = "") -> list[Operation]:
    """Stage: /sys, read-only, of the network namespace that the stage is in; in it the instance's own cgroups, where
    runtimes look for their limits, and lxcfs's list of processors.

    `join` are the paths of the files by which it joins its cgroups. The directories of v1 are known by their
    controllers' names, the first part of the path below /sys/fs/cgroup; anything else there is the v2 tree. A system
    sees the one directory that it manages, `delegated`, and may write there what belongs to its root.
    """
    attrs = KERNEL_FS | Attr.RDONLY
    operations = [mount("sysfs", "/sys", attrs=attrs)]
    named = _own_cgroups(join)
    v1 = {name: path for name, path in named.items() if set(name.split(",")) & set(V1_SHOWN)}
    if delegated:
        operations.append(bind(delegated, CGROUP_ROOT, attrs=KERNEL_FS))
    elif v1:
        # The host's root's: nothing can be made in it from inside.
        operations.append(mount("tmpfs", CGROUP_ROOT, attrs=KERNEL_FS, data="mode=0755,uid=0,gid=0,size=4k"))
        operations += [bind(path, f"{CGROUP_ROOT}/{name}", attrs=attrs) for name, path in v1.items()]
    else:
        operations += [bind(path, CGROUP_ROOT, attrs=attrs) for path in named.values()]
    if lxcfs:
        operations.append(bind(f"{lxcfs}{hardening.LXCFS_CPU}", hardening.LXCFS_CPU, attrs=attrs))
        operations.append(bind(f"{lxcfs}/proc", HOST_LXCFS, attrs=attrs))
    return operations


def show_lxcfs() -> list[Operation]:
    """Inside, after /proc: lxcfs's files in the place of the kernel's. Where they came from is covered."""
    attrs = int(KERNEL_FS | Attr.RDONLY)
    files = [simple(Code.REBIND, f"{HOST_LXCFS}/{name}", f"/proc/{name}", attrs, 0) for name in hardening.LXCFS_PROC]
    return [*files, simple(Code.MASK, HOST_LXCFS)]


def _own_cgroups(join: Sequence[str]) -> dict[str, str]:
    """The instance's own directories by the first part of their path; not a tree's root, which it may join as well."""
    own = {}
    for path in join:
        tree, *below, _ = path.removeprefix(f"{CGROUP_ROOT}/").split("/")
        if below and not tree.startswith("/"):
            own[tree] = path.rpartition("/")[0]
    return own


def own_files(bundle: Bundle, *, hostname: bool) -> dict[str, str]:
    """The files that tell the instance who and where it is: paths and texts."""
    files = {"/etc/resolv.conf": bundle.resolv_conf, "/etc/hosts": bundle.hosts}
    if hostname:
        files["/etc/hostname"] = f"{bundle.spec.hostname}\n"
    return {path: text for path, text in files.items() if text}


def names(bundle: Bundle, *, hostname: bool) -> list[Operation]:
    """What writes them."""
    files = own_files(bundle, hostname=hostname)
    return [simple(Code.FILE, path, 0o644, 0, 0, text) for path, text in files.items()]


def scratch(spec: Spec) -> list[Operation]:
    """Inside, where the file systems of the instance's own user namespace are mounted: memory that anybody may use."""
    attrs = Attr.NOSUID | Attr.NODEV
    return [mount("tmpfs", item.target, attrs=attrs, data=f"mode=1777,size={item.size}") for item in spec.scratch]


def secrets(bundle: Bundle) -> list[Operation]:
    """Inside, after all mounts: files in the instance's own memory, those higher up first."""
    return [
        simple(Code.SECRET, one.use.path, one.use.mode, one.use.uid, one.use.gid, one.value)
        for one in sorted(bundle.secrets, key=lambda one: len(PurePosixPath(one.use.path).parts))
    ]


def shm_size(spec: Spec) -> int:
    """Bytes of /dev/shm: half the plan's memory, which it counts against."""
    return spec.plan.memory // 2


def program(spec: Spec, confinement: Confinement, *, container: bool) -> list[Operation]:
    """The workload's own process: environment, user, privileges, then its program."""
    env = hardening.environment(spec.env, hostname=spec.hostname, container=container, tty=spec.tty)
    return run(spec.argv, env=env, user=spec.user, workdir=spec.workdir, confinement=confinement)


def command(spec: Spec, asked: Command, confinement: Confinement, *, container: bool) -> list[Operation]:
    """A command beside the workload: the same wall, the same environment and what was asked for on top."""
    env = hardening.environment(
        [*spec.env, *asked.env], hostname=spec.hostname, container=container, tty=spec.tty or asked.tty
    )
    user = spec.user if asked.user is None else asked.user
    workdir = spec.workdir if asked.workdir is None else asked.workdir
    return [
        *([simple(Code.CONSOLE)] if asked.tty else []),
        # As with podman and docker, a directory that is not there is not made: it is a mistake here.
        *([simple(Code.PROGRAM, asked.program)] if asked.program else []),
        *run(asked.argv, env=env, user=user, workdir=workdir, confinement=confinement, make_workdir=False),
    ]


def run(
    argv: Sequence[str],
    *,
    env: Sequence[str],
    user: str,
    workdir: str,
    confinement: Confinement,
    make_workdir: bool = True,
) -> list[Operation]:
    """From an instance's root to a program under a confinement."""
    bits = confinement.bounding
    return [
        simple(Code.UMASK, hardening.UMASK),
        # A daemon that the service manager protects from the out-of-memory killer must not hand that on.
        simple(Code.OOM_SCORE, 0, optional=True),
        *hardening.rlimits(confinement.hard_limits),
        *(simple(Code.ENV, *env[start : start + MOST]) for start in range(0, len(env), MOST)),
        simple(Code.USER, user),
        simple(Code.CHDIR, workdir, CREATE if make_workdir else 0),
        simple(Code.CAPS, bits, bits, bits, 0, 0),
        *([simple(Code.NO_NEW_PRIVS)] if confinement.no_new_privs else []),
        *_filter(confinement),
        *execute(argv),
    ]


def _filter(confinement: Confinement) -> list[Operation]:
    code = Code.SECCOMP if confinement.no_new_privs else Code.SECCOMP_FIRST
    return [simple(code, confinement.seccomp)] if confinement.seccomp else []


def execute(argv: Sequence[str]) -> list[Operation]:
    """The last step: EXEC, behind as many ARGS as it takes to pass more words than one operation holds."""
    portions = [argv[start : start + MOST] for start in range(0, len(argv), MOST)]
    return [*(simple(Code.ARGS, *portion) for portion in portions[:-1]), simple(Code.EXEC, *portions[-1])]
