"""Every command against the real API with a fake engine: what it prints and how it ends."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from pathlib import Path

import pytest

from bulkhead.errors import ImageError
from bulkhead.events import Event
from bulkhead.model import Exit, State
from tests.unit.api.fakes import FakeEngine, Line, command_not_found
from tests.unit.cli.conftest import Cli


def web(cli: Cli) -> str:
    """An instance called web; its id."""
    return cli("create", "--name", "web", "debian:bookworm", "sleep", "1").out.strip()


def test_life(cli: Cli, engine: FakeEngine) -> None:
    identifier = web(cli)
    assert len(identifier) == 32
    assert cli("start", "web").out == "web\n"
    assert cli("ps", "-q").out == identifier[:12] + "\n"
    assert cli("ps", "-q", "--no-trunc").out == identifier + "\n"
    table = cli("ps").out.splitlines()
    assert table[0].split() == ["ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "LEVEL"]
    assert "sleep 1" in table[1]
    assert cli("kill", "-s", "HUP", "web").code == 0
    assert cli("pause", "web").out == "web\n"
    assert "(paused)" in cli("ps").out
    assert cli("unpause", "web").out == "web\n"
    assert cli("rm", "web").err == "Error: instance web is running\nhint: bulkhead rm -f web\n"
    assert cli("stop", "-t", "2.5", "web").out == "web\n"
    assert cli("ps").out.count("\n") == 1
    assert "Exited (143)" in cli("ps", "-a").out
    assert cli("restart", "--time", "1m", "web").code == 0
    assert cli("rm", "-f", "web").out == "web\n"
    assert ("kill", "web", "HUP") in engine.calls
    assert ("stop", "web", 2.5, None) in engine.calls
    assert ("stop", "web", 60.0, None) in engine.calls


def test_run_detached_and_dry(cli: Cli, engine: FakeEngine) -> None:
    identifier = cli("run", "-d", "--name", "web", "-p", "8080:80", "nginx").out.strip()
    assert engine.get(identifier).state is State.RUNNING
    assert cli("ps").out.splitlines()[1].split()[-2:] == ["0.0.0.0:8080->80/tcp", "container"]
    assert cli("run", "--dry-run", "nginx").out == "mount nginx\n"
    assert len(engine.instances) == 1


def test_exit_codes_of_errors(cli: Cli, engine: FakeEngine) -> None:
    missing = cli("run", "-d", "missing")
    assert (missing.code, missing.out) == (125, "")
    assert missing.err.splitlines() == [
        "Error: image 'missing' does not exist",
        "hint: bulkhead image ls shows what there is",
    ]
    wrong = cli("run", "-d", "wrong")
    assert wrong.err.splitlines() == [
        "Error: memory is too much",
        "hint: less",
        "Error: cpus are too many",
        "hint: fewer",
    ]
    engine.start_error = command_not_found()
    assert cli("run", "-d", "debian").code == 127
    assert cli("nothing").code == cli().code + 125 == 125
    assert cli("--bogus", "ps").code == 125
    assert cli("ps", "--help").code == 0
    assert "Error: this is a bug in bulkhead" not in cli("--help").err


def test_bug(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkhead.cli.doctor.write_table", lambda *_: 1 // 0)
    failed = cli("doctor")
    assert failed.code == 125
    assert "ZeroDivisionError" in failed.err
    assert failed.err.endswith("Error: this is a bug in bulkhead\n")


def test_errors_cannot_control_the_terminal(cli: Cli) -> None:
    assert "\x1b" not in cli("start", "\x1b[2J").err


def test_several_instances_are_all_tried(cli: Cli, engine: FakeEngine) -> None:
    web(cli)
    started = cli("start", "none", "web", "nobody")
    assert (started.code, started.out) == (125, "web\n")
    assert started.err.count("Error: no instance answers") == 2
    assert engine.get("web").state is State.RUNNING


def test_filters_and_json(cli: Cli) -> None:
    web(cli)
    cli("create", "--name", "db", "--label", "tier=back", "redis")
    assert [i["spec"]["name"] for i in json.loads(cli("ps", "-a", "--format", "json").out)] == ["web", "db"]
    for text, names in {
        "name=w": ["web"],
        "label=tier": ["db"],
        "label=tier=front": [],
        "label=tier=back": ["db"],
        "state=created": ["web", "db"],
        "isolation=container": ["web", "db"],
        "image=redis": ["db"],
        f"id={1:032x}": ["web"],
    }.items():
        found = json.loads(cli("ps", "-a", "-f", text, "--format", "json").out)
        assert [instance["spec"]["name"] for instance in found] == names, text
    assert cli("ps", "-f", "colour=red").code == 125


def test_inspect_prints_an_array(cli: Cli) -> None:
    identifier = web(cli)
    assert json.loads(cli("inspect", "web").out)[0]["id"] == identifier
    missing = cli("inspect", "none", identifier[:8])
    assert missing.code == 125
    assert len(json.loads(missing.out)) == 1


def test_wait(cli: Cli, engine: FakeEngine) -> None:
    identifier = web(cli)
    cli("start", "web")
    threading.Timer(0.05, lambda: engine.end(identifier, Exit(code=7))).start()
    assert cli("wait", "web").out == "7\n"


def test_logs(cli: Cli, engine: FakeEngine) -> None:
    web(cli)
    engine.lines = [
        Line(1.5, "stdout", b"one"),
        Line(2.0, "stderr", b"trouble"),
        Line(3.0, "stdout", b"long ", partial=True),
        Line(3.1, "stdout", b"line"),
    ]
    done = cli.process("logs", "web")
    assert (done.out, done.err) == ("one\nlong line\n", "trouble\n")
    assert cli.process("logs", "-t", "--tail", "2", "web").out == "1970-01-01T00:00:03.000Z long line\n"
    assert cli.process("logs", "--since", "1970-01-01T00:00:03Z", "--tail", "all", "web").out == "long line\n"
    assert json.loads(cli("logs", "--format", "json", "web").out.splitlines()[0])["text"] == "one"
    assert cli("logs", "--tail", "x", "web").code == 125
    assert cli("logs", "none").code == 125


def test_logs_with_bytes_that_are_no_text(cli: Cli, engine: FakeEngine) -> None:
    import subprocess

    web(cli)
    engine.lines = [Line(1.0, "stdout", b"\xff\xfe ok")]
    out = subprocess.run(cli.argv("logs", "web"), capture_output=True, check=True).stdout
    assert out == b"\xff\xfe ok\n"


def test_events(cli: Cli, engine: FakeEngine) -> None:
    engine.happened = [Event(1.0, "instance", "a" * 32, "oom", "web", {"memory": "1"})]
    assert cli("events").out == "1970-01-01T00:00:01.000Z instance oom web (aaaaaaaaaaaa) memory=1\n"
    assert json.loads(cli("events", "--format", "json").out)["action"] == "oom"
    assert cli("events", "--since", "10m").out == ""
    assert cli("events", "--since", "later").code == 125


def test_stats(cli: Cli) -> None:
    web(cli)
    cli("start", "web")
    row = cli("stats", "--no-stream").out.splitlines()[1]
    assert "10M / 512M" in row
    assert "100.0%" in row
    assert json.loads(cli("stats", "--no-stream", "--format", "json", "web").out)[0]["cpu_percent"] > 50
    assert cli("stats", "--no-stream", "none").code == 125


def test_update(cli: Cli, engine: FakeEngine) -> None:
    web(cli)
    assert cli("update", "--memory", "1G", "--restart", "always", "web").out == "web\n"
    assert engine.calls[-1][2] == {"memory": 1 << 30}
    assert cli("update", "web").err.startswith("Error: nothing to change was given")


def test_doctor(cli: Cli) -> None:
    assert cli("doctor").out.splitlines()[2].split("  ")[-1] == "not installed - apt install lxcfs"
    assert json.loads(cli("doctor", "--format", "json").out)[0]["works"] is True


def test_plans_networks_volumes(cli: Cli) -> None:
    assert cli("plan", "create", "small", "-m", "64M", "--cpus", "0.5", "--bandwidth", "10M").out == "small\n"
    assert cli("plan", "ls").out.splitlines()[2].split()[:4] == ["small", "64M", "0", "0.5"]
    assert cli("plan", "ls", "-q").out == "default\nsmall\n"
    assert json.loads(cli("plan", "ls", "--format", "json").out)[1]["plan"]["disk"] == 5 << 30
    assert cli("plan", "rm", "small", "none").code == 125
    assert cli("plan", "create", "x", "--cpus", "many").code == 125
    assert cli("network", "create", "lan", "--subnet", "10.9.0.0/24").out == "lan\n"
    assert "10.9.0.0/24" in cli("network", "ls").out
    assert cli("network", "ls", "-q").out == "lan\n"
    assert cli("network", "rm", "lan").out == "lan\n"
    assert cli("network", "create", "--fleet", "app").out == "app\n"
    assert cli("network", "create", "--fleet", "--unencrypted", "open").out == "open\n"
    assert [line.split("  ")[0] for line in cli("network", "ls").out.splitlines()] == ["NAME", "app", "open"]
    assert "fleet, unencrypted" in cli("network", "ls").out.splitlines()[2]
    assert cli("volume", "create", "data", "--size", "1G").out == "data\n"
    assert cli("volume", "ls").out.splitlines()[1].split()[:2] == ["data", "1G"]
    assert cli("volume", "rm", "data").code == 0
    assert cli("volume", "shrink").code == 125
    assert "bootstrap" in cli("image").out


def test_snapshots(cli: Cli, engine: FakeEngine) -> None:
    web(cli)
    made = cli("snapshot", "create", "web", "before")
    assert (made.out, made.err) == ("web/before\n", "copying the disk (1M)\n")
    assert cli("snapshot", "create", "web/after").out == "web/after\n"
    assert "Error: no memory here" in cli("snapshot", "create", "web", "--memory").err
    assert cli("snapshot", "ls").out.splitlines()[1].split()[:5] == ["before", "web", "container", "no", "1M"]
    assert cli("snapshot", "ls", "-q", "web").out == "web/before\nweb/after\n"
    assert json.loads(cli("snapshot", "ls", "--format", "json").out)[1]["name"] == "after"
    assert cli("snapshot", "restore", "web", "before").out == "web/before\n"
    assert engine.calls[-1] == ("restore", "web/before", False, True)
    assert cli("snapshot", "restore", "-f", "--no-memory", "web/after").code == 0
    assert engine.calls[-1] == ("restore", "web/after", True, False)
    assert "no snapshot" in cli("snapshot", "restore", "web").err
    assert cli("snapshot", "rm", "web").code == 125
    assert cli("snapshot", "rm", "web/before", "web/none").code == 125
    assert cli("snapshot", "rm", "web", "after").out == "web/after\n"
    assert cli("snapshot", "ls", "-q").out == ""
    cli("snapshot", "create", "web", "before")
    assert cli("create", "--from", "web/before").code == 0
    assert engine.requests[-1].snapshot == "web/before"
    engine.snapshots.items["web/before"] = engine.snapshots.items["web/before"].model_copy(update={"size": 1 << 30})
    assert cli("create", "--from", "web/before").err == "copying the disk of web/before (1G)\n"
    assert cli("create", "--from", "web/none").code == 125


def test_images(cli: Cli, engine: FakeEngine, tmp_path: Path) -> None:
    row = cli("image", "ls").out.splitlines()[1].split()
    assert row == ["debian:bookworm", "111111111111", "rootfs", "amd64", "-", "100M"]
    assert cli("image", "ls", "-q").out == "111111111111\n"
    made = cli(
        *["image", "bootstrap", "debian:bookworm", "--packages", "nginx-light,curl", "--packages", "redis"],
        *[
            "--name",
            "web:1",
            "--cmd",
            '["nginx", "-g", "daemon off;"]',
            "--expose",
            "80",
            "-e",
            "A=1",
            "--arch",
            "i386",
            *("--mirror", "http://mirror/debian", "--mirror", "deb http://mirror/security bookworm-security main"),
        ],
    )
    assert (made.code, made.out, made.err) == (0, "web:1\n", "packages of debian:bookworm\n")
    assert engine.images.mirrors == ("http://mirror/debian", "deb http://mirror/security bookworm-security main")
    assert engine.images.seen[0] == (
        "debian:bookworm",
        ("nginx-light", "curl", "redis"),
        "web:1",
        "i386",
        {"command": ("nginx", "-g", "daemon off;"), "env": ("A=1",), "ports": ("80",)},
    )
    made = cli("image", "bootstrap", "debian:bookworm", "--disk", "--size", "3G", "--packages", "nginx-light")
    assert (made.code, made.out, made.err) == (0, "disk/debian:bookworm\n", "disk of debian:bookworm\n")
    assert engine.images.seen.pop() == ("debian:bookworm", ("nginx-light",), None, 3 << 30, None)
    refused = cli("image", "bootstrap", "debian:bookworm", "--disk", "--cmd", "sh", "--size", "large")
    assert "not a size" in refused.err
    assert "a whole system" in refused.err
    assert "give --disk too" in cli("image", "bootstrap", "debian:bookworm", "--firmware", "uefi").err
    made = cli("image", "kernel", "debian", "--version", "6.1.0-1", "kernel/mine")
    assert (made.code, made.out, made.err) == (0, "kernel/mine\n", "kernel of debian\n")
    assert engine.images.seen[1] == ("debian", False, "6.1.0-1", "kernel/mine")
    assert cli("image", "kernel", "--trim").code == 0
    assert engine.images.seen[2] == ("debian", True, None, None)
    archive = tmp_path / "root.tar"
    archive.write_bytes(b"12345")
    made = cli("image", "import", str(archive), "small", "--change", "CMD sh")
    assert (made.out, made.err) == ("small\n", "reading (10)\n")
    assert cli("image", "import", "-", stdin=b"x" * 1000).out == "sha256:" + "2" * 64 + "\n"
    assert cli("image", "import", str(tmp_path / "none")).code == 125
    engine.images.error = ImageError("a lying digest", hint="get it again")
    assert cli("image", "import", str(archive)).err.endswith("Error: a lying digest\nhint: get it again\n")
    assert json.loads(cli("image", "inspect", "debian:bookworm").out)[0]["config"] == {}
    assert cli("image", "rm", "debian:bookworm").out.startswith("removed debian:bookworm\n")
    pruned = cli("image", "prune", "-a")
    assert (pruned.out, pruned.err) == ("sha256:" + "3" * 64 + "\n", "freed 1M\n")


# --- cp


def test_copy_out(cli: Cli, tmp_path: Path) -> None:
    web(cli)
    assert cli("cp", "web:/etc/file", str(tmp_path / "here")).err == f"copied 1 from web:/etc/file to {tmp_path}/here\n"
    assert (tmp_path / "here").read_text() == "hello"
    assert (tmp_path / "here").stat().st_mode & 0o7777 == 0o640
    (tmp_path / "into").mkdir()
    assert cli("cp", "-q", "web:/etc", str(tmp_path / "into")).err == ""
    assert (tmp_path / "into/etc/file").read_text() == "hello"
    assert cli("cp", "-q", "web:/etc", str(tmp_path / "renamed")).code == 0
    assert (tmp_path / "renamed/file").read_text() == "hello"
    assert cli("cp", "web:/none", str(tmp_path)).code == 125
    assert cli("cp", "web:/etc/file", str(tmp_path / "no/such")).code == 125
    with tarfile.open(fileobj=io.BytesIO(cli.process("cp", "web:/etc/file", "-").out.encode())) as stream:
        assert stream.getnames() == ["file"]


def test_copy_in(cli: Cli, engine: FakeEngine, tmp_path: Path) -> None:
    web(cli)
    (tmp_path / "site/a").mkdir(parents=True)
    (tmp_path / "site/a/index.html").write_text("<p>")
    (tmp_path / "site/link").symlink_to("a")
    assert cli("cp", str(tmp_path / "site"), "web:/srv").err.startswith("copied 4 from ")
    assert engine.calls[-1] == ("copy_in", "web", "/")
    with tarfile.open(fileobj=io.BytesIO(engine.uploaded)) as stream:
        assert stream.getnames() == ["srv", "srv/a", "srv/a/index.html", "srv/link"]
        assert {member.uid for member in stream.getmembers()} == {0}
    cli("cp", "web:/etc/.", "-")
    cli("cp", str(tmp_path / "site/a/index.html"), "web:/etc")
    assert engine.calls[-1] == ("copy_in", "web", "/etc")
    with tarfile.open(fileobj=io.BytesIO(engine.uploaded)) as stream:
        assert stream.getnames() == ["index.html"]
    assert cli("cp", "-", "web:/srv", stdin=b"tar stream").code == 0
    assert (engine.calls[-1][2], engine.uploaded) == ("/srv", b"tar stream")


@pytest.mark.parametrize(
    "words",
    [("a", "b"), ("web:/a", "web:/b"), ("web:a", "b"), ("web:/etc/file", "none/")],
)
def test_copies_that_make_no_sense(words: tuple[str, str], cli: Cli) -> None:
    web(cli)
    assert cli("cp", *words).code == 125


def test_host_info(cli: Cli) -> None:
    done = cli("host", "info")
    lines = done.out.splitlines()
    assert lines[0] == "2 cores at 2.5 GHz, 3 instances, 2 running"
    assert [line.split()[0] for line in lines if line] == [
        *("2", "RESOURCE", "memory", "cpu", "bandwidth", "PLAN", "default", "processors", "3M")
    ]
    assert "qemu64, Nehalem" in done.out
    assert "16G (107%)" in lines[3]
    assert "-1G" in lines[3]
    assert lines[5].split()[-1] == "-", "what is not measured has no figure"
    assert lines[8].split() == ["default", "30", "memory", "0", "no", "swap"]
    assert done.err == "warning: memory: 1G more are sold than there is to sell\n"
    assert json.loads(cli("host", "info", "--format", "json").out)["resources"][1]["unit"] == "GHz"
