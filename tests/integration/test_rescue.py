"""Foreign disks in a helper machine: opened, repaired, put away; what is refused; and a disk of one's own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.abilities import require
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.rescue import rescue_layout
from tests.integration.disks import MIB, digest, look, put, small_system
from tests.integration.lives import client, until

pytestmark = pytest.mark.timeout(1800)
PATIENCE = 300.0


@pytest.fixture
def helper(shared_daemon: Daemon) -> Daemon:
    """A daemon with the helper machine's image."""
    if "rescue/debian" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", rescue_layout())
    return shared_daemon


@pytest.fixture
def disk(tmp_path: Path, busybox_tar: Path) -> Path:
    return small_system(tmp_path, busybox_tar)


def rescue(daemon: Daemon, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return daemon.cli("rescue", "--network", "none", *arguments, check=check, timeout=PATIENCE)


def test_a_system_is_looked_at_and_repaired(helper: Daemon, disk: Path) -> None:
    before = digest(disk)
    done = rescue(
        helper, disk, "sh", "-c", "cat /etc/name; ls /proc/self /sys/class /dev/null; touch /x || exit 7", check=False
    )
    assert done.returncode == 7 and done.stdout.startswith("a system\n"), done.stdout + done.stderr
    assert "UUID=11111111" in done.stderr and "is not on these disks" in done.stderr
    assert digest(disk) == before
    # Written to, by a script on stdin; and put away in order.
    helper.cli("rescue", "--network", "none", "-w", disk, stdin="echo fine > /etc/fstab\ntouch /x\n", timeout=PATIENCE)
    assert look(disk, "/etc/fstab") == "fine\n"
    assert helper.json("ps", "-a", "--format", "json") == []


def test_a_qcow2_is_written_to(helper: Daemon, disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, other], check=True)
    rescue(helper, "-w", other, "sh", "-c", "head -c 9000000 /dev/urandom > /big; echo fine > /etc/fstab")
    subprocess.run(["qemu-img", "check", "-q", other], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", other, disk], check=True)
    assert look(disk, "/etc/fstab") == "fine\n"


def test_volume_groups_and_xfs(helper: Daemon, tmp_path: Path, busybox_tar: Path) -> None:
    """Made by the helper's own tools, then found by them."""
    made = tmp_path / "lvm.raw"
    with made.open("wb") as file:
        file.truncate(600 * MIB)
    lvm = "--config 'devices{use_devicesfile=0} activation{udev_sync=0 udev_rules=0}'"
    script = (
        "set -e; modprobe dm-mod; modprobe xfs; d=$(ls /dev/vd? | tail -n 1)\n"
        f"lvm pvcreate {lvm} $d; lvm vgcreate {lvm} group $d; lvm lvcreate {lvm} -Zn -Wn -n root -L 400M group\n"
        "lvm vgmknodes; mkfs.xfs -q /dev/group/root; mount /dev/group/root /mnt; mkdir /mnt/etc /mnt/bin /mnt/dev\n"
        "echo on lvm > /mnt/etc/name; mkdir -p /mnt/proc /mnt/sys /mnt/run /mnt/usr /mnt/lib64 /mnt/lib\n"
        "cp /bin/sh /bin/cat /mnt/bin; cp -L /lib64/ld-linux-x86-64.so.2 /mnt/lib64/\n"
        "mkdir -p /mnt/lib/x86_64-linux-gnu\n"
        "cp -L /lib/x86_64-linux-gnu/libc.so.6 /mnt/lib/x86_64-linux-gnu/\n"
        "umount /mnt; lvm vgchange -an group " + lvm
    )
    rescue(helper, "--tools", "-w", made, "bash", "-c", script)
    before = digest(made)
    done = rescue(helper, made, "sh", "-c", "cat /etc/name")
    assert done.stdout == "on lvm\n" and "LVM2_member" in done.stderr and "xfs" in done.stderr
    assert digest(made) == before
    rescue(helper, "-w", made, "sh", "-c", "echo repaired > /etc/name")
    assert rescue(helper, made, "cat", "/etc/name").stdout == "repaired\n"


def test_all_is_put_away_when_the_client_is_killed(helper: Daemon, disk: Path) -> None:
    command = (
        "rescue",
        "--network",
        "none",
        "-w",
        str(disk),
        "sh",
        "-c",
        "echo kept > /etc/name; echo there; sleep 1000",
    )
    with client(helper, *command) as process:
        assert process.stdout
        until("it is open", lambda: b"there" in process.stdout.readline(), seconds=PATIENCE)  # type: ignore[union-attr]
        again = rescue(helper, "-w", disk, "true", check=False)
        assert again.returncode == 125 and "is open in" in again.stderr
        process.send_signal(signal.SIGKILL)
    until("it is gone", lambda: helper.json("ps", "-a", "--format", "json") == [], seconds=PATIENCE)
    assert look(disk, "/etc/name") == "kept\n"


def test_nothing_is_left_when_the_daemon_is_killed(helper: Daemon, disk: Path) -> None:
    script = "echo kept > /etc/name; echo there; sleep 1000"
    with client(helper, "rescue", "--network", "none", "-w", str(disk), "sh", "-c", script) as process:
        assert process.stdout
        until("it is open", lambda: b"there" in process.stdout.readline(), seconds=PATIENCE)  # type: ignore[union-attr]
        helper.kill9()
        helper.start()
        assert helper.json("ps", "-a", "--format", "json") == []
        process.wait(timeout=PATIENCE)
    assert look(disk, "/etc/name") == "kept\n"


def test_a_disk_without_a_system(helper: Daemon, tmp_path: Path) -> None:
    empty = tmp_path / "empty.raw"
    # What looks like a Reiser4, which no kernel of Debian's opens.
    with empty.open("wb") as file:
        file.truncate(MIB)
        file.seek(65536)
        file.write(b"ReIsEr4")
    done = rescue(helper, empty, "sh", "-c", "echo in the wrong place", check=False)
    assert (done.returncode, done.stdout) == (125, "") and "no system was found" in done.stderr
    assert "(reiser4) cannot be mounted: " in done.stderr


def test_a_system_that_lies(helper: Daemon, disk: Path, tmp_path: Path) -> None:
    """Directories that are links, an fstab that names what is not its own: the helper opens it all the same."""
    root = tmp_path / "root"
    for name in ("proc", "sys", "run", "tmp"):
        (root / name).rmdir()
        (root / name).symlink_to("/etc")
    (root / "etc/resolv.conf").symlink_to("/proc/sysrq-trigger")
    (root / "etc/fstab").write_text(
        "/dev/vda /etc ext4 x 0 0\n/dev/vda1 /home;reboot x\n$(reboot) `reboot` x x\nUUID=\n\n#\n/\n"
    )
    part = tmp_path / "part"
    part.unlink()
    subprocess.run(["mkfs.ext4", "-q", "-d", root, part, "40M"], check=True)
    put(part, disk)
    done = rescue(helper, disk, "cat", "/etc/name")
    assert done.stdout == "a system\n", done.stderr


def test_an_image_of_a_disk(helper: Daemon, disk: Path) -> None:
    done = helper.cli("image", "from-server", "--name", "server/disk", disk, timeout=PATIENCE)
    assert "bulkhead run -d --name disk" in done.stdout
    assert helper.cli("run", "--rm", "server/disk", "cat", "/etc/name").stdout == "a system\n"


def test_the_disk_of_an_instance(helper: Daemon, disk: Path) -> None:
    helper.cli("image", "import", disk, "disk/small")
    helper.cli("create", "--isolation", "vm", "--name", "sys", "--memory", "128M", "--disk", "64M", "disk/small")
    bundle = Path(helper.json("inspect", "sys")[0]["bundle"])
    command = ("rescue", "--network", "none", "--instance", "-w", "sys", "sh", "-c")
    with client(helper, *command, "echo fine > /etc/fstab; echo there; sleep 1000") as process:
        assert process.stdout
        until("it is open", lambda: b"there" in process.stdout.readline(), seconds=PATIENCE)  # type: ignore[union-attr]
        refused = helper.cli("start", "sys", check=False)
        assert refused.returncode == 125 and "is open in" in refused.stderr
    until("it is free", lambda: len(helper.json("ps", "-a", "--format", "json")) == 1, seconds=PATIENCE)
    copy = disk.with_name("copy.raw")
    copy.write_bytes((bundle / "disk.img").read_bytes())
    assert look(copy, "/etc/fstab") == "fine\n"
    # Of an instance whose disk Bulkhead has made, there is no other system to rescue.
    helper.cli("create", "--name", "box", "rescue/debian:bookworm")
    wrong = rescue(helper, "--instance", "box", "true", check=False)
    assert wrong.returncode == 125 and "own files" in wrong.stderr


def test_a_disk_that_is_encrypted_asks_at_a_terminal_alone(helper: Daemon, tmp_path: Path) -> None:
    locked = tmp_path / "luks.raw"
    locked.write_bytes(b"LUKS\xba\xbe\x00\x02" + bytes(20 * MIB))
    done = rescue(helper, locked, "true", check=False)
    assert done.returncode == 125 and "no system was found" in done.stderr


def test_what_is_refused(helper: Daemon, disk: Path, tmp_path: Path) -> None:
    backed, vmdk = tmp_path / "backed.qcow2", tmp_path / "disk.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", backed], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", disk, vmdk], check=True)
    (tmp_path / "odd").write_bytes(bytes(100_001))
    own = next(helper.config.images_dir.glob("erofs/*.erofs"))
    expected = {
        backed: "has a backing file",
        vmdk: "is a vmdk",
        tmp_path / "odd": "no whole sectors",
        tmp_path / "none": "No such file",
        tmp_path: "neither a file nor a block device",
        Path("/dev/null"): "neither a file nor a block device",
        own: "one of Bulkhead's own files",
    }
    for path, why in expected.items():
        done = rescue(helper, path, "true", check=False)
        assert done.returncode == 125 and why in done.stderr, done.stderr
    request = {"image": "rescue/debian:bookworm", "isolation": "vm", "disks": [{"source": str(disk)}]}
    answer = helper.api("POST", "/v1/instances", request)
    assert answer.status == 422 and "rescue or a clean room" in json.dumps(answer.body)
    answer = helper.api("POST", "/v1/rooms", {**request, "isolation": "container"})
    assert "rescue or a clean room" in json.dumps(answer.body)


def test_a_device_that_is_mounted_is_refused(helper: Daemon, disk: Path, tmp_path: Path) -> None:
    assert disk
    where = tmp_path / "mounted"
    where.mkdir()
    found = subprocess.run(
        ["losetup", "--find", "--show", tmp_path / "part"], capture_output=True, text=True, check=True
    )
    device = found.stdout.strip()
    try:
        subprocess.run(["mount", device, where], check=True)
        for words in ((), ("-w",)):
            done = rescue(helper, *words, device, "true", check=False)
            assert done.returncode == 125 and "busy" in done.stderr, done.stderr
            assert on_host(*words, device, "true").returncode == 125
        subprocess.run(["umount", where], check=True)
        assert rescue(helper, "-w", device, "sh", "-c", "cat /etc/name; echo fine > /etc/name").stdout == "a system\n"
        assert on_host(device, "cat", "/etc/name").stdout == "fine\n"
    finally:
        subprocess.run(["umount", "-q", where], check=False)
        subprocess.run(["losetup", "-d", device], check=True)


def on_host(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [str(BULKHEAD), "rescue", "--on-host", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)


def loops(disk: Path) -> str:
    return subprocess.run(["losetup", "-j", disk], capture_output=True, text=True, check=True).stdout


def test_a_disk_of_ones_own_on_the_host(disk: Path, tmp_path: Path) -> None:
    require("root", "loop devices", "sfdisk")
    before = digest(disk)
    done = on_host(disk, "sh", "-c", "cat /etc/name; touch /x || exit 7")
    assert (done.returncode, done.stdout) == (7, "a system\n"), done.stderr
    assert digest(disk) == before
    assert on_host("-w", disk, "sh", "-c", "echo fine > /etc/fstab").returncode == 0
    assert look(disk, "/etc/fstab") == "fine\n"
    assert loops(disk) == ""
    empty = tmp_path / "empty.raw"
    with empty.open("wb") as file:
        file.truncate(MIB)
    wrong = on_host("-w", empty, "touch", tmp_path / "in-the-wrong-place")
    assert wrong.returncode == 125 and not (tmp_path / "in-the-wrong-place").exists()
    for words in (("--tools",), ("--instance",), ("--memory", "1G")):
        assert on_host(*words, disk).returncode == 125


def test_on_the_host_all_is_put_away_after_kill_9(disk: Path) -> None:
    require("root", "loop devices", "sfdisk")
    argv = [
        str(BULKHEAD),
        "rescue",
        "--on-host",
        "-w",
        str(disk),
        "sh",
        "-c",
        "echo kept > /etc/name; echo there; sleep 1000",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"there\n"
        process.kill()
    deadline = time.monotonic() + PATIENCE
    while loops(disk):
        assert time.monotonic() < deadline, loops(disk)
        time.sleep(0.05)
    assert look(disk, "/etc/name") == "kept\n"
