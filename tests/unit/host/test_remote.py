"""Shells elsewhere, tried on this host: output, ends, and what goes on until this process has gone."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from bulkhead.errors import HostError, Refused
from bulkhead.host import remote
from bulkhead.host.remote import Shell

SCRIPTS = 'it\'s "quoted" $HOME `id` \\ *'


def test_what_a_script_says() -> None:
    shell = remote.here()
    assert shell.run("cat; echo $0", stdin=b"in\n", limit=100) == b"in\nsh\n"
    with pytest.raises(HostError, match="failed with 3: no such thing"):
        shell.run("echo no such thing >&2; exit 3", limit=100)
    with pytest.raises(HostError, match="more than 10 bytes"):
        shell.run("yes", limit=10)


def test_a_flood_of_complaints_is_not_kept() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(HostError, match=r"failed with 1: last$"):
            remote.here().run("head -c 30000000 /dev/zero | tr '\\0' '\\n' >&2; echo last >&2; exit 1", limit=100)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_script_comes_through_another_shell_as_it_is() -> None:
    """As with ssh, whose server hands the words to the user's shell."""
    beyond = Shell("there", ("sh", "-c"), quoted=True)
    assert beyond.run(f"cat <<'END'\n{SCRIPTS}\nEND", limit=1000).decode() == f"{SCRIPTS}\n"


def test_sudo_stands_before_the_shell() -> None:
    assert Shell("there", ("x",), sudo=True).argv("id") == ["x", "sudo", "-n", "--", "sh", "-c", "id"]
    assert Shell("there", ("x",), quoted=True, sudo=True).argv("a b") == ["x", "sudo -n -- sh -c 'a b'"]


def test_a_stream_that_is_left_is_ended() -> None:
    heard: list[str] = []
    with remote.here().stream("echo out; echo err >&2; exit 7", stdin=b"", on_line=heard.append) as running:
        assert b"".join(running.chunks) == b"out\n"
        assert running.finish() == 7
    assert heard == ["err"]
    with pytest.raises(KeyError), remote.here().stream("exec sleep 1000", stdin=b"", on_line=heard.append):
        raise KeyError


@pytest.mark.parametrize("target", ["-oProxyCommand=id", "a\nb", "-"])
def test_a_host_that_is_an_option(target: str) -> None:
    with pytest.raises(Refused, match="no host"), remote.ssh(target, ()):
        pass


def test_a_server_is_lent_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ssh's configuration says of it; what the user says comes first, which is what counts for ssh."""
    program, log = tmp_path / "ssh", tmp_path / "log"
    program.write_text(f'#!/bin/sh\necho "$@" >>{log}\n')
    program.chmod(0o755)
    monkeypatch.setattr(remote.processes, "require", lambda *_: program)
    with remote.ssh("user@web1", ["ForwardAgent=yes"]) as shell:
        assert shell.run("true", limit=10) == b""
    asked = log.read_text().splitlines()
    assert len(asked) == 3
    for line in asked:
        options = line.partition(" -- user@web1")[0].split(" -o ")
        assert options.index("ForwardAgent=no") > [option.removeprefix("-o ") for option in options].index(
            "ForwardAgent=yes"
        )
        assert {"ForwardX11=no", "ClearAllForwardings=yes"} < set(options)


def fake(tmp_path: Path) -> tuple[str, Path]:
    """A script that does something, says so, and undoes it in the end; and where it tells of both."""
    log = tmp_path / "log"
    return f"trap 'echo undone >> {log}' EXIT; trap 'exit 1' HUP INT TERM; echo done >> {log}; echo ready; cat", log


def test_what_is_held_is_undone(tmp_path: Path) -> None:
    script, log = fake(tmp_path)
    with remote.here().held(script, ready="ready"):
        assert log.read_text() == "done\n"
    assert log.read_text() == "done\nundone\n"
    with pytest.raises(HostError, match="cannot"), remote.here().held("echo cannot >&2; exit 1", ready="ready"):
        pytest.fail("it was not ready")


def test_what_is_held_is_undone_when_this_process_is_killed(tmp_path: Path) -> None:
    script, log = fake(tmp_path)
    program = (
        "import sys, time\nfrom bulkhead.host import remote\n"
        "with remote.here().held(sys.argv[1], ready='ready'):\n    print('held', flush=True); time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, script], stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline() == b"held\n"
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while log.read_text() != "done\nundone\n":
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
