"""buildah as Debian ships it, with a store of its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench import timing
from bench.peers.base import IMAGE, ImageBuilder, Scene


class Buildah(ImageBuilder):
    """buildah with the runtime that works here; it keeps a layer for each step, as the others do."""

    name = "buildah"

    def setup(self, scene: Scene, stack: ExitStack) -> str:
        """Make the image that is built on."""
        program = timing.find("buildah", "buildah")
        home = scene.directory("buildah")
        (home / "tmp").mkdir(exist_ok=True)
        self._env = timing.environment(TMPDIR=str(home / "tmp"), BUILDAH_ISOLATION="oci")
        store = (f"--root={home / 'store'}", "--runroot=/run/buildah-bench", "--storage-driver=overlay")
        self._prefix = (program, *store)
        self._cgroup = f"/{scene.name}-buildah"
        self._run("from", "--name=base", "scratch")
        self._run("add", "-q", "base", str(scene.archive), "/")
        self._run("commit", "-q", "base", IMAGE)
        stack.callback(self._run, "rm", "-a")
        version = timing.output([program, "--version"]).split()[2]
        trial = scene.directory("buildah-trial")
        (trial / "Containerfile").write_text(f"FROM {IMAGE}\nRUN true\n")
        for runtime in ("crun", "runc"):
            self._runtime = runtime
            try:
                self.build(trial, image="trial", cache=False)
            except timing.Unusable:
                if runtime == "runc":
                    raise
            else:
                break
        return f"{version} with {self._runtime}"

    def _run(self, *arguments: str) -> float:
        return timing.timed([*self._prefix, *arguments], env=self._env)

    def build(self, context: Path, *, image: str, cache: bool) -> float:
        """`buildah bud`."""
        options = ("--layers", f"--runtime={self._runtime}", f"--cgroup-parent={self._cgroup}", "-t", image)
        file = ("-f", str(context / "Containerfile"))
        return self._run("bud", *options, *file, *([] if cache else ["--no-cache"]), str(context))
