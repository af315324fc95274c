"""Images made from Debian packages by mmdebstrap: what to run is planned as data, then run."""

from __future__ import annotations

import io
import os
import re
import shlex
import tarfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import HostError, Problem, Refused
from bulkhead.events import Progress, Step
from bulkhead.host import processes
from bulkhead.host.workspace import abandoned, locked, workspace
from bulkhead.images.config import ImageConfig
from bulkhead.images.ingest import Ingest
from bulkhead.images.reader import reported
from bulkhead.images.rootfs import add_rootfs, host_architecture

_RELEASE = re.compile(r"(?:debian:)?([a-z][a-z0-9.-]{0,40})")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+:~-]+)?")
_MIRROR = re.compile(r"(?:deb (?:\[[^\n\]]*\] )?)?[a-z+]+:/\S+(?: [^\n]*)?")
_ARCHITECTURE = re.compile(r"[a-z0-9-]{2,20}")
_TO_GO = {"i386": "386", "armhf": "arm"}
_TO_DEBIAN = {go: debian for debian, go in _TO_GO.items()}
_UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
_WANTED = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
_POLICY, _FILES = "policy.tar", "files.tar"
_ARCHIVES, _LISTS = "/var/cache/apt/archives", "/var/lib/apt/lists"
_NO_SERVICES = b"#!/bin/sh\n# Package scripts start no services here: an instance runs its one program.\nexit 101\n"
_TALK = ("running special hook", "running --", "skipping ", "using ", "finding ", "removing tempdir", "success in")
_FOLLOWS = ("mmdebstrap failed", "apt-get ", "setup failed", "Some index files failed", "run_")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be made."""

    suite: str
    packages: tuple[str, ...]
    architecture: str
    """Debian's word."""
    files: Mapping[str, bytes]
    mirrors: tuple[str, ...] = ()
    """Instead of this host's own sources: URLs, or whole lines of a sources.list."""
    hooks: tuple[str, ...] = ()
    """Commands for a shell at the end, after the files were put in; the root file system's path is their "$1"."""
    kept: bool = True
    """Whether its tar is wanted. Without, what the hooks have put elsewhere is all that is left."""

    @property
    def default_name(self) -> str:
        """The release, then what sets the image apart from the plain one."""
        apart = [self.architecture] if _TO_GO.get(self.architecture, self.architecture) != host_architecture() else []
        packages = [re.sub(r"[^A-Za-z0-9_.-]", "-", package) for package in self.packages]
        return f"debian:{'-'.join([self.suite, *apart, *packages])[:128].rstrip('-.')}"


def plan(
    release: str,
    *,
    packages: Sequence[str] = (),
    architecture: str | None = None,
    files: Mapping[str, bytes],
    mirrors: Sequence[str] = (),
    hooks: Sequence[str] = (),
    kept: bool = True,
) -> Recipe:
    """Check what is asked for. Raises Refused with all that is wrong."""
    problems = []
    found = _RELEASE.fullmatch(release)
    if not found:
        problems.append(Problem(f"release {release!r} is not known", "one such as debian:bookworm"))
    problems += [Problem(f"{name!r} is not a package's name") for name in packages if not _PACKAGE.fullmatch(name)]
    problems += [
        Problem(f"mirror {mirror!r} is not one", "a URL, or a line such as deb http://mirror/debian bookworm main")
        for mirror in mirrors
        if not _MIRROR.fullmatch(mirror)
    ]
    machine = architecture or host_architecture()
    machine = _TO_DEBIAN.get(machine, machine)
    if not _ARCHITECTURE.fullmatch(machine):
        problems.append(Problem(f"architecture {machine!r} is not one", "Debian's word, such as amd64 or i386"))
    for path in files:
        if not path.startswith("/") or {"..", ""} & set(path[1:].split("/")) or "\0" in path:
            problems.append(Problem(f"file {path!r} is not an absolute path without '..'"))
    if problems or not found:
        raise Refused(problems)
    return Recipe(found[1], tuple(packages), machine, dict(files), tuple(mirrors), tuple(hooks), kept)


def command(recipe: Recipe, *, debs: Path, lists: Path, work: Path, options: Sequence[str] = ()) -> list[str]:
    """The argv that runs mmdebstrap. `debs`, `lists`: what was downloaded before and is kept. `work` holds two tars."""
    hooks = {
        "setup": (
            f'mkdir -p "$1{_ARCHIVES}" "$1{_LISTS}"',
            f"sync-in {shlex.quote(str(debs))} {_ARCHIVES}",
            f"sync-in {shlex.quote(str(lists))} {_LISTS}",
        ),
        "extract": (f"tar-in {shlex.quote(str(work / _POLICY))} /",),
        "customize": (
            f"sync-out {_ARCHIVES} {shlex.quote(str(debs))}",
            f"sync-out {_LISTS} {shlex.quote(str(lists))}",
            # The host's proxy, resolver and name are not the image's.
            'rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/resolv.conf" "$1/etc/hostname"',
            # Inside, since a link such as /var/run would lead a tar outside to the host's /run.
            f'chroot "$1" tar -C / -xf - < {shlex.quote(str(work / _FILES))}',
            *recipe.hooks,
        ),
    }
    return [
        # So one recovery pass after a crash finds nothing at work.
        *processes.CONFINED,
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--format={'tar' if recipe.kept else 'null'}",
        f"--architectures={recipe.architecture}",
        *([f"--include={','.join(recipe.packages)}"] if recipe.packages else []),
        # Without these apt would delete what was just put there, or what is to be kept.
        "--skip=download/empty,essential/unlink,output/dev",
        # It would delete the policy of the image's own at the end.
        "--skip=chroot/policy-rc.d",
        *(f"--dpkgopt=path-exclude={path}" for path in _UNWANTED),
        *(f"--dpkgopt=path-include={path}" for path in _WANTED),
        # An amd64 kernel runs these itself; mmdebstrap would ask for arch-test to find that out.
        *(["--skip=check/qemu"] if (host_architecture(), recipe.architecture) == ("amd64", "i386") else []),
        *options,
        *(f"--{stage}-hook={hook}" for stage, stage_hooks in hooks.items() for hook in stage_hooks),
        recipe.suite,
        "-",
    ]


def run(
    into: Ingest, recipe: Recipe, cache: Path, *, names: Sequence[str], config: ImageConfig, progress: Progress
) -> str:
    """Make the image. Returns its manifest's digest. Raises HostError with what apt and mmdebstrap complained about."""
    epoch = epoch_now()
    with root_tar(recipe, cache, epoch, progress) as chunks:
        return add_rootfs(
            into,
            chunks,
            names=names,
            config=config,
            source=shlex.join(["bulkhead", "image", "bootstrap", recipe.suite, *recipe.packages]),
            progress=progress,
            architecture=_TO_GO.get(recipe.architecture, recipe.architecture),
            created=epoch,
        )


def epoch_now() -> int:
    """What the time is for what is made, in seconds since the epoch: $SOURCE_DATE_EPOCH where it is set."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())


@contextmanager
def root_tar(recipe: Recipe, cache: Path, epoch: int, progress: Progress) -> Iterator[Iterator[bytes]]:
    """Make the root file system; yields its tar. Raises HostError as `run` does."""
    complaints: deque[str] = deque(maxlen=8)
    with ExitStack() as stack:
        chunks = stack.enter_context(_mmdebstrap(recipe, cache, epoch, complaints, progress))
        try:
            yield reported(chunks, progress, "reading the root file system")
        except HostError as error:
            if not complaints:
                raise
            what = f"debian:{recipe.suite} could not be made: {'; '.join(complaints)}"
            raise HostError(what, hint="check the release, the packages' names and the mirror") from error


@contextmanager
def _mmdebstrap(
    recipe: Recipe, cache: Path, epoch: int, complaints: deque[str], progress: Progress
) -> Iterator[Iterator[bytes]]:
    """Run mmdebstrap; yields its tar. What it makes on the way is gone at the end, the downloads are kept."""
    processes.require("mmdebstrap")
    downloads = cache / "apt" / f"{recipe.suite}-{recipe.architecture}"
    debs, lists = downloads / "archives", downloads / "lists"
    for directory in (debs, lists):
        directory.mkdir(parents=True, exist_ok=True)

    def listen(line: str) -> None:
        kind, _, text = line.partition(": ")
        if kind == "E" and not text.startswith(_FOLLOWS):
            complaints.append(text)
        elif kind in ("I", "W") and not text.startswith(_TALK):
            progress(Step(text))

    with ExitStack() as stack:
        work, held = stack.enter_context(workspace(_work(cache), mode=0o711))
        progress(Step("waiting for another bootstrap of this release"))
        lock = stack.enter_context(locked(downloads / "lock"))
        for name, files in ((_POLICY, {"/usr/sbin/policy-rc.d": _NO_SERVICES}), (_FILES, recipe.files)):
            (work / name).write_bytes(_tar(files, epoch))
        argv = command(recipe, debs=debs, lists=lists, work=work, options=_proxy_options())
        proxies = {key: os.environ[key] for key in _PROXIES if key in os.environ}
        yield stack.enter_context(
            processes.stream(
                [*argv, *(recipe.mirrors or sources(recipe.suite))],
                on_line=listen,
                env={**proxies, "TMPDIR": str(work), "SOURCE_DATE_EPOCH": str(epoch)},
                package="util-linux",
                # Held for as long as any part of it runs, also when this process is killed.
                pass_fds=(held, lock),
                grace=0,  # there is nothing that it would have to put back
            )
        )


def recover(cache: Path) -> list[str]:
    """Remove what bootstraps left that were killed; what was done, in words."""
    return [f"removed an unfinished bootstrap ({path.name})" for path in abandoned(_work(cache))]


def _tar(files: Mapping[str, bytes], epoch: int) -> bytes:
    """Files of root's in a tar; those that begin with `#!` can be executed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in sorted(files.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mtime = len(data), epoch
            entry.mode = 0o755 if data.startswith(b"#!") else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def sources(suite: str) -> list[str]:
    """Lines of sources.list for what this host's own apt has of the suite; none: mmdebstrap knows the usual mirrors."""
    form = "$(RELEASE) $(COMPONENT) $(REPO_URI) $(ORIGIN)"
    said = processes.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], package="apt").decode()
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    found: dict[tuple[str, str], list[str]] = {}
    for fields in map(str.split, said.splitlines()):
        if len(fields) == 4 and fields[0] in wanted and fields[3] == "Debian":
            release, component, uri, _ = fields
            components = found.setdefault((uri, release), [])
            if component not in components:
                components.append(component)
    if not any(release == suite for _, release in found):
        return []
    return [f"deb {uri} {release} {' '.join(components)}" for (uri, release), components in sorted(found.items())]


def _proxy_options() -> list[str]:
    """The proxies that this host's apt is set to use, which mmdebstrap does not ask for."""
    said = processes.run(["apt-config", "dump"], package="apt").decode()
    return [f"--aptopt={line}" for line in said.splitlines() if re.match(r'Acquire::\w+::Proxy\S* "[^"]', line)]


def _work(cache: Path) -> Path:
    return cache / "work"
