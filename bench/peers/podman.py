"""podman as Debian ships it, with a store of its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench import processes, timing
from bench.peers.base import IMAGE, CommandLine, Scene


class Podman(CommandLine):
    """podman with the faster of the two runtimes: crun where it works, else runc."""

    name = "podman"
    remove_options = ("rm", "-f", "-t", "0")

    def setup(self, scene: Scene, stack: ExitStack) -> str:
        """Choose the runtime, import the image."""
        program = timing.find("podman", "podman")
        timing.find("conmon", "conmon")
        home = scene.directory("podman")
        for directory in ("networks", "tmp"):
            (home / directory).mkdir()
        self.env = timing.environment(TMPDIR=str(home / "tmp"))
        options = {
            "root": home / "store",
            "runroot": "/run/podman",
            "tmpdir": "/run/podman-tmp",
            "network-config-dir": home / "networks",
            "cgroup-manager": "cgroupfs",
            "events-backend": "file",
            "storage-driver": "overlay",
        }
        common = (program, *(f"--{key}={value}" for key, value in options.items()))
        self.run_options = ("--cgroup-parent", f"/{scene.name}-podman")
        self.prefix = (*common, "--runtime=runc")
        self.import_tar(scene.archive, IMAGE)
        stack.callback(self.command, "rm", "-f", "-t", "0", "-a")
        runtime = self._choose_runtime(common)
        version = timing.output([program, "--version"]).split()[-1]
        return f"{version} with {runtime}"

    def _choose_runtime(self, common: tuple[str, ...]) -> str:
        """crun is Debian's default and faster; it refuses some hosts, where runc takes its place."""
        for runtime in ("crun", "runc"):
            self.prefix = (*common, f"--runtime={runtime}")
            try:
                self.run_true(network=False)
            except timing.Unusable:
                if runtime == "runc":
                    raise
            else:
                break
        return runtime

    def import_tar(self, archive: Path, image: str) -> float:
        """`podman import`."""
        return self.command("import", "-q", str(archive), image)

    def remove_image(self, image: str) -> None:
        """Remove an image and its layer."""
        self.command("rmi", image)

    def keepers(self) -> list[int]:
        """conmon, one per container."""
        return processes.named("conmon")

    def daemons(self) -> list[int]:
        """None: every command is a process of its own."""
        return []
