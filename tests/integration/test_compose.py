"""Projects of compose files, on a real daemon."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.harness.daemon import BULKHEAD, Daemon

SHOP = """
name: shop
services:
  web:
    image: busybox
    command: ["/bin/sh", "-c", "echo web is up; wget -qO- http://app:8000/; exec sleep 1000"]
    depends_on:
      app: {condition: service_healthy}
      job: {condition: service_completed_successfully}
    stop_grace_period: 0s
  app:
    image: busybox
    command: ["/bin/sh", "-c", "echo app is up; exec httpd -f -p 8000 -h /data"]
    init: false
    environment: {COLOUR: "${COLOUR:-blue}"}
    volumes: ["data:/data"]
    mem_limit: 64m
    healthcheck: {test: wget -qO- http://localhost:8000/index.html, interval: 0.2s, retries: 50}
    stop_grace_period: 0s
    depends_on: {job: {condition: service_completed_successfully}}
  job:
    image: busybox
    command: ["/bin/sh", "-c", "echo page > /data/index.html; echo the job is done"]
    volumes: ["data:/data"]
volumes:
  data: {driver_opts: {size: 32M}}
"""


def write(daemon: Daemon, text: str, name: str = "compose.yaml") -> Path:
    """A compose file in a directory of the daemon's own."""
    path = daemon.directory / "project" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def states(daemon: Daemon, project: str = "shop") -> dict[str, tuple[str, str]]:
    """State and id of the project's instances, by name."""
    found = daemon.json("compose", "-p", project, "ps", "-a", "--format", "json")
    return {each["spec"]["name"]: (each["state"], each["spec"]["id"]) for each in found}


def ids(daemon: Daemon) -> dict[str, str]:
    """Ids by name."""
    return {name: found for name, (_, found) in states(daemon).items()}


def test_a_project_comes_changes_and_goes(daemon: Daemon, busybox_tar: Path) -> None:
    daemon.cli("image", "import", busybox_tar, "busybox")
    file = write(daemon, SHOP)
    done = daemon.cli("up", "-d", "-f", file)
    assert "Instance shop-web-1  Started" in done.stderr
    first = states(daemon)
    assert {name: state for name, (state, _) in first.items()} == {
        "shop-app-1": "running",
        "shop-job-1": "exited",
        "shop-web-1": "running",
    }
    logs = daemon.cli("compose", "-f", file, "logs").stdout.splitlines()
    assert [line.split("|")[1].strip() for line in logs if line.startswith("shop-web-1")] == ["web is up", "page"]
    assert daemon.cli("logs", file).stdout.splitlines() == logs
    assert daemon.cli("ps", "-f", file).stdout.count("shop-") == 2
    spec = daemon.api("GET", "/v1/instances/shop-app-1").body["spec"]
    assert (spec["plan"]["memory"], "COLOUR=blue" in spec["env"], spec["aliases"]) == (64 << 20, True, ["app"])
    assert [each["size"] for each in daemon.json("volume", "ls", "--format", "json")] == [32 << 20]

    # Again: nothing is made anew. Only what has changed is, and the volume stays.
    daemon.cli("up", "-d", "-f", file)
    assert ids(daemon) == {name: found for name, (_, found) in first.items()}
    write(daemon, SHOP.replace("blue", "red"))
    daemon.cli("up", "-d", "-f", file)
    second = ids(daemon)
    assert second["shop-app-1"] != first["shop-app-1"][1]
    assert second["shop-web-1"] == first["shop-web-1"][1]

    assert daemon.cli("compose", "-f", file, "exec", "-T", "app", "cat", "/data/index.html").stdout == "page\n"
    daemon.cli("compose", "-f", file, "restart", "web")
    assert states(daemon)["shop-web-1"] == ("running", second["shop-web-1"])
    daemon.cli("down", "-f", file)
    assert states(daemon) == {}
    assert [each["name"] for each in daemon.json("network", "ls", "--format", "json")] == ["default"]
    assert len(daemon.json("volume", "ls", "--format", "json")) == 1
    daemon.cli("down", "-v", "-f", file)
    assert daemon.json("volume", "ls", "--format", "json") == []
    daemon.cli("down", "-v", "-f", file)


FILES = """
name: files
services:
  a:
    image: busybox
    command: ["/bin/sh", "-c", "cat /etc/app.conf /run/secrets/key; id -u"]
    user: "1000"
    configs: [{source: conf, target: /etc/app.conf}]
    secrets: [key]
configs: {conf: {content: "colour is ${COLOUR:-blue}\\n"}}
secrets: {key: {file: ./key}}
"""


def test_configs_and_secrets(daemon: Daemon, busybox_tar: Path) -> None:
    daemon.cli("image", "import", busybox_tar, "busybox")
    file = write(daemon, FILES)
    (file.parent / "key").write_text("verysecret\n")
    (file.parent / "key").chmod(0o600)
    done = daemon.cli("up", "-f", file)
    assert [line.split("| ")[1] for line in done.stdout.splitlines()[:3]] == ["colour is blue", "verysecret", "1000"]
    assert "files-a-1 has ended with 0" in done.stdout
    shown = daemon.cli("inspect", "files-a-1").stdout
    assert "verysecret" not in shown + daemon.log()
    first = states(daemon, "files")["files-a-1"][1]
    (file.parent / "key").write_text("another\n")
    assert "another" in daemon.cli("up", "-f", file).stdout
    assert states(daemon, "files")["files-a-1"][1] != first
    kept = daemon.config.run_dir / "compose" / "files"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert [path.name.partition("-")[0] for path in kept.iterdir()] == ["config"], "a secret is no file of a project's"
    (secret,) = daemon.json("secret", "ls", "--format", "json")
    assert (secret["name"], secret["size"]) == ("files_key", len("another\n"))
    again = states(daemon, "files")["files-a-1"][1]
    daemon.cli("up", "-f", file)
    assert states(daemon, "files")["files-a-1"][1] == again, "nothing has changed"
    daemon.cli("down", "-f", file)
    assert not kept.exists() and daemon.json("secret", "ls", "--format", "json") == []
    daemon.cli("secret", "create", "files_key", "-", stdin="not of this project")
    refused = daemon.cli("up", "-f", file, check=False)
    assert refused.returncode == 125 and "which is not this project's" in refused.stderr
    file.write_text(FILES.replace("{file: ./key}", "{external: true, name: files_key}"))
    assert "not of this project" in daemon.cli("up", "-f", file).stdout
    daemon.cli("down", "-f", file)
    assert [each["name"] for each in daemon.json("secret", "ls", "--format", "json")] == ["files_key"]


def test_nothing_is_done_where_something_is_wrong(daemon: Daemon, busybox_tar: Path) -> None:
    daemon.cli("image", "import", busybox_tar, "busybox")
    text = FILES.replace("    user:", "    x-bulkhead: {isolation: container, ghz: 99, kernel: none}\n    user:")
    file = write(daemon, text)
    (file.parent / "key").write_text("x")
    done = daemon.cli("up", "-d", "-f", file, check=False)
    assert done.returncode == 125
    assert "services.a: " in done.stderr
    assert states(daemon, "files") == {}
    assert [each["name"] for each in daemon.json("network", "ls", "--format", "json")] == ["default"]
    assert not (daemon.config.run_dir / "compose" / "files").exists()


def test_an_up_that_was_killed_is_gone_on_with(daemon: Daemon, busybox_tar: Path) -> None:
    daemon.cli("image", "import", busybox_tar, "busybox")
    file = write(daemon, SHOP)
    argv = [str(BULKHEAD), "up", "-d", "-f", str(file)]
    for wanted in ("shop-app-1  Creating", "shop-job-1  Starting", "shop-app-1  Starting"):
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=daemon.environment()) as process:
            assert process.stderr
            for line in process.stderr:
                if wanted in line:
                    process.send_signal(signal.SIGKILL)
                    break
        daemon.cli("up", "-d", "-f", file)
        assert {state for name, (state, _) in states(daemon).items() if "job" not in name} == {"running"}
        daemon.cli("down", "-v", "-f", file)
        assert states(daemon) == {}
        assert daemon.json("volume", "ls", "--format", "json") == []


def test_ctrl_c_stops_in_order(daemon: Daemon, busybox_tar: Path) -> None:
    daemon.cli("image", "import", busybox_tar, "busybox")
    file = write(daemon, SHOP)
    # Whoever runs the tests in the background may have them ignore INT, and what they start with them.
    argv = ["env", "--default-signal=INT", str(BULKHEAD), "up", "-f", str(file)]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=daemon.environment()
    ) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if "page" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert said.index("shop-web-1  Stopped") < said.index("shop-app-1  Stopping")
    assert {state for state, _ in states(daemon).values()} == {"exited"}
    daemon.cli("down", "-f", file)
