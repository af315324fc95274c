"""Attacks on container runtimes, one class for each entry of runc's changelog, against real containers.

Each test does what made the original attack work, as far as it can be done here at all, and looks at what it was
after: a file of the host's, the runtime's program, a path that is to be hidden, a right that is to be gone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from bulkhead.agent.files import Files
from bulkhead.agent.launch import find_agent
from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import AgentError, BulkheadError
from bulkhead.isolation.base import MountedVolume
from bulkhead.isolation.hardening import MASKED, READ_ONLY
from bulkhead.model import Mount
from tests.integration.isolation.lab import Lab, Mutation, make_root, namespace

CONTAINER_CAPS = "00000000800405fb"


def digest(path: Path) -> str:
    """What is in a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def untouched(lab: Lab) -> list[str]:
    """What somebody has made in the directory that nobody may reach."""
    return [str(path.relative_to(lab.outside_dir)) for path in sorted(lab.outside_dir.rglob("*"))]


def replaced_by_link(name: str, target: str) -> Mutation:
    """An image with a symbolic link at `name`."""

    def mutate(root: Path) -> None:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return mutate


def assert_proc_is_the_kernels(output: str) -> None:
    """The mounts of a container: proc, sysfs and what hides parts of them are where they belong."""
    mounted = {fields[1]: (fields[2], fields[3].split(",")) for fields in map(str.split, output.splitlines())}
    assert mounted["/proc"][0] == "proc"
    assert mounted["/sys"][0] == "sysfs"
    assert "ro" in mounted["/sys"][1]
    for path in READ_ONLY:
        if Path(path).exists():
            assert mounted[path][0] == "proc", path
            assert "ro" in mounted[path][1], path


# --- CVE-2019-5736: the runtime's program is overwritten through /proc/PID/exe


def test_cve_2019_5736_overwriting_the_agent(lab: Lab) -> None:
    """A command whose interpreter is /proc/self/exe makes the agent run itself in the container, where a hunter
    waits to open its program for writing."""

    def mutate(root: Path) -> None:
        (root / "bin/evil").write_text("#!/proc/self/exe\n")
        (root / "bin/evil").chmod(0o755)

    agent = find_agent()
    before = digest(agent)
    with lab.running("probe", "hunt", "2", image=mutate) as instance:
        instance.log(until="hunting")
        for _ in range(20):
            with suppress(BulkheadError):
                instance.execute("/bin/evil")
        text = instance.log(until="written")
    found = re.search(r"found (\d+) written (\d+)", text)
    assert found
    assert found[2] == "0"
    assert digest(agent) == before
    assert lab.run("echo", "still works").output == "still works\n"


def test_cve_2019_5736_the_agents_program_is_sealed(lab: Lab) -> None:
    """A supervisor runs from a memfd that cannot be changed, whoever gets hold of it."""
    with lab.running() as instance:
        program = Path(f"/proc/{instance.handle.supervisor_pid}/exe")
        assert "memfd" in str(program.readlink())
        with pytest.raises(OSError), program.open("r+b") as file:
            file.write(b"pwned")
            file.flush()


# --- CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc or /sys is a link, so that what is hidden is not


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/tmp", "tmp", "../../../../../tmp", "/proc/self/root/tmp", "OUTSIDE"])
def test_cve_2019_19921_proc_is_a_link(lab: Lab, name: str, target: str) -> None:
    """An image (2023-28642) in which /proc is a link: refused, and nothing is mounted anywhere else."""
    link = str(lab.outside_dir) if target == "OUTSIDE" else target
    with pytest.raises(AgentError) as caught:
        lab.run("true", image=replaced_by_link(name, link))
    assert f"/{name}" in caught.value.what
    assert untouched(lab) == []


def test_cve_2023_27561_a_volumes_link_over_proc(lab: Lab) -> None:
    """A volume mounted over /proc with links in it for what is to be masked (the attack's second form)."""
    volume = lab.directory / "volume"
    (volume / "sys").mkdir(parents=True)
    (volume / "kcore").symlink_to(lab.outside_dir)
    (volume / "self").symlink_to("/tmp")
    mounted = MountedVolume(source=volume, target="/proc", read_only=False, volume=True)
    assert_proc_is_the_kernels(lab.run("cat", "/proc/mounts", volumes=[mounted]).output)
    asked = lab.bundle(["true"]).spec.model_copy(
        update={"mounts": (Mount(kind="bind", source="/", target="/proc/sys"),)}
    )
    assert any("/proc/sys" in problem.what for problem in lab.driver.check(asked))


def test_masked_and_read_only_paths(lab: Lab) -> None:
    """What the three attacks are after: nothing of a masked path can be read, nothing read-only written."""
    masked = [path for path in MASKED if Path(path).exists()]
    script = "\n".join(
        [
            *(
                f"echo {path} $(if [ -d {path} ]; then ls -A {path} | head -n1; else head -c9 {path}; fi)"
                for path in masked
            ),
            "cat /proc/mounts >/tmp/mounts",
            "for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches; do",
            "  (echo x > $f) 2>/dev/null && echo $f was written",
            "done",
            "mount -o remount,rw /proc/sys 2>/dev/null && echo remounted",
            "umount /proc/sys 2>/dev/null && echo unmounted",
            "true",
        ]
    )
    done = lab.run("sh", "-c", script)
    assert sorted(line.strip() for line in done.lines) == sorted(masked)


# --- CVE-2021-43784: lengths in the start message overflow, and the rest is taken for other fields


def test_cve_2021_43784_large_fields_stay_fields(lab: Lab) -> None:
    """Strings of more than 16 bits of length that look like operations of the protocol: they arrive as they are, and
    the namespaces are those that were asked for."""
    looks_like_exec = "\x32\x00\x00\x01\x07\x00\x00\x00/bin/sh"
    evil = (looks_like_exec.replace("\x00", "\x01") * 10_000)[:100_000]
    assert len(evil) > 1 << 16
    done = lab.run("sh", "-c", "echo ${#EVIL}; cat /proc/self/uid_map; cat /proc/self/status", env=(f"EVIL={evil}",))
    lines = done.lines
    assert lines[0] == "100000"
    assert lines[1].split()[0::2] == ["0", "65536"]
    assert int(lines[1].split()[1]) >= lab.config.uid_base
    assert f"CapBnd:\t{CONTAINER_CAPS}" in lines


def test_cve_2021_43784_lists_that_are_too_large_are_refused(lab: Lab) -> None:
    """More than the protocol carries is refused before anything is made."""
    with pytest.raises(BulkheadError, match="large"):
        lab.run("true", env=tuple(f"V{number}={'x' * 100_000}" for number in range(16)))


# --- CVE-2022-29162: the inheritable set is not empty, so that file capabilities give more than they should


@pytest.mark.parametrize("user", ["", "user"])
def test_cve_2022_29162_no_inheritable_capabilities(lab: Lab, user: str) -> None:
    """Neither a workload nor a command beside it has inheritable or ambient capabilities."""
    status = "grep -E ^Cap /proc/self/status"
    expected = {"CapInh": "0" * 16, "CapAmb": "0" * 16, "CapBnd": CONTAINER_CAPS}
    with lab.running() as instance:
        outputs = [
            lab.run("sh", "-c", status, user=user).output,
            instance.execute("sh", "-c", status, user=user).output,
        ]
    for output in outputs:
        found = dict(line.split(":\t") for line in output.splitlines())
        assert {key: found[key] for key in expected} == expected
        assert found["CapEff"] == found["CapPrm"] == ("0" * 16 if user else CONTAINER_CAPS)


# --- CVE-2023-25809: /sys/fs/cgroup can be written


def test_cve_2023_25809_cgroups_cannot_be_written(lab: Lab) -> None:
    """Root in a container can neither make a cgroup nor change a limit nor make the mount writable."""
    script = """
    for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
        mkdir $directory/evil 2>/dev/null && echo made $directory/evil
        for file in cgroup.procs release_agent notify_on_release memory.max memory.limit_in_bytes; do
            [ -e $directory/$file ] && (echo 1 > $directory/$file) 2>/dev/null && echo wrote $directory/$file
        done
    done
    mount -o remount,rw /sys 2>/dev/null && echo remounted
    mount -t cgroup2 none /tmp 2>/dev/null && echo mounted
    mount -t cgroup -o memory none /tmp 2>/dev/null && echo mounted
    echo done
    """
    assert lab.run("sh", "-c", script).output == "done\n"


# --- CVE-2024-21626: a file descriptor of the host's is left open, and the working directory leads through it


@pytest.mark.parametrize("number", [3, 5, 6, 7, 8, 9, 10, 15, 20])
@pytest.mark.parametrize("suffix", ["", "/../../.."])
def test_cve_2024_21626_working_directory_in_a_leaked_descriptor(lab: Lab, number: int, suffix: str) -> None:
    """-w /proc/self/fd/N: a magic link is never followed, whether something is open there or not."""
    path = f"/proc/self/fd/{number}{suffix}"
    with pytest.raises(AgentError):
        lab.run("ls", workdir=path)
    with lab.running() as instance, pytest.raises(AgentError):
        instance.execute("ls", workdir=path)


def test_cve_2024_21626_working_directory_by_a_link_of_the_image(lab: Lab) -> None:
    """The same through a link in the image."""
    with pytest.raises(AgentError):
        lab.run("ls", workdir="/cwd", image=replaced_by_link("cwd", "/proc/self/fd/7/"))


def test_cve_2024_21626_no_descriptor_is_left(lab: Lab) -> None:
    """A workload and a command have their three pipes, and nothing else."""
    with lab.running("sh", "-c", "probe fds; sleep 1000") as instance:
        workload = instance.log(until="\n2 ")
        command = instance.execute("probe", "fds").output
    for output in (workload, command):
        rows = [line.split(maxsplit=1) for line in output.splitlines()]
        assert [number for number, _ in rows] == ["0", "1", "2"], output
        assert all(target.startswith(("pipe:", "/dev/null")) for _, target in rows), output


def test_cve_2024_21626_a_command_on_its_way_in_can_not_be_got_at(lab: Lab) -> None:
    """Commands are started while root inside looks for processes that are not the image's: the agent's child, which
    has joined the container and not yet executed anything (CVE-2016-9962's class)."""
    with lab.running(
        "sh", "-c", "probe pry 2; sleep 1000"
    ) as instance:  # a busy host starts commands after that as well
        instance.log(until="prying")
        for _ in range(60):
            instance.execute("true")
        with Session.connect(instance.bundle.directory / SOCKET) as session:
            for _ in range(20):
                files = Files(session)
                files.stat("/")
                files.close()
        text = instance.log(until="seen")
    assert "opened" not in text, text


def test_cve_2024_21626_the_working_directory_is_below_the_root(lab: Lab) -> None:
    """Whatever the working directory is, `..` ends at the container's root."""
    with lab.running(workdir="/var") as instance:
        assert instance.execute("sh", "-c", "cd ../../../../..; pwd; ls -d outside layer* 2>/dev/null").output == "/\n"


# --- CVE-2024-45310: directories for mount points are made on the host, in a race


def test_cve_2024_45310_racing_for_a_mount_point(lab: Lab) -> None:
    """While containers start with a mount below a shared volume, its owner exchanges the directory with a link to
    the host's: nothing is made there."""
    volume, source = lab.directory / "shared", lab.directory / "source"
    for path in (volume, source, volume / "at"):
        path.mkdir()
    (volume / "link").symlink_to(lab.outside_dir)
    shared = MountedVolume(source=volume, target="/vol", read_only=False, volume=True)
    deep = MountedVolume(source=source, target="/vol/at/a/b", read_only=False, volume=True)
    done = threading.Event()
    exchanges = 0

    def exchange() -> None:
        nonlocal exchanges
        libc = ctypes.CDLL(None)
        while not done.is_set():
            at_cwd, swap = -100, 2
            libc.renameat2(at_cwd, bytes(volume / "at"), at_cwd, bytes(volume / "link"), swap)
            exchanges += 1

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(40):
            with suppress(BulkheadError):
                lab.run("true", volumes=[shared, deep])
    finally:
        done.set()
        thread.join()
    assert exchanges > 100
    assert untouched(lab) == []


# --- CVE-2025-31133: /dev/null is a link, and what it leads to is bound over masked paths


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "/etc/passwd", "OUTSIDE/secret", "../../../../etc/passwd"])
def test_cve_2025_31133_dev_null_is_a_link(lab: Lab, target: str) -> None:
    """Masks are the host's null device, checked to be that one; an image's /dev counts for nothing."""
    (lab.outside_dir / "secret").write_text("secret")
    link = target.replace("OUTSIDE", str(lab.outside_dir))
    masked = [path for path in MASKED if Path(path).is_file()]
    script = f"stat -c '%F %t:%T' /dev/null {' '.join(masked)}; cat {' '.join(masked)}"
    done = lab.run("sh", "-c", script, image=replaced_by_link("dev/null", link))
    assert done.lines == ["character special file 1:3"] * (1 + len(masked))
    assert (lab.outside_dir / "secret").read_text() == "secret"


# --- CVE-2025-52565: /dev/console is a link when the terminal is bound there


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "pts/0", "OUTSIDE/secret"])
def test_cve_2025_52565_dev_console_is_a_link(lab: Lab, target: str) -> None:
    """The console is the container's own terminal, in a /dev that is made anew."""
    (lab.outside_dir / "secret").write_text("secret")
    image = replaced_by_link("dev/console", target.replace("OUTSIDE", str(lab.outside_dir)))
    script = "stat -c %F /dev/console; echo to the console >/dev/console; cat /proc/sysrq-trigger 2>&1 | head -c 20"
    done = lab.run("sh", "-c", script, image=image, tty=True)
    assert done.lines[:2] == ["character special file", "to the console"]
    assert (lab.outside_dir / "secret").read_text() == "secret"


def test_cve_2025_52565_racing_devpts(lab: Lab) -> None:
    """An image whose /dev/pts and /dev/ptmx are links out of it."""

    def mutate(root: Path) -> None:
        (root / "dev/pts").symlink_to(lab.outside_dir)
        (root / "dev/ptmx").symlink_to(lab.outside_dir / "ptmx")

    done = lab.run("sh", "-c", "test -t 0 && test -t 1 && echo terminal", image=mutate, tty=True)
    assert done.lines == ["terminal"]
    assert untouched(lab) == []


# --- CVE-2025-52881: what the runtime writes to /proc goes somewhere else


def test_cve_2025_52881_writes_to_proc_are_not_redirected(lab: Lab) -> None:
    """An image that has its own /proc full of links: what the agent writes (sysctls, scores, ids) goes to the
    kernel, and nothing to where the links lead."""

    def mutate(root: Path) -> None:
        for path in ("proc/sys/net/ipv4", "proc/self/attr", "proc/thread-self/attr"):
            (root / path).mkdir(parents=True)
        (root / "proc/sys/net/ipv4/ip_unprivileged_port_start").symlink_to(lab.outside_dir / "port")
        (root / "proc/self/oom_score_adj").symlink_to(lab.outside_dir / "score")
        (root / "proc/self/attr/exec").symlink_to(lab.outside_dir / "exec")

    for name in ("port", "score", "exec"):
        (lab.outside_dir / name).touch()
    done = lab.run("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/self/oom_score_adj", image=mutate)
    assert done.lines == ["0", "0"]
    assert [(lab.outside_dir / name).read_text() for name in ("port", "score", "exec")] == [""] * 3


def test_cve_2025_52881_a_volume_over_proc_sys(lab: Lab) -> None:
    """The same with volumes mounted over parts of /proc, past the check that refuses such targets."""
    volume = lab.directory / "volume"
    (volume / "net/ipv4").mkdir(parents=True)
    (volume / "net/ipv4/ip_unprivileged_port_start").symlink_to("/proc/sysrq-trigger")
    mounted = MountedVolume(source=volume, target="/proc/sys", read_only=False, volume=True)
    before = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    done = lab.run("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", volumes=[mounted])
    assert done.lines == ["0"]
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == before


# --- CVE-2026-41579: /dev is a link, and the runtime deletes and links on the host


@pytest.mark.parametrize("relative", [False, True])
def test_cve_2026_41579_dev_is_a_link(lab: Lab, relative: bool) -> None:
    """An image whose /dev leads to a directory of the host's with a file `ptmx` in it (runc before 1.3.6 removed that
    file and made links there): refused, and the directory stays as it is."""
    (lab.outside_dir / "ptmx").write_text("decoy")
    link = "../" * 20 + str(lab.outside_dir).lstrip("/") if relative else str(lab.outside_dir)
    with pytest.raises(AgentError, match="/dev"):
        lab.run("true", image=replaced_by_link("dev", link))
    assert untouched(lab) == ["ptmx"]
    assert (lab.outside_dir / "ptmx").read_text() == "decoy"


def test_cve_2026_41579_dev_is_a_link_within_the_image(lab: Lab) -> None:
    """A link to another directory of the image is refused as well: /dev is what it says."""
    with pytest.raises(AgentError, match="/dev"):
        lab.run("true", image=replaced_by_link("dev", "/etc"))


# --- what all of these were after


def test_files_written_at_the_start_stay_below_the_root(lab: Lab) -> None:
    """/etc/hosts and its like as links to the host's files, absolute and relative."""
    for name in ("resolv.conf", "hosts", "hostname"):
        (lab.outside_dir / name).write_text("the host's")

    def mutate(root: Path) -> None:
        (root / "etc/resolv.conf").symlink_to(lab.outside_dir / "resolv.conf")
        (root / "etc/hosts").symlink_to("../" * 20 + str(lab.outside_dir / "hosts"))
        (root / "etc/hostname").symlink_to("/proc/self/root" + str(lab.outside_dir / "hostname"))

    with suppress(BulkheadError):
        lab.run("true", image=mutate)
    assert {path.read_text() for path in lab.outside_dir.iterdir()} == {"the host's"}


def test_a_volumes_target_through_links_of_the_image(lab: Lab) -> None:
    """A mount target below a link that leads out of the root ends up below the root."""
    volume = lab.directory / "volume"
    volume.mkdir()
    mounted = MountedVolume(source=volume, target="/data/x", read_only=False, volume=True)
    with suppress(BulkheadError):
        lab.run("true", image=replaced_by_link("data", str(lab.outside_dir)), volumes=[mounted])
    assert untouched(lab) == []


def test_root_has_no_power_over_the_host(lab: Lab) -> None:
    """Devices, mounts, modules, the kernel's log, other users' processes: none of it."""
    script = """
    mknod /tmp/sda b 8 0 2>/dev/null && echo made a disk
    mknod /dev/kmsg c 1 11 2>/dev/null && echo made a log
    mount -t tmpfs none /tmp 2>/dev/null && echo mounted
    mount -t proc none /tmp 2>/dev/null && echo mounted proc
    (echo 1 > /proc/sys/kernel/sysrq) 2>/dev/null && echo wrote
    (echo b > /proc/sysrq-trigger) 2>/dev/null && echo wrote
    ls /proc/1/root/outside 2>/dev/null && echo saw
    chown 70000 /tmp 2>/dev/null && echo gave away
    cat /dev/kmsg 2>/dev/null | head -c 1
    echo done
    """
    assert lab.run("sh", "-c", script).output == "done\n"


def test_device_nodes_of_an_image_cannot_be_opened(lab: Lab) -> None:
    """A layer with the nodes of memory and null in it."""

    def mutate(root: Path) -> None:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))

    done = lab.run("sh", "-c", "cat /null; head -c1 /zero; echo done", image=mutate)
    assert done.lines[-1] == "done"
    assert sum("Permission denied" in line for line in done.lines) == 2


def test_set_user_id_programs_give_nothing(lab: Lab) -> None:
    """no_new_privs: a set-uid root program run by a user stays the user's."""

    def mutate(root: Path) -> None:
        (root / "bin/rootid").write_bytes((root / "bin/busybox").read_bytes())
        (root / "bin/rootid").chmod(0o4755)
        (root / "bin/id").unlink()
        (root / "bin/id").symlink_to("rootid")

    assert "uid=1000" in lab.run("id", image=mutate, user="user").output


def test_every_namespace_is_its_own(lab: Lab) -> None:
    """None of a container's namespaces is the host's."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    with lab.running() as instance:
        for kind in kinds:
            own = namespace(kind, instance.handle.pid)
            assert own != namespace(kind), kind
            beside = instance.execute("readlink", f"/proc/self/ns/{kind}").output.strip()
            assert beside == own, kind


def test_two_containers_share_no_uid(lab: Lab) -> None:
    """Each has a range of its own, and each the image's own ids inside."""
    with lab.running() as one, lab.running() as other:
        owners = [Path(f"/proc/{instance.handle.pid}").stat().st_uid for instance in (one, other)]
        assert owners == [one.bundle.uid_start, other.bundle.uid_start]
        assert abs(owners[0] - owners[1]) >= 65536
        assert one.execute("stat", "-c", "%u:%g", "/etc/passwd").output == "0:0\n"


def test_terminal_input_cannot_be_faked(lab: Lab) -> None:
    """TIOCSTI on one's own terminal (CVE-2017-5226's class) is refused though the kernel would allow it."""
    assert lab.run("probe", "tiocsti", tty=True).lines == ["1"]


def test_an_image_changes_nothing_for_the_next(lab: Lab) -> None:
    """A layer is shared and stays as it was."""
    lab.run("sh", "-c", "rm /etc/passwd; echo x > /bin/cat; mkdir /new")
    fresh = lab.directory / "fresh"
    make_root(fresh)
    layer = lab.layer(None)
    assert sorted(path.name for path in layer.iterdir()) == sorted(path.name for path in fresh.iterdir())
    assert digest(layer / "etc/passwd") == digest(fresh / "etc/passwd")
