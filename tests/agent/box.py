"""A container as the engine would ask for it, small: a layer, a disk (a plain directory), and the operations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead.agent.operations import Attr, Code, Operation, bind, mount, simple
from tests.agent.wire import (
    NEWCGROUP,
    NEWIPC,
    NEWNET,
    NEWNS,
    NEWPID,
    NEWUSER,
    NEWUTS,
    Agent,
    Connection,
    Start,
    exec_payload,
)

BASE, COUNT = 1_900_000_000, 65536
CLONE = NEWUSER | NEWPID
UNSHARE = NEWNS | NEWIPC | NEWUTS | NEWCGROUP
ALL = CLONE | UNSHARE
STRICT = Attr.NOSUID | Attr.NODEV | Attr.NOEXEC
PATH = "PATH=/bin"


@dataclass
class Box:
    """One instance: directories below `bundle`, and an agent. `user` False: no user namespace, as for a chroot."""

    bundle: Path
    layer: Path
    agent: Agent
    lower: list[Path] = field(default_factory=list)

    @classmethod
    def make(cls, bundle: Path, layer: Path, agent: Agent) -> Box:
        for name in ("disk/upper", "disk/work", "stage"):
            (bundle / name).mkdir(parents=True)
        return cls(bundle, layer, agent, [layer])

    @property
    def upper(self) -> Path:
        return self.bundle / "disk/upper"

    def own_layer(self) -> Path:
        """A layer of this box alone, on top, for hostile contents."""
        path = self.bundle / f"layer{len(self.lower)}"
        path.mkdir()
        self.lower.append(path)
        return path

    def stage(self, *more: Operation, idmap: bool = True) -> list[Operation]:
        flags = 1 if idmap else 0
        names = [f"l{number}" for number in range(len(self.lower))]
        return [
            simple(Code.STAGE, str(self.bundle / "stage")),
            *(
                simple(Code.ATTACH, str(path), name, int(Attr.RDONLY), flags)
                for path, name in zip(self.lower, names, strict=True)
            ),
            simple(Code.ATTACH, str(self.bundle / "disk"), "d", 0, flags),
            simple(Code.OVERLAY, ":".join(reversed(names)), "d/upper", "d/work", "root", int(Attr.NODEV)),
            simple(Code.ROOT, "root"),
            mount(
                "tmpfs",
                "/dev",
                attrs=Attr.NOSUID | Attr.NOEXEC,
                data=f"mode=755,size=64k,uid={BASE if idmap else 0},gid={BASE if idmap else 0}",
            ),
            *(simple(Code.DEVICE, name, f"/dev/{name}") for name in ("null", "zero", "tty", "urandom")),
            *more,
        ]

    @staticmethod
    def mounts(*, pts: bool = True) -> list[Operation]:
        return [
            mount("proc", "/proc", attrs=STRICT),
            *(
                [
                    mount(
                        "devpts",
                        "/dev/pts",
                        attrs=Attr.NOSUID | Attr.NOEXEC,
                        data="newinstance,ptmxmode=0666,mode=0620",
                    ),
                    simple(Code.SYMLINK, "pts/ptmx", "/dev/ptmx"),
                ]
                if pts
                else []
            ),
        ]

    def request(
        self,
        *argv: str,
        inside: Sequence[Operation] = (),
        mounts: Sequence[Operation] | None = None,
        stage: Sequence[Operation] = (),
        before_exec: Sequence[Operation] = (),
        network: bool = True,
        **more: Any,
    ) -> Start:
        """The START of a container that runs argv."""
        run = [simple(Code.ENV, PATH), *before_exec]
        return Start(
            stage=self.stage(*stage),
            inside=[
                *(self.mounts() if mounts is None else mounts),
                *inside,
                simple(Code.PIVOT),
                *run,
                *([simple(Code.EXEC, *argv)] if argv else []),
            ],
            clone=CLONE,
            unshare=UNSHARE | (NEWNET if network else 0),
            base=BASE,
            count=COUNT,
            **more,
        )

    def launch(self) -> Connection:
        self.agent.launch()
        return self.agent.connect()

    def run(self, *argv: str, **more: Any) -> tuple[int, bytes, bytes]:
        """From launch to the end: exit code, stdout, stderr."""
        connection = self.launch()
        stream = connection.attach()
        connection.start(self.request(*argv, **more))
        result = connection.collect(stream)
        assert self.agent.gone()
        return result.code, result.out, result.err

    def sh(self, script: str, **more: Any) -> tuple[int, bytes, bytes]:
        return self.run("sh", "-c", script, **more)

    def end(self) -> None:
        self.agent.end()
        shutil.rmtree(self.bundle)


def command(*argv: str, before_exec: Sequence[Operation] = (), setns: int = ALL | NEWNET, **more: Any) -> bytes:
    """The EXEC of argv in a box."""
    inside = [simple(Code.ENV, PATH), *before_exec, simple(Code.EXEC, *argv)]
    return exec_payload(inside, setns=setns, **more)


def cgroup_name(name: str) -> str:
    return f"bulkhead-test-{os.getpid()}-{name}"


__all__ = ["ALL", "BASE", "COUNT", "Box", "bind", "cgroup_name", "command", "mount", "simple"]
