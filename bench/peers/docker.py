"""docker as Debian ships it, with a dockerd and a containerd of its own."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

from bench import processes, timing
from bench.peers.base import IMAGE, CommandLine, ImageBuilder, Scene


class Docker(CommandLine, ImageBuilder):
    """docker; its daemon is started for the run."""

    name = "docker"
    pull_options = ()  # what is on loopback may speak HTTP anyway

    def setup(self, scene: Scene, stack: ExitStack) -> str:
        """Start dockerd, import the image."""
        program, daemon = timing.find("docker", "docker.io"), timing.find("dockerd", "docker.io")
        timing.find("containerd", "containerd")
        home = scene.directory("docker")
        self.env = timing.environment(DOCKER_CONFIG=str(home), TMPDIR=str(home))
        self.prefix = (program, "--host=unix:///run/docker-bench.sock")
        config = home / "daemon.json"
        config.write_text("{}")
        options = {
            "data-root": home / "data",
            "exec-root": "/run/docker-bench",
            "pidfile": "/run/docker-bench.pid",
            "host": "unix:///run/docker-bench.sock",
            "config-file": config,
            "cgroup-parent": f"/{scene.name}-docker",
            "exec-opt": "native.cgroupdriver=cgroupfs",
            "storage-driver": "overlay2",
        }
        self._log = home / "dockerd.log"
        with self._log.open("wb") as file:
            server = subprocess.Popen(
                [daemon, *(f"--{key}={value}" for key, value in options.items())],
                stdout=file,
                stderr=file,
                env=self.env,
            )
        stack.callback(processes.end, server, signal.SIGTERM)
        timing.wait_until(lambda: self._answers(server), what="dockerd", log=self._log)
        self.import_tar(scene.archive, IMAGE)
        stack.callback(self._remove_all)
        self.run_true(network=False)
        return timing.output([*self.prefix, "version", "--format={{.Server.Version}}"], env=self.env)

    def _answers(self, server: subprocess.Popen[bytes]) -> bool:
        if server.poll() is not None:
            raise timing.Unusable(f"dockerd ended with {server.returncode}: {timing.last_words(self._log)}")
        try:
            self.command("version")
        except timing.Unusable:
            return False
        return True

    def _remove_all(self) -> None:
        left = timing.output([*self.prefix, "ps", "-aq"], env=self.env).split()
        if left:
            self.remove(left)

    def import_tar(self, archive: Path, image: str) -> float:
        """`docker import`."""
        return self.command("import", str(archive), image)

    def build(self, context: Path, *, image: str, cache: bool) -> float:
        """`docker build`, by the builder in dockerd: BuildKit's client is no package of Debian 12."""
        options = ["build", "-t", image, *([] if cache else ["--no-cache"]), str(context)]
        return timing.timed([*self.prefix, *options], env={**(self.env or {}), "DOCKER_BUILDKIT": "0"})

    def remove_image(self, image: str) -> None:
        """Remove an image and its layer."""
        self.command("rmi", image)

    def keepers(self) -> list[int]:
        """containerd's shims, one per container."""
        return processes.named("containerd-shim")

    def daemons(self) -> list[int]:
        """dockerd and its containerd."""
        return processes.named("dockerd") + processes.named("containerd")
