"""Unikernels through the daemon and the command line: others', and those that are made of images and programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.integration.lives import state, until

pytestmark = pytest.mark.timeout(1800)
LEAST = ("--isolation", "unikernel", "--memory", "8M", "--cpus", "1", "--disk", "16M", "--network", "none")


@pytest.fixture
def others(shared_daemon: Daemon, tmp_path: Path) -> Daemon:
    """The daemon with two unikernels that somebody else has made."""
    known = shared_daemon.cli("image", "ls").stdout
    for name, multiboot in (("pvh", False), ("multiboot", True)):
        if f"others/{name}" not in known:
            kernel = unikernels.banner(tmp_path, multiboot=multiboot)
            shared_daemon.cli("image", "import", "--unikernel", kernel, f"others/{name}")
    return shared_daemon


def test_others_say_a_line_and_tell_how_they_end(others: Daemon) -> None:
    kinds = {image["references"][0]: image["kind"] for image in others.json("image", "ls", "--format", "json")}
    assert kinds["others/pvh:latest"] == kinds["others/multiboot:latest"] == "unikernel"
    for name in ("pvh", "multiboot"):
        done = others.cli("run", "--rm", *LEAST, f"others/{name}", "e5", "some words", check=False)
        assert done.returncode == 5, done
        assert unikernels.SAYS in done.stdout and 'e5 "some words"' in done.stdout
    assert others.cli("run", "--rm", *LEAST, "others/pvh", "o", check=False).returncode == 0


def test_a_life(others: Daemon) -> None:
    others.cli("run", "-d", "--name", "one", *LEAST, "others/pvh")
    until("its banner", lambda: unikernels.SAYS in others.cli("logs", "one").stdout)
    for words in (("exec", "one", "true"), ("cp", "one:/etc", "-")):
        done = others.cli(*words, check=False)
        assert done.returncode == 125 and "unikernel" in done.stderr, done
    (seen,) = others.json("inspect", "one")
    assert seen["spec"]["program"]["kernel"] == "/unikernel/kernel" if "spec" in seen else True
    others.kill9()
    others.start()
    assert state(others, "one") == "running"
    others.cli("pause", "one")
    others.cli("unpause", "one")
    others.cli("stop", "--time", "1", "one")
    assert others.json("inspect", "one")[0]["exit"]["signal"] == 9
    others.cli("start", "one")
    others.cli("rm", "-f", "one")


def test_what_has_no_meaning_is_refused_all_at_once(others: Daemon, tmp_path: Path) -> None:
    asked = ("-t", "-e", "A=b", "-v", "data:/data", "-w", "/x", "--user", "7", "--memory", "7M")
    done = others.cli("run", *LEAST, *asked, "others/pvh", 'a"b', check=False)
    assert done.returncode == 125
    for word in ("--env", "--volume", "--workdir", "--user"):
        assert word in done.stderr, done.stderr
    done = others.cli("run", "--memory", "8M", "others/pvh", check=False)
    assert done.returncode == 125 and "--isolation unikernel" in done.stderr
    (tmp_path / "text").write_text("no kernel")
    done = others.cli("image", "import", "--unikernel", tmp_path / "text", check=False)
    assert done.returncode == 125 and "no kernel that QEMU boots" in done.stderr
