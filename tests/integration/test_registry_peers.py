"""Images that other engines push run here, and those that are pushed here run there: skopeo, podman, docker, umoci."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.abilities import require
from tests.harness.daemon import Daemon, remove_cgroups
from tests.harness.registries import Registry, configure, plain

FORMATS = ("gzip", "zstd", "zstd:chunked")
Engine = Callable[..., str]


@pytest.fixture
def registry(shared_daemon: Daemon, tmp_path: Path) -> Iterator[Registry]:
    made = Registry(shared_daemon.sandbox, tmp_path / "registry")
    try:
        made.start()
        configure(shared_daemon, plain(made.host))
        yield made
    finally:
        made.stop()
        shared_daemon.cli("image", "prune", "--all")


@pytest.fixture
def pushed(shared_daemon: Daemon, registry: Registry, busybox_tar: Path) -> list[str]:
    """The same image in every compression."""
    names = [f"{registry.host}/app:{form.replace(':', '-')}" for form in FORMATS]
    shared_daemon.cli("image", "import", busybox_tar, "app:1")
    for name, form in zip(names, FORMATS, strict=True):
        shared_daemon.cli("image", "push", "--compression-format", form, "app:1", name)
    return names


@pytest.fixture
def podman(shared_daemon: Daemon, registry: Registry) -> Iterator[Engine]:
    require("podman", "runc")
    # A short path: podman has sockets below it.
    home, group = shared_daemon.directory / "podman", f"{shared_daemon.config.cgroup}-podman"
    home.mkdir()
    options = {
        "root": home / "store",
        "runroot": home / "run",
        "tmpdir": home / "tmp",
        "storage-driver": "vfs",
        "events-backend": "file",
        "cgroup-manager": "cgroupfs",
        "runtime": "runc",
    }

    def run(command: str, *arguments: str) -> str:
        more = (
            (
                "--network=none",
                f"--cgroup-parent=/{group}",
                "--log-driver=none",
                "--ulimit=nofile=1024",
                "--ulimit=nproc=1024",
            )
            if command == "run"
            else ()
        )
        argv = ["podman", *(f"--{key}={value}" for key, value in options.items()), command, *more, *arguments]
        return registry.run(*argv, env={"TMPDIR": str(home)})

    yield run
    run("rm", "-fa")
    remove_cgroups(group)


@pytest.fixture
def docker(shared_daemon: Daemon, registry: Registry, tmp_path: Path) -> Iterator[Engine]:
    require("docker", "dockerd", "containerd")
    home, group, sandbox = tmp_path / "docker", f"{shared_daemon.config.cgroup}-docker", shared_daemon.sandbox
    home.mkdir()
    (home / "daemon.json").write_text("{}")
    options = {
        "host": f"unix://{home}/socket",
        "data-root": home / "data",
        "exec-root": home / "run",
        "pidfile": home / "pid",
        "config-file": home / "daemon.json",
        "iptables": "false",
        "ip6tables": "false",
        "bridge": "none",
        "storage-driver": "overlay2",
        "exec-opt": "native.cgroupdriver=cgroupfs",
        "cgroup-parent": f"/{group}",
    }
    env = {"PATH": os.environ["PATH"], "DOCKER_CONFIG": str(home), "TMPDIR": str(home)}
    argv = ["/usr/sbin/dockerd", *(f"--{key}={value}" for key, value in options.items())]
    with ExitStack() as stack:
        stack.callback(remove_cgroups, group)
        pid = sandbox.spawn(argv, env=env, output=home / "log")
        stack.callback(sandbox.wait, pid)
        stack.callback(os.kill, pid, signal.SIGTERM)

        def run(*arguments: str, check: bool = True) -> str:
            return registry.run("docker", f"--host=unix://{home}/socket", *arguments, check=check, env=env)

        deadline = time.monotonic() + 60
        while "Server" not in run("version", check=False):
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.1)
        yield run


def test_podman(shared_daemon: Daemon, registry: Registry, pushed: list[str], podman: Engine) -> None:
    for name in pushed:
        assert podman("run", "--rm", "--tls-verify=false", name, "echo", "ours") == "ours\n"
    podman("tag", pushed[0], f"{registry.host}/podman:1")
    for number, form in enumerate(("gzip", "zstd", "zstd:chunked")):
        name = f"{registry.host}/podman{number}:1"
        podman("push", "-q", "--tls-verify=false", "--compression-format", form, pushed[0], name)
        assert shared_daemon.cli("run", "--rm", name, "echo", "theirs").stdout == "theirs\n"


def test_docker(shared_daemon: Daemon, registry: Registry, pushed: list[str], docker: Engine, tmp_path: Path) -> None:
    for name in pushed:
        assert docker("run", "--rm", "--network=none", name, "echo", "ours").endswith("ours\n")
    name = f"{registry.host}/docker:1"
    docker("tag", pushed[0], name)
    docker("push", "-q", name)
    assert shared_daemon.cli("run", "--rm", name, "echo", "theirs").stdout == "theirs\n"
    # Archives, both ways.
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    shared_daemon.cli("image", "tag", "app:1", "saved:1")
    shared_daemon.cli("image", "save", "-o", ours, "saved:1")
    assert "saved:1" in docker("load", "-i", str(ours))
    assert docker("run", "--rm", "--network=none", "saved:1", "echo", "loaded").endswith("loaded\n")
    docker("tag", "saved:1", "theirs:1")
    docker("save", "-o", str(theirs), "theirs:1")
    shared_daemon.cli("image", "load", "-i", theirs)
    assert shared_daemon.cli("run", "--rm", "theirs:1", "echo", "loaded").stdout == "loaded\n"


def test_skopeo_and_umoci(shared_daemon: Daemon, registry: Registry, pushed: list[str], tmp_path: Path) -> None:
    require("umoci")
    for number, (name, form) in enumerate(zip(pushed, FORMATS, strict=True)):
        layout = tmp_path / f"layout{number}"
        about = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
        assert (about["Os"], about["Architecture"], len(about["Layers"])) == ("linux", "amd64", 1)
        # A copy reads every byte and checks every digest.
        registry.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:app:1")
        if form == "gzip":  # umoci 0.4 knows no zstd
            registry.run("umoci", "unpack", "--image", f"{layout}:app:1", tmp_path / "bundle")
            assert (tmp_path / "bundle/rootfs/bin/busybox").exists()
        theirs = f"{registry.host}/skopeo{number}:1"
        kind = ("--format", "v2s2") if form == "gzip" else ()
        registry.skopeo("copy", "-q", "--dest-tls-verify=false", *kind, f"oci:{layout}:app:1", f"docker://{theirs}")
        assert shared_daemon.cli("run", "--rm", theirs, "echo", "theirs").stdout == "theirs\n"
    for form in ("docker-archive", "oci-archive"):
        archive = tmp_path / f"{form}.tar"
        shared_daemon.cli("image", "save", "--format", form, "-o", archive, "app:1")
        for transport in {form, "oci-archive"}:
            registry.skopeo("copy", "-q", f"{transport}:{archive}", f"dir:{tmp_path / f'{form}-{transport}'}")
