"""What the wider rights of a system (`--init system`) must not open. Its first process here is the attacker itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bulkhead.agent.files import Files
from bulkhead.agent.session import SOCKET, Session
from bulkhead.isolation.base import MountedVolume
from tests.integration.isolation.lab import Lab, Result

SYSTEM_CAPS = "00000000806c05ff"
OWN_SETTINGS = re.compile(
    r"/proc/sys/(kernel/(hostname|domainname|sem\w*|shm\w*|msg\w*|auto_msgmni|ns_last_pid|pid_max)|fs/mqueue/\w+|user/\w+)"
)
"""Settings of the namespaces that belong to the instance's user namespace; pid_max is among them since Linux 6.14."""


def attack(lab: Lab, script: str, **options: object) -> Result:
    """A shell script as a system's first process."""
    return lab.run("sh", "-c", script, init="system", **options)


def test_it_has_these_rights_and_no_more(lab: Lab) -> None:
    status = "grep -E 'Cap(Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp:' /proc/self/status"
    expected = [f"CapInh:\t{'0' * 16}", f"CapEff:\t{SYSTEM_CAPS}", f"CapBnd:\t{SYSTEM_CAPS}", f"CapAmb:\t{'0' * 16}"]
    assert attack(lab, status).lines == [*expected, "NoNewPrivs:\t0", "Seccomp:\t2"]
    with lab.running(init="system") as instance:
        assert instance.execute("sh", "-c", status).lines == [*expected, "NoNewPrivs:\t0", "Seccomp:\t2"]
        assert "Seccomp:\t2" in instance.execute("sh", "-c", status, user="user").lines


def test_the_hosts_file_systems_cannot_be_mounted(lab: Lab) -> None:
    """No disk, no loop device, no file system of the kernel's own; what can be mounted is empty or the instance's."""
    kinds = "ext4 erofs xfs btrfs vfat iso9660 squashfs devtmpfs debugfs tracefs securityfs configfs bpf pstore "
    script = f"""
    busybox truncate -s 1M /tmp/image
    for kind in {kinds} efivarfs nfs 9p cifs; do
        for source in none /dev/vda /dev/sda /dev/loop0 /tmp/image; do
            mount -t $kind $source /tmp 2>/dev/null && echo mounted $kind of $source
        done
    done
    mount -o loop /tmp/image /tmp 2>/dev/null && echo looped
    mkdir /n
    mount -t tmpfs none /n && echo tmpfs && umount /n
    mount -t proc none /n && ls -d /n/[0-9]* | wc -l
    """
    lines = attack(lab, script).lines
    assert lines[0] == "tmpfs"
    assert all(int(line) < 8 for line in lines[1:]), "its own processes alone"


def test_device_nodes_cannot_be_made(lab: Lab) -> None:
    """Not on its root, in /dev, on a tmpfs of its own, nor by an overlay of one."""
    script = """
    mkdir /t; mount -t tmpfs none /t
    for at in /tmp /dev /run /t; do
        mknod $at/disk b 8 0 2>/dev/null && echo made in $at
        mknod $at/memory c 1 1 2>/dev/null && echo made in $at
        mknod $at/null c 1 3 2>/dev/null && echo made in $at
    done
    mount -o remount,dev / 2>/dev/null; mount -o remount,dev,suid /run 2>/dev/null
    echo done
    """
    assert attack(lab, script).lines == ["done"]


def test_what_is_unmasked_is_still_the_hosts(lab: Lab) -> None:
    """Its root takes every mask off and makes /proc writable: what can be written then is its namespaces' own."""
    script = """
    for path in $(cut -d' ' -f2 /proc/mounts | grep ^/proc/ | sort -r); do umount $path 2>/dev/null; done
    for path in /proc/sys /proc /sys; do mount -o remount,rw $path 2>/dev/null; done
    for file in /proc/sysrq-trigger /proc/kcore $(busybox find /proc/sys /proc/irq /proc/fs /proc/bus -type f); do
        (: >> $file) 2>/dev/null && echo $file
    done
    echo kernel
    for file in $(busybox find /sys -type f 2>/dev/null | head -n 4000); do (: >> $file) 2>/dev/null && echo $file; done
    head -c 1 /proc/kcore 2>/dev/null | wc -c
    for word in core_pattern modprobe; do echo '|/tmp/x' 2>/dev/null > /proc/sys/kernel/$word; done 2>/dev/null
    true
    """
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    lines = attack(lab, script).lines
    own, _, rest = "\n".join(lines).partition("kernel\n")
    assert "/proc/sys/kernel/shmmax" in own, "the masks are off"
    assert [path for path in own.split() if not OWN_SETTINGS.fullmatch(path)] == []
    assert rest.split() == ["0"], "nothing of /sys can be written, nothing of the kernel's memory read"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_a_read_only_bind_stays_read_only(lab: Lab) -> None:
    """It came from the host's user namespace: its flags are locked, it cannot be taken off, nor what it covers seen."""
    source = lab.directory / "given"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("kept")
    mounted = MountedVolume(source=source, target="/data", read_only=True, volume=False)
    script = """
    for how in remount,rw remount,bind,rw remount,rw,suid,dev,exec; do
        mount -o $how /data 2>/dev/null && echo $how
    done
    umount /data 2>/dev/null && echo unmounted
    umount -l /data 2>/dev/null && echo detached
    mkdir /again /all; mount --bind /data /again && mount -o remount,bind,rw /again 2>/dev/null && echo again
    mount --rbind / /all && mount -o remount,bind,rw /all/data 2>/dev/null && echo all
    busybox unshare -m sh -c 'mount -o remount,bind,rw /data; echo x > /data/file' 2>/dev/null && echo unshared
    (echo x > /data/file) 2>/dev/null && echo wrote
    (echo x > /again/file) 2>/dev/null && echo wrote again
    mknod /data/node c 1 3 2>/dev/null && echo node
    cat /data/file
    """
    assert attack(lab, script, volumes=[mounted]).output == "kept"
    assert (source / "file").read_text() == "kept"


def test_namespaces_are_not_nested(lab: Lab) -> None:
    """No user namespace, whose root would have every capability there; what else it makes is bound to its own."""
    script = """
    busybox unshare -U true 2>/dev/null && echo user
    busybox unshare -U -r -m -n true 2>/dev/null && echo mapped
    busybox unshare -m true && echo mount
    mkdir /s
    busybox unshare -n sh -c 'busybox ip link set lo up 2>/dev/null && echo up; mount -t sysfs none /s 2>/dev/null &&
        for file in $(busybox find /s -type f | head -n 2000); do (: >> $file) 2>/dev/null && echo $file; done'
    busybox ip link add x type dummy 2>/dev/null && echo link
    busybox ip addr add 192.0.2.9/24 dev lo 2>/dev/null && echo address
    cat /proc/self/uid_map
    """
    lines = attack(lab, script).lines
    assert lines[0] == "mount"
    assert len(lines) == 2 and lines[1].split()[2] == "65536", lines


@pytest.mark.parametrize("program", ["pry", "hunt"])
def test_the_agents_processes_can_not_be_got_at(lab: Lab, program: str) -> None:
    """Commands on their way in, while root inside, which may trace whatever is its own, looks for them."""
    with lab.running("sh", "-c", f"probe {program} 2; sleep 1000", init="system") as instance:
        instance.log(until={"pry": "prying", "hunt": "hunting"}[program])
        for _ in range(40):
            instance.execute("true")
        with Session.connect(instance.bundle.directory / SOCKET) as session:
            for _ in range(10):
                files = Files(session)
                files.stat("/")
                files.close()
        text = instance.log(until={"pry": "seen", "hunt": "written"}[program])
    assert "opened" not in text, text
    assert "written" not in text or "written 0" in text, text


def test_a_reboot_ends_its_first_process_and_nothing_else(lab: Lab) -> None:
    """SIGHUP by the kernel, told as 129; halting is refused, so that an init ends by itself."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    done = attack(lab, "busybox poweroff -f 2>/dev/null || echo refused; busybox reboot -f; sleep 100")
    assert (done.code, done.lines) == (129, ["refused"])
    assert Path("/proc/sys/kernel/random/boot_id").read_text() == boot


def test_the_hosts_processes_and_names_are_out_of_sight(lab: Lab) -> None:
    name = os.uname().nodename
    script = """
    hostname attacker 2>/dev/null || busybox hostname attacker && busybox hostname
    busybox ps | wc -l
    busybox nsenter -t 1 -m -p -u true && ls -d /outside /proc/1/root/outside 2>/dev/null
    busybox nsenter -t 1 -n true 2>/dev/null && echo network
    busybox date -s 2001-01-01 >/dev/null 2>&1; busybox date +%Y | grep 2001
    busybox dmesg >/dev/null 2>&1 && echo log
    true
    """
    lines = attack(lab, script).lines
    assert lines[0] == "attacker"
    assert len(lines) == 2 and int(lines[1]) < 8, lines
    assert os.uname().nodename == name
