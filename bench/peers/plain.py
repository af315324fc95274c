"""Programs that start an unpacked root and keep nothing: systemd-nspawn, lxc-execute, bwrap, chroot."""

from __future__ import annotations

from contextlib import ExitStack

from bench import timing
from bench.peers.base import Scene, Starter


class Plain(Starter):
    """One command line, run again and again."""

    argv: tuple[str, ...]

    def run_true(self, *, network: bool) -> float:
        """The command as a whole process."""
        if network:
            raise timing.Unusable(f"{self.name} is measured without a network alone")
        return timing.timed(self.argv)


class Nspawn(Plain):
    """systemd-nspawn without a service manager behind it."""

    name = "systemd-nspawn"

    def setup(self, scene: Scene, stack: ExitStack) -> str:  # noqa: ARG002 - nothing to undo
        """Try it once."""
        program = timing.find("systemd-nspawn", "systemd-container")
        options = ("--quiet", "--register=no", "--keep-unit", "--private-network", f"--directory={scene.root}")
        self.argv = (program, *options, "true")
        self.run_true(network=False)
        return timing.output([program, "--version"]).split()[1]


class Lxc(Plain):
    """lxc-execute with an empty network namespace."""

    name = "lxc-execute"

    def setup(self, scene: Scene, stack: ExitStack) -> str:  # noqa: ARG002 - nothing to undo
        """Write the configuration, try it once."""
        program = timing.find("lxc-execute", "lxc")
        home = scene.directory("lxc")
        config = home / "config"
        lines = {
            "lxc.uts.name": "bench",
            "lxc.rootfs.path": f"dir:{scene.root}",
            "lxc.net.0.type": "empty",
            "lxc.cgroup.dir": f"{scene.name}-lxc",
            "lxc.apparmor.profile": "unconfined",
            "lxc.mount.auto": "proc:mixed sys:mixed",
        }
        config.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        self.argv = (program, f"--lxcpath={home}", "--name=bench", f"--rcfile={config}", "--", "true")
        self.run_true(network=False)
        return timing.output([program, "--version"])


class Bwrap(Plain):
    """bubblewrap with every namespace it has; no cgroup, nothing to remove."""

    name = "bwrap"

    def setup(self, scene: Scene, stack: ExitStack) -> str:  # noqa: ARG002 - nothing to undo
        """Try it once."""
        program = timing.find("bwrap", "bubblewrap")
        view = ("--bind", str(scene.root), "/", "--proc", "/proc", "--dev", "/dev")
        self.argv = (program, *view, "--unshare-all", "--die-with-parent", "true")
        self.run_true(network=False)
        return timing.output([program, "--version"]).split()[-1]


class Chroot(Plain):
    """chroot(1): a private root and nothing else."""

    name = "chroot"

    def setup(self, scene: Scene, stack: ExitStack) -> str:  # noqa: ARG002 - nothing to undo
        """Try it once."""
        program = timing.find("chroot", "coreutils")
        self.argv = (program, str(scene.root), "true")
        self.run_true(network=False)
        return timing.output([program, "--version"]).splitlines()[0].split()[-1]
