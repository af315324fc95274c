"""bulkhead image from-server: a server that runs elsewhere, a root directory or a disk becomes an image.

The shells are opened here, not by the daemon: ssh's configuration, keys and agent are the user's.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from bulkhead.cli import suggestion
from bulkhead.cli.app import App
from bulkhead.cli.output import printable, talk, write, write_json
from bulkhead.cli.parsing import Namespace
from bulkhead.errors import HostError, Refused
from bulkhead.host import remote
from bulkhead.host.remote import Running, Shell
from bulkhead.quantities import format_size
from bulkhead.servers import archiving, findings, fit, listing, mounted, suggest, survey
from bulkhead.servers.archiving import Complaints
from bulkhead.servers.findings import Findings, Wanted
from bulkhead.servers.listing import Difference, Listing
from bulkhead.servers.survey import Survey

_SHOWN = 5
HOLD_SECONDS = 120.0
"""Within which a helper machine has opened a disk."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the files are. `live`: it runs, and its processes can be looked at."""

    shell: Shell
    root: str
    live: bool
    name: str


@dataclass(frozen=True, slots=True)
class Copied:
    """An image, and what of the copying is to be told."""

    image: str
    changed: Difference
    while_read: tuple[str, ...]
    """Files that changed while they were read in the second pass."""


@contextmanager
def opened(app: App, target: str, options: Sequence[str]) -> Iterator[Server]:
    """The server that a word means: a directory here, a disk, or a host to log in to. Raises Refused, HostError."""
    if "://" not in target and os.path.exists(target):  # noqa: PTH110
        if not stat.S_ISDIR(os.stat(target).st_mode):  # noqa: PTH116
            with _on_disk(app, target) as server:
                yield server
            return
        if os.geteuid() != 0:
            raise Refused(f"only root can read every file of {target}", hint="use sudo")
        root = os.path.realpath(target)
        yield Server(remote.here(), root, root == "/", os.path.basename(root) or os.uname().nodename)  # noqa: PTH119
        return
    with remote.ssh(target, options) as shell:
        yield Server(_as_root(shell), "/", live=True, name="")


@contextmanager
def _on_disk(app: App, target: str) -> Iterator[Server]:
    """The system on a disk, opened read-only in a helper machine, as `rescue` does it."""
    from bulkhead.cli import rescue
    from bulkhead.client.rooms import HeldRoom

    path = os.path.abspath(target)  # noqa: PTH100
    request = rescue.request_of(path, plan={}, words=["--hold"], root=None, write=False, command=[])
    request |= {"image": rescue.prepare(app), "tty": False, "stdin": False}
    with HeldRoom(app.client, request) as room:
        app.client.call("POST", room.path("start"))
        config = ["--config", app.config] if app.config else []
        shell = remote.beside(
            [sys.executable, "-m", "bulkhead", *config, "exec", "-i", room.id], f"the helper of {target}"
        )
        deadline = time.monotonic() + HOLD_SECONDS
        while not _is_open(shell):
            if app.client.call("GET", room.path())["state"] != "running" or time.monotonic() > deadline:
                raise HostError(
                    f"no system was found on {target}", hint=f"bulkhead rescue {target} shows what is on it"
                )
            time.sleep(0.2)
        yield Server(shell, rescue.SYSTEM, False, os.path.basename(path).partition(".")[0])  # noqa: PTH119


def _is_open(shell: Shell) -> bool:
    try:
        shell.run("test -e /tmp/ready", limit=64)
    except HostError:
        return False
    return True


def _as_root(shell: Shell) -> Shell:
    """The shell, by sudo where its user is not root. Raises Refused where that is not allowed."""
    if shell.run("id -u", limit=64).strip() == b"0":
        return shell
    raised = Shell(shell.where, shell.before, shell.quoted, sudo=True)
    try:
        raised.run("true", limit=64)
    except HostError as error:
        what = f"the user of {shell.where} is not root, and sudo asks for a password or refuses"
        raise Refused(what, hint="log in as root, or let the user run sudo without a password for this") from error
    return raised


def look(server: Server, wanted: Wanted) -> tuple[Listing, Findings, tuple[str, ...]]:
    """The server's files, what is known of it, and file systems that are other hosts'."""
    shell = server.shell
    talk(printable(f"looking at {shell.where}" + ("" if server.live else f": {server.root}")))
    surveyed: Survey | None = None
    mounts = mounted.Mounted((".",), ())
    if server.live:
        surveyed = survey.parse(shell.run(survey.SCRIPT, limit=survey.MAX_SURVEY))
        mounts = mounted.read(surveyed.mountinfo)
    files = listed(server, mounts.starts)
    paths = findings.to_read(files)
    read = _read(server, paths) if paths else {}
    return files, findings.gather(files, read, surveyed, wanted), mounts.remote


def listed(server: Server, starts: Sequence[str]) -> dict[bytes, listing.Entry]:
    """Every file. Some may go while find looks: that is none of its failures which count."""
    with server.shell.stream(listing.script(server.root, starts), stdin=b"", on_line=_pass_over) as running:
        found = listing.parse(running.chunks)
        code = running.finish()
    if code not in (0, 1) or not found:
        raise HostError(
            f"the files of {server.shell.where} could not be listed: find ended with {code}",
            hint="GNU find and tar are needed there",
        )
    return found


def _pass_over(line: str) -> None:
    """What find complains of has gone, or is told by its exit code."""


def _read(server: Server, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """The contents of small files, by way of the reader that layers go through."""
    from bulkhead.images import tar
    from bulkhead.images.bounds import Bounds
    from bulkhead.images.reader import Reader

    found: dict[bytes, bytes] = {}
    with _tar(server, paths, Complaints()) as chunks:
        reader = Reader(chunks)
        notes: set[str] = set()
        for entry in tar.entries(reader, Bounds(total=findings.MOST_READ), must_end=True, notes=notes):
            data = reader.exactly(entry.stored)
            if entry.kind == b"0" and entry.segments is None:
                found[entry.path.removeprefix(b"./")] = data
        reader.drain()
    return found


@contextmanager
def _tar(server: Server, paths: Sequence[bytes], complaints: Complaints) -> Iterator[Iterator[bytes]]:
    """A tar of these files. Its chunks end in HostError where it is not whole."""
    script, names = archiving.script(server.root), archiving.names(paths)
    with server.shell.stream(script, stdin=names, on_line=complaints.hear) as running:
        yield _checked(running, server, complaints)


def _checked(running: Running, server: Server, complaints: Complaints) -> Iterator[bytes]:
    yield from running.chunks
    code = running.finish()
    if not complaints.fine(code):
        said = " / ".join(complaints.failed[:3]) or "no message"
        raise HostError(f"tar on {server.shell.where} failed with {code}: {printable(said)}")


def copy(
    app: App,
    server: Server,
    files: Listing,
    found: Findings,
    *,
    name: str,
    changes: Sequence[str],
    starts: Sequence[str],
    stop: Sequence[str],
) -> Copied:
    """Two passes: everything while the server runs, then what has changed meanwhile, with services stopped.

    The first one's image goes with this: its layer stays as part of the other.
    """
    chosen = found.choose(files)
    talk(f"copying {len(chosen.kept)} files, {format_size(chosen.size)}")
    from bulkhead.client.rooms import HeldName

    with HeldName(app.client) as first:
        with _tar(server, chosen.kept, Complaints()) as chunks:
            base = _upload(app, _metered(chunks, chosen.size), {"name": first.name})
        held = server.shell.held(archiving.stopping(stop), ready="stopped") if stop else nullcontext()
        complaints = Complaints()
        if stop:
            talk(printable(f"stopping {', '.join(stop)}"))
        with held:
            after = listed(server, starts)
            changed = found.since(files, after)
            talk(f"copying {len(changed.changed)} files that have changed, taking away {len(changed.gone)}")
            head = fit.entries(found.written(after), changed.gone, when=int(time.time()))
            with _tar(server, changed.changed, complaints) as chunks:
                image = _upload(app, _after(head, chunks), {"base": base, "name": name, "change": list(changes)})
    told = [line for line in (*complaints.changed, *complaints.vanished) if "/var/log/" not in line]
    return Copied(image, changed, tuple(told))


def _after(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from chunks


def _upload(app: App, chunks: Iterator[bytes], query: dict[str, str | int | float | bool | list[str] | None]) -> str:
    """Import a tar; the digest of what became of it."""
    from bulkhead.cli.steps import show

    with app.client.upload("POST", "/v1/images/import", chunks, query=query) as response:
        return str(show(response.json_lines())["digest"])


def _metered(chunks: Iterator[bytes], total: int) -> Iterator[bytes]:
    """Tell on a terminal how far it is."""
    done, told, terminal = 0, 0.0, sys.stderr.isatty()
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if terminal and time.monotonic() - told > 0.5:
            told = time.monotonic()
            sys.stderr.write(f"\r{format_size(done)} of {format_size(total)} \x1b[K")
            sys.stderr.flush()
    if terminal:
        sys.stderr.write("\r\x1b[K")


def main(args: Namespace, app: App) -> int:
    """Look, copy, suggest."""
    wanted = Wanted(args.minimize, tuple(args.exclude), tuple(args.keep))
    with opened(app, args.target, args.option) as server:
        _check_live(args, server)
        files, found, others = look(server, wanted)
        stop = findings.to_stop(found, args.stop, all_with_data=args.quiesce)
        title = suggestion.instance_name(args.name or server.name or (found.survey.name if found.survey else ""))
        image = args.name or f"server/{title.lower()}"
        advice = suggest.suggest(
            title, image, found.survey, found.services, found.data, init=found.init, volumes=args.volumes
        )
        notes = _notes(found, stop, others)
        digest = ""
        if not args.dry_run:
            copied = copy(
                app,
                server,
                files,
                found,
                name=image,
                changes=suggestion.image_changes(found, advice, server.shell.where),
                starts=mounted.read(found.survey.mountinfo).starts if found.survey else (".",),
                stop=stop,
            )
            digest, notes = copied.image, [*notes, *_told(copied)]
    chosen = found.choose(files)
    if args.format == "json":
        write_json(suggestion.as_json(found, chosen, advice, notes, image=image, digest=digest))
        return 0
    for line in suggestion.as_lines(found, chosen, advice, notes, image=image):
        write(printable(line))
    return 0


def _check_live(args: Namespace, server: Server) -> None:
    if not server.live and (args.stop or args.quiesce):
        what = f"{args.target} does not run: there is nothing that could be stopped"
        raise Refused(what, hint="leave out --stop and --quiesce, or name the server that runs")


def _notes(found: Findings, stop: Sequence[str], others: Sequence[str]) -> list[str]:
    """What whoever runs the image should know."""
    notes = [f"not copied, since it is another host's: {other}" for other in others]
    if databases := findings.unsafe(found, stop):
        notes.append(
            f"{', '.join(databases)} ran while its files were copied, which may be of different moments (use --quiesce)"
        )
    if not found.init:
        notes.append("there is no /sbin/init: name a command at the end of the line")
    notes.append("the image holds what the server held: host keys, certificates, password hashes; keep it as private")
    return notes


def _told(copied: Copied) -> list[str]:
    shown = ", ".join(copied.while_read[:_SHOWN])
    return [f"changed while it was read the second time: {shown}"] if copied.while_read else []
