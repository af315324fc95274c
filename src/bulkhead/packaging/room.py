"""Working in a room: commands with what they say, files in and out, a watch over some of it."""

from __future__ import annotations

import io
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from struct import Struct

from bulkhead import client as wire
from bulkhead.client import Client
from bulkhead.client.rooms import HeldRoom
from bulkhead.errors import AgentError, BulkheadError, HostError
from bulkhead.packaging.judge import Steps

_U32, _EXIT = Struct("<I"), Struct("<II")
MOST_OUTPUT = 64 << 20
"""Bytes of a command's output that are kept: the last ones."""
MOST_FILE = 256 << 20
WAIT_SECONDS = 120.0
CHUNK = 1 << 18

Output = Callable[[bytes], None]


def no_output(data: bytes) -> None:
    """Nobody listens."""


class Room:
    """A room that runs. Its commands are run as root or as a user of its own."""

    def __init__(self, client: Client, held: HeldRoom) -> None:
        self._client = client
        self._held = held

    def run(
        self,
        *argv: str,
        user: str = "root",
        workdir: str = "/",
        env: Mapping[str, str] | None = None,
        output: Output = no_output,
    ) -> tuple[int, bytes]:
        """Run a command to its end: its exit code (128 + N for signal N), and what it said on both outputs."""
        variables = [f"{key}={value}" for key, value in (env or {}).items()]
        body = {"command": list(argv), "user": user, "workdir": workdir, "env": variables}
        said = bytearray()
        with Client(self._client.path) as client, client.duplex(self._held.path("exec"), body) as stream:
            frames = stream.waiting()
            while True:
                for kind, channel, payload in frames:
                    if kind == wire.DATA:
                        output(payload)
                        said += payload
                        del said[:-MOST_OUTPUT]
                        stream.send(wire.CREDIT, _U32.pack(len(payload)), channel)
                    elif kind == wire.EXIT:
                        code, number = _EXIT.unpack(payload)
                        return (128 + number if number else code), bytes(said)
                    elif kind == wire.PROBLEM:
                        raise wire.problem(payload)
                frames = stream.receive()

    def must(self, *argv: str, what: str, env: Mapping[str, str] | None = None, workdir: str = "/") -> bytes:
        """The same for what has to succeed. Raises AgentError with what it said last."""
        code, said = self.run(*argv, env=env, workdir=workdir)
        if code:
            last = " / ".join(said.decode(errors="replace").strip().splitlines()[-6:])
            raise AgentError(f"{what} failed with {code}: {last or 'no message'}")
        return said

    def read(self, path: str) -> str:
        """A text file of the room's. Raises AgentError."""
        return self.must("cat", path, what=f"reading {path}").decode(errors="replace")

    def files(self, path: str) -> Iterator[tuple[str, bytes]]:
        """Names and contents of a file, or of those in a directory. Raises HostError where one is too large."""
        with ExitStack() as always:
            client = always.enter_context(Client(self._client.path))
            answer = always.enter_context(client.stream("GET", self._held.path("files"), query={"path": path}))
            archive = always.enter_context(tarfile.open(fileobj=_Portions(answer.portions()), mode="r|"))
            for member in archive:
                if not member.isreg():
                    continue
                if member.size > MOST_FILE:
                    raise HostError(f"{member.name} of the room has {member.size} bytes, more than {MOST_FILE}")
                file = archive.extractfile(member)
                yield member.name.rpartition("/")[2], file.read() if file else b""

    def put(self, paths: Iterable[Path], directory: str) -> None:
        """Copy files and directories of the host's below a directory of the room's, owned by its root."""
        self.must("mkdir", "-p", directory, what=f"making {directory}")
        with tempfile.TemporaryFile() as file, Client(self._client.path) as client:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for path in paths:
                    archive.add(path, arcname=path.name, filter=_as_root)
            file.seek(0)
            chunks = iter(lambda: file.read(CHUNK), b"")
            client.upload("PUT", self._held.path("files"), chunks, query={"path": directory}).close()

    @contextmanager
    def watched(self) -> Iterator[Steps]:
        """What is opened while the block lasts; complete after it."""
        steps, failed = Steps(), list[BaseException]()
        with Client(self._client.path) as client, client.stream("GET", self._held.path("watch")) as answer:
            lines = answer.json_lines()
            next(lines)  # from here on nothing is missed

            def read() -> None:
                try:
                    for line in lines:
                        steps.take(line)
                except BaseException as error:
                    failed.append(error)

            reader = threading.Thread(target=read, name="watch", daemon=True)
            reader.start()
            try:
                yield steps
            finally:
                with suppress(BulkheadError):  # it has ended with the room
                    self._client.call("DELETE", self._held.path("watch"))
                reader.join(WAIT_SECONDS)
        if failed:
            raise failed[0]


@contextmanager
def opened(client: Client, request: dict[str, object]) -> Iterator[Room]:
    """A room that runs nothing of its own, from here to the end of the block."""
    idle = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
    with HeldRoom(client, {**request, "entrypoint": [], "command": list(idle)}) as held:
        client.call("POST", held.path("start"))
        yield Room(client, held)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (member.isreg() or member.isdir() or member.issym()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


class _Portions(io.RawIOBase):
    """An answer's body as a file."""

    def __init__(self, portions: Iterator[bytes]) -> None:
        self._portions = portions
        self._rest = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Exactly so many bytes, less at the end."""
        while size is None or size < 0 or len(self._rest) < size:
            portion = next(self._portions, b"")
            if not portion:
                size = len(self._rest)
                break
            self._rest += portion
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
