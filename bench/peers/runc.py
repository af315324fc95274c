"""Bare runc and crun: the runtime alone on an unpacked root, with the runtime's own default specification."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import ClassVar

from bench import timing
from bench.peers.base import Scene, Starter


class Runc(Starter):
    """`runc run` of a bundle: no image, no log, no store, an empty network namespace."""

    name: ClassVar[str] = "runc"

    def setup(self, scene: Scene, stack: ExitStack) -> str:  # noqa: ARG002 - nothing to undo
        """Write the bundle."""
        self._program = timing.find(self.name, self.name)
        self._bundle = scene.directory(self.name)
        self._state = f"--root=/run/{self.name}-bench"
        timing.output([self._program, "spec", f"--bundle={self._bundle}"])
        path = self._bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"] |= {"args": ["true"], "terminal": False}
        config["root"] |= {"path": str(scene.root)}
        config["linux"]["cgroupsPath"] = f"/{scene.name}-{self.name}/true"
        path.write_text(json.dumps(config))
        self._turn = 0
        self.run_true(network=False)
        return timing.output([self._program, "--version"]).split()[2]

    def run_true(self, *, network: bool) -> float:
        """`runc run`, which removes the container at its end."""
        if network:
            raise timing.Unusable(f"{self.name} makes no network links")
        self._turn += 1
        return timing.timed([self._program, self._state, "run", f"--bundle={self._bundle}", f"true{self._turn}"])


class Crun(Runc):
    """`crun run` of the same bundle."""

    name = "crun"
