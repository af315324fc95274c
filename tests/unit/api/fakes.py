"""A fake engine, a fake agent, and a server around them."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import TO_AGENT, Decoder, ExecFlag, ExecRequest, Frame, Type, encode
from bulkhead.agent.operations import Code, Operation
from bulkhead.api.app import create_app
from bulkhead.api.server import Server
from bulkhead.audit.assessing import assess
from bulkhead.engine.builds.order import BuildOrder, Tell, Told
from bulkhead.engine.context import Context
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.operations import Operations
from bulkhead.engine.users import Users
from bulkhead.errors import BuildFailed, CommandNotFound, Conflict, NotFound, Problem, Refused
from bulkhead.events import Event, Progress, Step
from bulkhead.isolation.base import Ability
from bulkhead.model import (
    DEFAULT_TENANT,
    CreateRequest,
    Exit,
    Instance,
    Isolation,
    NamedPlan,
    Network,
    Plan,
    PlanRequest,
    RestartPolicy,
    Snapshot,
    Spec,
    State,
    Volume,
)
from bulkhead.overlay import Overlay
from bulkhead.secret import Secret
from bulkhead.store import SQLiteStore, Store
from bulkhead.store import State as RecordState
from bulkhead.store.access import Access
from bulkhead.tenancy.quotas import Quota
from tests.unit.audit.lab import container, gathered, line

PLAN = Plan(memory=512 << 20, cpus=2, disk=5 << 30)


@dataclass(frozen=True)
class Line:
    """An entry of a log."""

    when: float
    stream: str
    text: bytes
    partial: bool = False


def named(items: dict[str, Any], name: str) -> Any:
    """What has that name, or NotFound."""
    try:
        return items[name]
    except KeyError:
        raise NotFound(f"{name!r} does not exist", hint="see the list") from None


class FakePlans:
    """Plans in memory."""

    def __init__(self) -> None:
        self.items = {"default": NamedPlan(name="default", plan=PLAN)}

    def list(self) -> Sequence[NamedPlan]:
        return list(self.items.values())

    def get(self, name: str) -> NamedPlan:
        return named(self.items, name)  # type: ignore[no-any-return]

    def create(self, name: str, asked: PlanRequest) -> NamedPlan:
        if name in self.items:
            raise Conflict(f"plan {name} exists", hint="choose another name")
        self.items[name] = NamedPlan(name=name, plan=Plan(**asked.model_dump(exclude={"name"}, exclude_none=True)))
        return self.items[name]

    def remove(self, name: str) -> None:
        del self.items[self.get(name).name]


class FakeNetworks:
    """Networks in memory."""

    def __init__(self) -> None:
        self.items: dict[str, Network] = {}

    def list(self) -> Sequence[Network]:
        return list(self.items.values())

    def get(self, name: str) -> Network:
        return named(self.items, name)  # type: ignore[no-any-return]

    def create(
        self,
        name: str,
        *,
        subnet4: str | None,
        subnet6: str | None,
        tenant: str | None,
        fleet: bool = False,
        unencrypted: bool = False,
    ) -> Network:
        overlay = Overlay(vni=5000, mtu=1450, encrypted=not unencrypted)
        made = Network(
            name=name,
            tenant=tenant or DEFAULT_TENANT,
            id="0" * 8,
            subnet4=subnet4 or "10.0.0.0/24",
            subnet6=subnet6 or "fd00::/64",
            overlay=overlay if fleet else None,
        )
        self.items[name] = made
        return made

    def remove(self, name: str) -> None:
        del self.items[self.get(name).name]


class FakeVolumes:
    """Volumes in memory."""

    def __init__(self) -> None:
        self.items: dict[str, Volume] = {}

    def list(self) -> Sequence[Volume]:
        return list(self.items.values())

    def get(self, name: str) -> Volume:
        return named(self.items, name)  # type: ignore[no-any-return]

    def create(self, name: str, *, size: int | None, tenant: str | None) -> Volume:
        self.items[name] = Volume(name=name, tenant=tenant or DEFAULT_TENANT, size=size or 1 << 30)
        return self.items[name]

    def remove(self, name: str) -> None:
        del self.items[self.get(name).name]


class FakeSecrets:
    """Secrets in memory."""

    def __init__(self) -> None:
        self.items: dict[str, Secret] = {}

    def list(self) -> Sequence[Secret]:
        return list(self.items.values())

    def get(self, name: str) -> Secret:
        return named(self.items, name)  # type: ignore[no-any-return]

    def create(self, name: str, value: bytes, *, labels: Mapping[str, str], replace: bool) -> Secret:
        if name in self.items and not replace:
            raise Conflict(f"secret {name} exists")
        made = Secret(name=name, id="5" * 32, size=len(value), labels=dict(labels), created=1.0, updated=1.0)
        self.items[name] = made
        return made

    def remove(self, name: str) -> None:
        del self.items[self.get(name).name]


class FakeSnapshots:
    """Snapshots in memory, of the engine's instances."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.items: dict[str, Snapshot] = {}

    def list(self, ref: str | None = None) -> Sequence[Snapshot]:
        wanted = self._engine.get(ref).spec.id if ref else ""
        return [item for item in self.items.values() if wanted in ("", item.spec.id)]

    def get(self, ref: str, name: str) -> Snapshot:
        return named(self.items, f"{self._engine.get(ref).spec.name}/{name}")  # type: ignore[no-any-return]

    def create(self, ref: str, *, name: str | None, memory: bool, progress: Progress) -> Snapshot:
        progress(Step("copying the disk", 1 << 20, 1 << 20, "bytes"))
        spec = self._engine.get(ref).spec
        if memory:
            raise Refused("no memory here", hint="leave out --memory")
        made = Snapshot(id=f"{len(self.items):032x}", name=name or "snap0", spec=spec, size=1 << 20, created=1.0)
        self.items[made.reference] = made
        return made

    def restore(self, ref: str, name: str, *, force: bool, memory: bool, progress: Progress) -> Instance:
        found = self.get(ref, name)
        progress(Step(f"copying the disk of {found.reference}"))
        self._engine.calls.append(("restore", found.reference, force, memory))
        return self._engine.get(ref)

    def remove(self, ref: str, name: str) -> None:
        del self.items[self.get(ref, name).reference]


class FakeTenants:
    """No tenants but the operator's."""

    def list(self) -> list[object]:
        return []

    def get(self, name: str) -> object:
        raise NotFound(f"no such tenant: {name}")

    def create(self, name: str, *, quota: Quota, levels: Sequence[Isolation] | None) -> object:
        return {"name": name, "quota": quota, "levels": levels}

    def update(self, name: str, *, quota: Quota | None, levels: Sequence[Isolation] | None) -> object:
        return {"name": name, "quota": quota, "levels": levels}

    def remove(self, name: str) -> None:
        raise NotFound(f"no such tenant: {name}")


class FakeImages:
    """Images that are made of nothing."""

    def publish(self, reference: str, *, public: bool) -> str:
        self.seen.append((reference, public))
        return reference

    def published(self) -> Sequence[str]:
        return ["debian:bookworm"]

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.mirrors: tuple[str, ...] = ()
        self.error: Exception | None = None

    def list(self) -> Sequence[object]:
        return [
            {
                "references": ["debian:bookworm"],
                "digest": "sha256:" + "1" * 64,
                "kind": "rootfs",
                "architecture": "amd64",
                "created": None,
                "size": 100 << 20,
            }
        ]

    def inspect(self, reference: str) -> object:
        return named({"debian:bookworm": {"references": ["debian:bookworm"], "config": {}}}, reference)

    def import_file(
        self, source: Path | BinaryIO, *, name: str | None, changes: Sequence[str] = (), progress: Progress
    ) -> object:
        self.seen.append(tuple(changes))
        progress(Step("reading", 0, 10, "bytes"))
        size = source.stat().st_size if isinstance(source, Path) else len(source.read())
        progress(Step("reading", 10, 10, "bytes"))
        if self.error:
            raise self.error
        return {"references": [name] if name else [], "digest": "sha256:" + "2" * 64, "size": size}

    def bootstrap(
        self,
        release: str,
        *,
        packages: Sequence[str],
        name: str | None,
        architecture: str | None,
        mirrors: Sequence[str],
        config: Mapping[str, object],
        progress: Progress,
    ) -> object:
        progress(Step(f"packages of {release}"))
        self.seen.append((release, tuple(packages), name, architecture, dict(config)))
        self.mirrors = tuple(mirrors)
        return {"references": [name or release]}

    def bootstrap_disk(
        self,
        release: str,
        *,
        packages: Sequence[str],
        name: str | None,
        size: int | None,
        firmware: str | None,
        progress: Progress,
    ) -> object:
        progress(Step(f"disk of {release}"))
        self.seen.append((release, tuple(packages), name, size, firmware))
        return {"references": [name or f"disk/{release}"]}

    def make_kernel(
        self, distribution: str, *, trim: bool, version: str | None, name: str | None, progress: Progress
    ) -> object:
        progress(Step(f"kernel of {distribution}"))
        self.seen.append((distribution, trim, version, name))
        return {"references": [name or "kernel/debian:latest"]}

    def remove(self, reference: str, *, force: bool) -> object:
        self.inspect(reference)
        return [f"removed {reference}", f"force {force}"]

    def prune(self, *, everything: bool) -> object:
        return {"digests": ["sha256:" + "3" * 64], "freed": 1 << 20 if everything else 0}


class FakeAudits:
    """Finds the same in every instance."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self.calls = calls

    def audit(self, instance: Instance, *, progress: Progress) -> object:
        name = instance.spec.name
        progress(Step("looking about as root"))
        self.calls.append(("audit", name))
        return assess(gathered(container(line("attempt", name="io_uring", result=0)), instance=name))

    def audit_level(self, level: Isolation, *, image: str | None, progress: Progress) -> object:
        progress(Step(f"making a {level} of {image}"))
        self.calls.append(("audit_level", level, image))
        if level is Isolation.UNIKERNEL and image is None:
            raise Refused("there is no image that a unikernel could be made of", hint="--image NAME")
        return assess(gathered(container(), level=str(level), image=image or "debian"))


def in_no_fleet(directory: Path) -> Member:
    """The fleet of a host that is in none."""

    def no_store(_: object) -> Store:
        raise AssertionError("a host that is in no fleet opens no store of one")

    context = SimpleNamespace(config=SimpleNamespace(state_dir=directory), places=SimpleNamespace(member=None))
    return Member(cast(Context, context), open_store=no_store)


class FakeEngine:
    """Instances in memory; `agent` plays the workload's part."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.images = FakeImages()
        self.plans = FakePlans()
        self.networks = FakeNetworks()
        self.volumes = FakeVolumes()
        self.secrets = FakeSecrets()
        self.snapshots = FakeSnapshots(self)
        self.state = RecordState(SQLiteStore(directory / "state.db"), uid_base=1_000_000)
        self.operations = Operations(self.state)
        self.access = Access(self.state)
        self.users = Users(self.access)
        self.tenants = FakeTenants()
        self.fleet = in_no_fleet(directory)
        self.instances: dict[str, Instance] = {}
        self.requests: list[CreateRequest] = []
        self.calls: list[tuple[Any, ...]] = []
        self.audits = FakeAudits(self.calls)
        self.futures: dict[str, list[Future[Exit]]] = {}
        self.lines: list[Line] = []
        self.happened: list[Event] = []
        self.uploaded = b""
        self.agent: FakeAgent | None = None
        self.start_error: Exception | None = None
        self.watched = threading.Event()
        """Set when somebody follows logs or events; cleared by the test."""
        self.forgotten = threading.Event()

    def seen_by(self, tenant: str) -> FakeEngine:
        return self

    # --- instances

    def create(self, request: CreateRequest, *, at_once: bool = False) -> Instance:
        if request.image == "missing":
            raise NotFound("image 'missing' does not exist", hint="bulkhead image ls shows what there is")
        if request.image == "wrong":
            raise Refused([Problem("memory is too much", "less"), Problem("cpus are too many", "fewer")])
        self.requests.append(request)
        identifier = f"{len(self.requests):032x}"
        spec = Spec(
            id=identifier,
            name=request.name or f"name-{len(self.requests)}",
            image=request.image or f"of {request.snapshot}",
            image_digest="sha256:" + "1" * 64,
            isolation=request.isolation,
            plan=PLAN,
            argv=request.command or ("sh",),
            env=request.env,
            labels=request.labels,
            hostname="host",
            network=request.network or "default",
            ports=request.ports,
            tty=request.tty,
            stdin=request.stdin,
            auto_remove=request.auto_remove,
            created=1_700_000_000.0,
        )
        self.instances[identifier] = Instance(spec=spec, state=State.CREATED)
        return self.instances[identifier]

    def build(self, order: BuildOrder, files: Iterator[bytes], *, tell: Tell, alive: Callable[[], bool]) -> object:
        """Tells one step and keeps the context."""
        tell(Told("begin", 1, text=order.containerfile))
        self.uploaded = b"".join(files)
        if "fail" in order.containerfile:
            raise BuildFailed("line 1: RUN ended with code 3")
        return {"digest": "sha256:" + "3" * 64, "names": order.names, "alive": alive()}

    def dry_run(self, request: CreateRequest) -> str:
        return f"mount {request.image}"

    def start(self, ref: str, *, on_launch: Callable[[Path], None] | None = None) -> Instance:
        instance = self.get(ref)
        self.calls.append(("start", instance.spec.name))
        if self.agent:
            self.agent.ended = lambda code: self.end(instance.spec.id, Exit(code=code))
            if on_launch:
                on_launch(self.agent.path)
        if self.start_error:
            raise self.start_error
        changed = self._change(instance, state=State.RUNNING, pid=42)
        if self.agent:
            self.agent.started.set()
        return changed

    def _change(self, instance: Instance, **changes: object) -> Instance:
        self.instances[instance.spec.id] = instance.model_copy(update=changes)
        return self.instances[instance.spec.id]

    def end(self, identifier: str, how: Exit) -> None:
        """The workload has ended."""
        instance = self._change(self.get(identifier), state=State.EXITED, exit=how, pid=0)
        if instance.spec.auto_remove:
            del self.instances[identifier]
        for future in self.futures.pop(identifier, []):
            future.set_result(how)

    def stop(self, ref: str, *, timeout: float | None = None, signal: str | None = None) -> Instance:
        self.calls.append(("stop", self.get(ref).spec.name, timeout, signal))
        return self._change(self.get(ref), state=State.EXITED, exit=Exit(code=143, signal=15), pid=0)

    def kill(self, ref: str, *, signal: str = "SIGKILL") -> Instance:
        self.calls.append(("kill", self.get(ref).spec.name, signal))
        return self.get(ref)

    def pause(self, ref: str) -> Instance:
        self.calls.append(("pause", self.get(ref).spec.name))
        return self._change(self.get(ref), state=State.PAUSED)

    def unpause(self, ref: str) -> Instance:
        self.calls.append(("unpause", self.get(ref).spec.name))
        return self._change(self.get(ref), state=State.RUNNING)

    def delete(self, ref: str, *, force: bool = False) -> str:
        instance = self.get(ref)
        self.calls.append(("delete", instance.spec.name, force))
        if instance.state is State.RUNNING and not force:
            raise Conflict(f"instance {instance.spec.name} is running", hint=f"bulkhead rm -f {instance.spec.name}")
        del self.instances[instance.spec.id]
        return instance.spec.id

    def wait(self, ref: str) -> Future[Exit]:
        instance = self.get(ref)
        future: Future[Exit] = Future()
        if instance.exit:
            future.set_result(instance.exit)
        else:
            self.futures.setdefault(instance.spec.id, []).append(future)
        return future

    def get(self, ref: str) -> Instance:
        for instance in self.instances.values():
            if ref in (instance.spec.id, instance.spec.name) or (len(ref) >= 4 and instance.spec.id.startswith(ref)):
                return instance
        raise NotFound(f"no instance answers to {ref!r}", hint="bulkhead ps -a shows all")

    def list(self) -> Sequence[Instance]:
        return list(self.instances.values())

    def describe(self, ref: str) -> Mapping[str, object]:
        instance = self.get(ref)
        return {"id": instance.spec.id, "name": instance.spec.name, "not_isolated": [], "exit": instance.exit}

    def update(self, ref: str, plan: PlanRequest, *, restart: RestartPolicy | None = None) -> Instance:
        self.calls.append(("update", self.get(ref).spec.name, plan.model_dump(exclude_none=True), restart))
        return self.get(ref)

    def walls(self) -> Mapping[str, object]:
        levels = [{"level": level, "works": level != "vm", "reason": "", "hint": ""} for level in Isolation]
        return {"levels": levels, "rules": []}

    def stats(self, refs: Sequence[str] | None) -> Sequence[object]:
        instances = [self.get(ref) for ref in refs] if refs else self.list()
        return [
            {
                "id": i.spec.id,
                "name": i.spec.name,
                "when": time.time(),
                "memory": 10 << 20,
                "memory_limit": 512 << 20,
                "cpu_seconds": time.time(),
                "cpus": 2.0,
                "pids": 3,
                "pids_limit": 512,
                "disk_used": 1 << 20,
                "disk_size": 5 << 30,
                "disk_read": 4096,
                "disk_written": 8192,
                "disk_reads": 1,
                "disk_writes": 2,
                "received": 1000,
                "sent": 2000,
            }
            for i in instances
        ]

    # --- inside

    def prepare_attach(self, ref: str) -> Path:
        instance = self.get(ref)
        if instance.state is not State.RUNNING:
            raise Conflict(f"instance {instance.spec.name} is {instance.state}, not running")
        assert self.agent
        return self.agent.path

    def collects(self, ref: str) -> bool:
        self.get(ref)
        return False

    def collect(self, ref: str, **asked: object) -> Collected:
        raise AssertionError(f"nothing is collected in {ref}: {asked}")

    def prepare_exec(
        self,
        ref: str,
        *,
        argv: Sequence[str],
        env: Sequence[str],
        user: str | None,
        workdir: str | None,
        tty: bool,
        stdin: bool,
    ) -> tuple[Path, ExecRequest]:
        self.get(ref)
        self.calls.append(("exec", tuple(argv), tuple(env), user, workdir))
        flags = (ExecFlag.TERMINAL if tty else 0) | (ExecFlag.STDIN if stdin else 0)
        assert self.agent
        request = ExecRequest(inside=(Operation(Code.EXEC, tuple(argv)),), flags=ExecFlag(flags), setns_flags=0x20000)
        return self.agent.path, request

    def logs(
        self, ref: str, *, since: float, until: float, tail: int | None, follow: Callable[[], bool] | None
    ) -> Iterator[Line]:
        self.get(ref)
        lines = [line for line in self.lines if since <= line.when <= until]
        yield from lines if tail is None else lines[len(lines) - tail :]
        if follow:
            yield from self._followed(follow, len(self.lines), self.lines)

    def _followed(self, follow: Callable[[], bool], seen: int, items: list[Any]) -> Iterator[Any]:
        self.watched.set()
        while follow():
            while seen < len(items):
                yield items[seen]
                seen += 1
            time.sleep(0.02)
        self.forgotten.set()

    def events(
        self, *, since: float, until: float | None, follow: Callable[[], bool] | None, after: int = 0
    ) -> Iterable[Event]:
        for number, event in enumerate(self.happened, 1):
            if number > after and since <= event.when and (until is None or event.when < until):
                yield replace(event, number=number)
        if follow:
            yield from self._followed(follow, len(self.happened), self.happened)

    def copy_out(self, ref: str, path: str) -> Iterator[bytes]:
        self.get(ref)
        if path == "/slow/none":
            time.sleep(0.2)
            raise NotFound(f"{path} does not exist in the instance")
        if path == "/broken":
            yield b"x" * 1000
            raise Conflict("it broke in the middle")
        if path not in ("/etc/file", "/etc", "/etc/."):
            raise NotFound(f"{path} does not exist in the instance")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            if path.startswith("/etc") and path != "/etc/file":
                directory = tarfile.TarInfo("etc")
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(directory)
            member = tarfile.TarInfo("etc/file" if path != "/etc/file" else "file")
            member.size, member.mode = 5, 0o640
            archive.addfile(member, io.BytesIO(b"hello"))
        yield buffer.getvalue()

    def copy_in(self, ref: str, path: str, stream: BinaryIO) -> None:
        self.calls.append(("copy_in", self.get(ref).spec.name, path))
        self.uploaded = stream.read()

    def doctor(self) -> Sequence[Ability]:
        return [Ability("isolation container", True), Ability("lxcfs", False, "not installed", "apt install lxcfs")]

    def info(self) -> Mapping[str, object]:
        return {"version": "0.1.0", "config": {"run_dir": self.directory}}

    def host(self) -> Mapping[str, object]:
        def row(resource: str, unit: str, amounts: Sequence[float], used: float | None) -> dict[str, object]:
            names = ("host", "reserve", "ratio", "sellable", "sold", "free")
            return {"resource": resource, "unit": unit, **dict(zip(names, amounts, strict=True)), "used": used}

        gib = 1 << 30
        fits = {
            "container": {"more": 30, "ends": "memory", "reason": ""},
            "vm": {"more": 0, "ends": "", "reason": "no swap"},
        }
        return {
            "cores": 2,
            "ghz": 2.5,
            "factor": 1.0,
            "factor_source": "",
            "kernel": "6.1",
            "instances": 3,
            "running": 2,
            "resources": [
                row("memory", "bytes", (16 * gib, gib, 1.0, 15 * gib, 16 * gib, -gib), 5 << 20),
                row("cpu", "GHz", (5.0, 0.25, 4.0, 19.0, 1.9, 17.1), 0.02),
                row("bandwidth", "bits/s", (10**9, 0, 1.0, 10**9, 0, 10**9), None),
            ],
            "plans": [{"name": "default", "fits": fits}],
            "cpu_models": ["qemu64", "Nehalem"],
            "merged": 3 << 20,
            "warnings": ["memory: 1G more are sold than there is to sell"],
        }

    def recover(self) -> Sequence[str]:
        self.calls.append(("recover",))
        return ["something was mended"]

    def close(self) -> None:
        self.calls.append(("close",))


@dataclass
class FakeAgent:
    """Listens on a socket and speaks frames. `workload` is called for every attached or executed stream."""

    path: Path
    workload: Callable[[Talk], int]
    ended: Callable[[int], object] = lambda code: None
    started: threading.Event = field(default_factory=threading.Event)
    error: bytes = b""
    """What EXEC is answered with instead of OK."""
    seen: list[Frame] = field(default_factory=list)

    def serve(self) -> None:
        """Listen, from now on, in a thread."""
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            talk = Talk(self, connection)
            request = talk.next()
            if request is None:
                return
            if request.type is Type.EXEC and self.error:
                talk.send(Frame(Type.ERROR, 1, self.error))
                return
            talk.send(Frame(Type.OK, 1, struct.pack("<I", 77) if request.type is Type.EXEC else b""))
            if request.type is Type.ATTACH:
                self.started.wait(10)
            code = self.workload(talk)
            if request.type is Type.ATTACH and code >= 0:
                self.ended(code)
            if code >= 0:
                talk.send(Frame(Type.EXIT, 1, struct.pack("<II", code, 0)))
                connection.recv(1)


class Talk:
    """One connection of the fake agent's, as the workload sees it."""

    def __init__(self, agent: FakeAgent, connection: socket.socket) -> None:
        self._agent, self._connection = agent, connection
        self._decoder = Decoder(TO_AGENT)
        self._waiting: list[Frame] = []

    def next(self) -> Frame | None:
        """The next frame from the relay; None at the end."""
        while not self._waiting:
            data = self._connection.recv(1 << 17)
            if not data:
                return None
            self._waiting = self._decoder.feed(data)
            self._agent.seen += self._waiting
        return self._waiting.pop(0)

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        self._connection.sendall(encode(frame))

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(data)

    def out(self, data: bytes, channel: int = 1) -> None:
        """Output of the workload's."""
        self.send(Frame(Type.DATA, 1, data, channel))


class ThreadServer(Server):
    """The server in a thread: signals are the main thread's."""

    def capture_signals(self) -> Any:
        return nullcontext()


@contextmanager
def served(engine: FakeEngine, path: Path) -> Iterator[None]:
    """The API over `engine` on the unix socket `path`."""
    app = create_app(engine)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    server = ThreadServer(app)
    loop: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()

    async def main() -> None:
        loop.append(asyncio.get_running_loop())
        ready.set()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: server_run(main), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop[0].call_soon_threadsafe(server._end.set)
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"
        app.state.service.close()
        path.unlink(missing_ok=True)


def server_run(main: Callable[[], Any]) -> None:
    """Run on the event loop that the daemon uses."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def command_not_found() -> CommandNotFound:
    """What a start without the program raises."""
    return CommandNotFound("command not found: nope", hint="check the command")
