"""What a host sells: no more than it has, to how many at once they may ask; and what it tells of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bulkhead.config import Config
from bulkhead.host import facts
from tests.harness.daemon import Answer, Daemon
from tests.integration.building import context

ASKING, ROOM = 100, 60
MEMORY = 64 << 20
PLAN = {"memory": MEMORY, "cpus": 0.5, "disk": 16 << 20}


def only(count: int, **settings: object) -> dict[str, object]:
    """Settings with which this host has room for so many of PLAN, and half a one more."""
    has = facts.facts(Config()).memory
    return {"reserve_memory": has - count * MEMORY - MEMORY // 2, "overcommit_memory": 1.0, "disk_pool": 0, **settings}


def create(daemon: Daemon, name: str, **fields: object) -> Answer:
    """Ask for one of PLAN."""
    body = {"image": "box", "name": name, "command": ["sleep", "1000"], "network": "none", "plan": PLAN, **fields}
    return daemon.api("POST", "/v1/instances", body)


def resource(daemon: Daemon, name: str) -> dict[str, float]:
    """A row of `host info`."""
    rows = daemon.json("host", "info", "--format", "json")["resources"]
    return next(row for row in rows if row["resource"] == name)


def test_as_many_as_there_is_room_for_and_not_one_more(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = make_daemon(**only(ROOM))
    daemon.cli("image", "import", busybox_tar, "box")
    with ThreadPoolExecutor(ASKING) as pool:
        answers = list(pool.map(lambda number: create(daemon, f"i{number}"), range(ASKING)))
    refused = [answer for answer in answers if answer.status != 201]
    assert Counter(answer.status for answer in answers) == {201: ROOM, 409: ASKING - ROOM}
    assert {answer.body["type"] for answer in refused} == {"no-room"}
    assert "memory: 64M asked for, 32M left" in refused[0].body["detail"]
    assert "bulkhead host info" in refused[0].body["hint"]
    assert len(daemon.json("ps", "-a", "--format", "json")) == ROOM
    assert resource(daemon, "memory")["sold"] == ROOM * MEMORY, "what was refused is nobody's"
    # Sold is sold, whether it runs or not; what is removed is sold again.
    gone = next(answer for answer in answers if answer.status == 201).body["spec"]["name"]
    daemon.cli("rm", gone)
    assert create(daemon, "next").status == 201
    daemon.kill9()
    daemon.start()
    assert create(daemon, "late").status == 409
    assert resource(daemon, "memory")["sold"] == ROOM * MEMORY


def test_a_change_that_grows_needs_room_and_one_that_shrinks_gives_it(
    make_daemon: Callable[..., Daemon], busybox_tar: Path
) -> None:
    daemon = make_daemon(**only(3))
    daemon.cli("image", "import", busybox_tar, "box")
    for name in ("one", "two"):
        assert create(daemon, name).status == 201
    refused = daemon.cli("update", "one", "--memory", "200M", check=False)
    assert refused.returncode == 125
    assert "memory: 136M asked for, 96M left" in refused.stderr
    assert resource(daemon, "memory")["sold"] == 2 * MEMORY
    daemon.cli("update", "one", "--memory", "128M")
    assert create(daemon, "three").status == 409
    # To another wall with another plan: a claim is held meanwhile and given back.
    moved = daemon.cli("move", "one", "--isolation", "chroot", "--network", "host", "--memory", "300M", check=False)
    assert moved.returncode == 125
    assert "memory: 172M asked for, 32M left" in moved.stderr
    daemon.cli("move", "one", "--isolation", "chroot", "--network", "host", "--memory", "64M")
    assert resource(daemon, "memory")["sold"] == 2 * MEMORY
    assert create(daemon, "three").status == 201


def test_a_host_that_sells_less_than_it_sold_starts_what_still_fits(
    make_daemon: Callable[..., Daemon], busybox_tar: Path
) -> None:
    daemon = make_daemon(**only(4))
    daemon.cli("image", "import", busybox_tar, "box")
    for name in ("one", "two", "three", "four"):
        assert create(daemon, name).status == 201
    daemon.stop()
    text = daemon.config_file.read_text()
    kept = int(only(2)["reserve_memory"])  # type: ignore[call-overload]
    lines = [f"reserve_memory = {kept}" if line.startswith("reserve_memory") else line for line in text.splitlines()]
    daemon.config_file.write_text("\n".join(lines) + "\n")
    daemon.start()
    info = daemon.cli("host", "info")
    assert "96M more are sold than there is to sell" in info.stderr
    daemon.cli("start", "one", "two")
    refused = daemon.cli("start", "three", check=False)
    assert "memory: 64M asked for, 32M left" in refused.stderr
    daemon.cli("stop", "--time", "0", "one")
    daemon.cli("start", "three")


def test_steps_of_builds_rooms_and_clones_need_room_as_well(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, tmp_path: Path
) -> None:
    daemon = make_daemon(**only(2))
    daemon.cli("image", "import", busybox_tar, "box")
    assert create(daemon, "one").status == 201
    daemon.cli("snapshot", "create", "one", "s")
    files = context(tmp_path / "files", "FROM box\nRUN true\n")
    for words in (("clean", "box", "true"), ("build", "-t", "made", str(files))):
        done = daemon.cli(*words, check=False)
        assert done.returncode == 125
        assert "memory: 512M asked for, 96M left" in done.stderr, words
    daemon.cli("create", "--from", "one/s", "--name", "two")
    assert "memory: 64M asked for, 32M left" in daemon.cli("create", "--from", "one/s", check=False).stderr
    assert resource(daemon, "memory")["sold"] == 2 * MEMORY


def test_volumes_and_snapshots_are_sold_too(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = make_daemon(overcommit_disk=1.0, disk_pool=0)
    daemon.cli("image", "import", busybox_tar, "box")
    disk = resource(daemon, "disk")
    images = disk["sold"]
    assert images > 0, "an image takes space, and nothing else does yet"
    assert create(daemon, "one").status == 201
    daemon.cli("volume", "create", "--size", "64M", "data")
    assert resource(daemon, "disk")["sold"] == images + (80 << 20)
    daemon.cli("snapshot", "create", "one", "s")
    taken = resource(daemon, "disk")["sold"] - images - (80 << 20)
    assert 0 < taken < 16 << 20, "a snapshot takes what was written"
    free = int(resource(daemon, "disk")["free"])
    refused = daemon.cli("volume", "create", "--size", f"{free + 1}", "huge", check=False)
    assert "disk: " in refused.stderr
    assert "overcommit_disk" in refused.stderr
    for words in (("rm", "one"), ("volume", "rm", "data")):
        daemon.cli(*words)
    assert resource(daemon, "disk")["sold"] == images


def test_forty_as_nobody_asked_for_are_a_matter_of_memory_alone(daemon: Daemon) -> None:
    told = daemon.json("host", "info", "--format", "json")
    rows = {row["resource"]: row for row in told["resources"]}
    default = daemon.json("plan", "ls", "--format", "json")[0]["plan"]
    assert rows["cpu"]["host"] * 4 > 40 * default["baseline"] * (told["ghz"] or 1.0)
    fits = told["plans"][0]["fits"]
    assert fits["container"]["ends"] in ("memory", "disk")
    assert fits["vm"]["more"] < fits["container"]["more"], "a hypervisor takes memory of its own"
