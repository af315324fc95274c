"""START: from a list of operations to a workload, and what it finds around itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bulkhead.agent.operations import Attr, Code, read
from tests.agent.box import BASE, COUNT, Box, bind, mount, simple
from tests.agent.wire import NEWUSER, Failure


def test_workload_runs_and_its_exit_is_told_and_written(box: Box) -> None:
    code, out, err = box.sh("echo out; echo err >&2; exit 3")
    assert (code, out, err) == (3, b"out\n", b"err\n")
    written = box.agent.exit()
    assert (written["code"], written["signal"], written["reports"]) == (3, 0, [])
    assert written["started"] <= written["ended"]
    assert sorted(box.agent.log()) == [("stderr", "F", "err"), ("stdout", "F", "out")]


def test_a_user_namespace_with_its_own_range(box: Box) -> None:
    script = "id -u; id -g; id -G; cat /proc/self/uid_map; stat -c %u:%g /bin/busybox /; echo made >/made; echo $$"
    code, out, err = box.sh(script)
    assert (code, err) == (0, b"")
    uid, gid, groups, mapped, *owners, pid = out.decode().split("\n")[:-1]
    assert (uid, gid, groups, pid) == ("0", "0", "0", "1")
    assert mapped.split() == ["0", str(BASE), str(COUNT)]
    assert owners == ["0:0", "0:0"]
    assert (box.upper / "made").stat().st_uid == 0


def test_nothing_of_the_host_is_left_in_the_process(box: Box) -> None:
    script = """
        for fd in /proc/1/fd/*; do readlink $fd; done
        cat /proc/1/mountinfo | wc -l
        cat /proc/1/environ | tr '\\0' '\\n'
        pwd; umask
    """
    code, out, err = box.sh(script)
    assert (code, err) == (0, b"")
    null, *pipes = out.decode().splitlines()[:3]
    assert null == "/dev/null"
    assert all(pipe.startswith("pipe:[") for pipe in pipes)
    assert out.decode().splitlines()[3:] == ["4", "PATH=/bin", "/", "0022"]


def test_signals_groups_and_session_are_its_own(box: Box) -> None:
    _, out, _ = box.run("cat", "/proc/self/status", "/proc/self/stat")
    *status, stat = out.decode().splitlines()
    found = dict(line.split(":\t", 1) for line in status)
    assert {found[name] for name in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd")} == {"0" * 16}
    assert found["Groups"].strip() == ""
    assert stat.split()[4:6] == ["1", "1"], "process group and session"


def test_orphans_of_a_pid_namespace_end_with_the_workload(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach(3)
    pid = connection.start(box.request("sh", "-c", "sleep 1000 & sleep 1000 & echo up; read x", flags=2))
    assert connection.next(stream).payload == b"up\n"
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 2
    connection.signal(9)
    assert connection.collect(stream).signal == 9
    assert box.agent.gone()
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_attach_before_start_misses_nothing(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach()
    connection.start(box.request("echo", "early"))
    assert connection.collect(stream).out == b"early\n"


def test_without_namespaces_of_its_own(box: Box) -> None:
    """As the engine asks for a chroot."""
    connection = box.launch()
    stream = connection.attach()
    request = box.request("sh", "-c", "id -u; readlink /proc/self; ls -d /bin")
    request.stage = box.stage(bind("/proc", "/proc", flags=2), idmap=False)
    request.inside = [
        simple(Code.PIVOT),
        simple(Code.ENV, "PATH=/bin"),
        simple(Code.EXEC, "sh", "-c", "id -u; ls -d /bin"),
    ]
    request.clone = request.unshare = request.base = request.count = 0
    connection.start(request)
    assert connection.collect(stream).out == b"0\n/bin\n"


def test_files_directories_links_and_devices(box: Box) -> None:
    stage = [
        simple(Code.MKDIRS, "/a/b/c", 0o750, 1000, 50),
        simple(Code.FILE, "/a/new/file", 0o640, 33, 33, "text"),
        simple(Code.FILE, "/etc/group", 0o644, 0, 0, "root:x:0:\n"),
        simple(Code.SYMLINK, "b/c", "/a/link"),
        simple(Code.SYMLINK, "ignored", "/a/link"),
    ]
    script = """
        stat -c '%a %u %g' /a/b/c /a/new /a/new/file
        cat /a/new/file /etc/group; readlink /a/link
        echo x >/dev/null; head -c 3 /dev/zero | wc -c
    """
    code, out, err = box.sh(script, stage=stage)
    assert (code, err) == (0, b"")
    assert out.decode().splitlines() == ["750 1000 50", "755 0 0", "640 33 33", "textroot:x:0:", "b/c", "3"]


def test_files_made_inside(box: Box) -> None:
    inside = [
        simple(Code.MKDIRS, "/a/b", 0o700, 7, 8),
        simple(Code.FILE, "/a/b/file", 0o600, 9, 10, b"data"),
        mount("tmpfs", "/new/mount/point", attrs=Attr.NOSUID, data="mode=1777,size=64k"),
    ]
    code, out, err = box.sh("stat -c '%a %u %g' /a/b /a/b/file /new/mount/point", inside=inside)
    assert (code, err) == (0, b"")
    assert out.decode().splitlines() == ["700 7 8", "600 9 10", "1777 0 0"]


def test_binds_of_the_host_with_mapped_ids(box: Box, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "below").mkdir(parents=True)
    (tmp_path / "one").write_text("one")
    stage = [
        bind(shared, "/data", flags=1, attrs=Attr.NOSUID),
        bind(shared, "/read/only", flags=1, attrs=Attr.RDONLY),
        bind(tmp_path / "one", "/etc/one", flags=1, attrs=Attr.RDONLY),
    ]
    script = "echo x >/data/file; stat -c %u /data/file; cat /etc/one; echo y >/read/only/file"
    code, out, err = box.sh(script, stage=stage)
    assert (code, out) == (1, b"0\none")
    assert b"Read-only file system" in err
    assert (shared / "file").stat().st_uid == 0


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("file", "/home", (errno.EISDIR, "a file cannot be mounted on the directory /home")),
        (".", "/etc/passwd", (errno.ENOTDIR, "a directory cannot be mounted on the file /etc/passwd")),
        ("file", "/dev", (errno.EISDIR, "/dev")),
        (".", "/etc/passwd/x", (errno.ENOTDIR, "/etc/passwd/x")),
    ],
)
def test_binds_that_do_not_fit(box: Box, tmp_path: Path, source: str, target: str, told: tuple[int, str]) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("one")
    failure = failure_of(box, stage=[bind(tmp_path / "shared" / source, target, flags=1)])
    assert (failure.code, failure.errno) == (Code.BIND, told[0])
    assert told[1] in failure.text


def test_masks_and_rebinds(box: Box) -> None:
    inside = [
        simple(Code.REBIND, "/proc/sys", "/proc/sys", int(Attr.RDONLY), 2),
        simple(Code.REBIND, "/none", "/etc", 0, 4),
        simple(Code.MASK, "/proc/kallsyms"),
        simple(Code.MASK, "/proc/keys"),
        simple(Code.MASK, "/proc/irq"),
        simple(Code.MASK, "/sys/none"),
        simple(Code.MASK, "/home"),
    ]
    script = """
        wc -c </proc/kallsyms; wc -c </proc/keys; ls /proc/irq /home | grep -v :
        stat -c %t:%T /proc/kallsyms; echo 1 >/proc/sys/kernel/hostname
    """
    code, out, err = box.sh(script, inside=inside)
    assert out.decode().split() == ["0", "0", "1:3"]
    assert code == 1 and b"Read-only file system" in err


def test_masks_after_the_pivot(box: Box) -> None:
    before = [simple(Code.MASK, path) for path in ("/proc/kallsyms", "/proc/keys", "/proc/irq", "/home")]
    code, out, err = box.sh("cat /proc/kallsyms /proc/keys; ls /proc/irq /home | grep -v :; exit 0", before_exec=before)
    assert (code, out.strip(), err) == (0, b"", b"")


def test_host_name_sysctl_and_loopback(box: Box) -> None:
    inside = [
        simple(Code.HOSTNAME, "inner"),
        simple(Code.LOOPBACK),
        simple(Code.SYSCTL, "net/ipv4/ip_unprivileged_port_start", "0"),
        simple(Code.SYSCTL, "/proc/sys/net/ipv4/ping_group_range", "0 100"),
    ]
    script = """
        hostname; cd /proc/sys/net/ipv4
        cat ip_unprivileged_port_start ping_group_range; ip link show lo | head -1
    """
    code, out, err = box.sh(script, inside=inside)
    assert (code, err) == (0, b"")
    lines = out.decode().splitlines()
    assert lines[0] == "inner" and lines[1] == "0" and lines[2].split() == ["0", "100"]
    assert "UP" in lines[3]


def test_a_secret_is_a_file_in_memory_alone(box: Box) -> None:
    value = os.urandom(300_000)
    secrets = [
        simple(Code.SECRET, "/run/secrets/key", 0o400, 7, 9, value),
        simple(Code.SECRET, "/etc/deep/word", 0o444, 0, 0, b"said\n"),
    ]
    script = """
        sha256sum </run/secrets/key; stat -c %a:%u:%g:%s /run/secrets/key /etc/deep/word; cat /etc/deep/word
        grep -E 'secrets/key|deep/word' /proc/self/mountinfo | sed 's/.* - //' | cut -d' ' -f1,2; ls /
        echo more >>/etc/deep/word
    """
    code, out, err = box.sh(script, inside=secrets)
    assert code == 1 and b"Read-only file system" in err
    lines = out.decode().splitlines()
    assert lines[0].split()[0] == sha256(value).hexdigest()
    assert lines[1:4] == ["400:7:9:300000", "444:0:0:5", "said"]
    assert lines[4:6] == ["ramfs bulkhead-secrets"] * 2, "no page of it is swapped out"
    for path in (box.upper / "run/secrets/key", box.upper / "etc/deep/word"):
        assert path.read_bytes() == b"", "the disk has a place to mount on, and nothing in it"


@pytest.mark.parametrize("link", ["/run", "/run/secrets", "/run/secrets/key"])
def test_a_link_of_the_image_leads_no_secret_out_of_the_root(box: Box, link: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"")
    at = box.upper / link.lstrip("/")
    at.parent.mkdir(parents=True, exist_ok=True)
    target = tmp_path / "outside" / ("file" if link.endswith("key") else "")
    at.symlink_to("../" * 20 + str(target).lstrip("/"))
    secret = simple(Code.SECRET, "/run/secrets/key", 0o444, 0, 0, b"the value")
    code, out, _ = box.sh("cat /run/secrets/key", inside=[secret])
    assert (code, out) == (0, b"the value"), "it is where the link leads inside the root"
    found = [path.read_bytes() for path in tmp_path.joinpath("outside").rglob("*") if path.is_file()]
    assert found == [b""], "nothing of it has come to where the link leads on the host"


def test_the_working_directory_is_made_when_asked_for(box: Box) -> None:
    assert box.run("pwd", before_exec=[simple(Code.CHDIR, "/srv/made", 1)])[1] == b"/srv/made\n"


def failure_of(box: Box, **request: Any) -> Failure:
    connection = box.launch()
    with pytest.raises(Failure) as caught:
        connection.start(box.request(*request.pop("argv", ("true",)), **request))
    assert box.agent.gone()
    assert not (box.bundle / "exit.json").exists()
    return caught.value


def test_a_command_that_is_not_there(box: Box) -> None:
    failure = failure_of(box, argv=("no-such-program",))
    assert (failure.phase, failure.code, failure.errno) == (2, Code.EXEC, errno.ENOENT)
    assert "no-such-program" in failure.text


def test_a_command_that_cannot_be_executed(box: Box) -> None:
    (box.own_layer() / "text").write_text("no program")
    assert failure_of(box, argv=("/text",)).errno == errno.EACCES


def test_a_command_that_is_no_program(box: Box) -> None:
    path = box.own_layer() / "text"
    path.write_text("no program")
    path.chmod(0o755)
    assert failure_of(box, argv=("/text",)).errno == errno.ENOEXEC


def test_a_failure_of_the_stage_names_the_operation(box: Box) -> None:
    stage = [bind("/no/such/path", "/data")]
    failure = failure_of(box, stage=stage)
    assert (failure.phase, failure.code, failure.errno) == (1, Code.BIND, errno.ENOENT)
    assert failure.index == len(box.stage())
    assert "/no/such/path" in failure.text


def test_what_is_optional_may_fail(box: Box) -> None:
    stage = [bind("/no/such/path", "/data", optional=True)]
    inside = [simple(Code.REBIND, "/nowhere", "/etc", 0, 0, optional=True)]
    assert box.run("true", stage=stage, inside=inside)[0] == 0


def test_a_file_system_says_what_is_wrong(box: Box) -> None:
    failure = failure_of(box, inside=[mount("tmpfs", "/x", data="mode=755,nonsense=3")])
    assert (failure.code, failure.errno) == (Code.MOUNT, errno.EINVAL)
    assert "nonsense" in failure.text


def test_finish_is_carried_out_and_reported(box: Box, tmp_path: Path) -> None:
    (tmp_path / "counter").write_text('12\n\x01"')
    made = tmp_path / "made"
    connection = box.launch()
    watch = connection.watch()
    connection.start(
        box.request(
            "true",
            prepare=[simple(Code.MKDIR, str(made), 0o700), simple(Code.MKDIR, str(made), 0o700)],
            finish=[
                read(tmp_path / "counter"),
                read(tmp_path / "none"),
                simple(Code.RMDIR, str(made)),
                simple(Code.RMDIR, str(made)),
                simple(Code.UNLINK, str(tmp_path / "counter")),
                simple(Code.UNLINK, str(tmp_path / "counter")),
            ],
        )
    )
    assert connection.collect(watch).code == 0
    assert box.agent.exit()["reports"] == ['12\n\x01"', ""]
    assert not made.exists() and not (tmp_path / "counter").exists()


def test_a_directory_is_given_away(box: Box, tmp_path: Path) -> None:
    made, link = tmp_path / "made", tmp_path / "link"
    link.symlink_to(tmp_path)
    given = [simple(Code.CHOWN, str(path), BASE, BASE + 1) for path in (made, link)]
    connection = box.launch()
    connection.start(box.request("sleep", "1000", prepare=[simple(Code.MKDIR, str(made), 0o700), *given]))
    assert (made.stat().st_uid, made.stat().st_gid, link.lstat().st_uid) == (BASE, BASE + 1, BASE)
    assert tmp_path.stat().st_uid == 0, "a link is not followed"


def test_an_owner_that_cannot_be(box: Box, tmp_path: Path) -> None:
    failure = failure_of(box, argv=("true",), prepare=[simple(Code.CHOWN, str(tmp_path), 1 << 32, 0)])
    assert (failure.code, failure.errno) == (Code.CHOWN, errno.EINVAL)


def test_finish_is_carried_out_after_a_failure(box: Box, tmp_path: Path) -> None:
    made = tmp_path / "made"
    lists = {"prepare": [simple(Code.MKDIR, str(made), 0o700)], "finish": [simple(Code.RMDIR, str(made))]}
    failure_of(box, argv=("none",), **lists)
    assert not made.exists()


def test_finish_goes_on_after_an_error_of_its_own(box: Box, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    finish = [simple(Code.WRITE, str(tmp_path / "none"), "x"), simple(Code.RMDIR, str(made))]
    box.run("true", finish=finish)
    assert not made.exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"clone": NEWUSER | 0x100}, "CLONE"),
        ({"count": 0}, "id range"),
        ({"netns": "old"}, "netns"),
        ({"base": 0xFFFFFFF0}, "id range"),
        ({"flags": 64}, "flags"),
        ({"prepare": [simple(Code.PIVOT)]}, "place"),
        ({"finish": [simple(Code.EXEC, "true")]}, "place"),
        ({"stage": [simple(Code.MKDIR, "/x")]}, "too few"),
        ({"stage": [simple(Code.ROOT, "a", "b")]}, "too many"),
        ({"stage": [simple(Code.ROOT, "")]}, "path"),
        ({"stage": [simple(Code.ROOT, "a\0b")]}, "NUL"),
        ({"stage": [simple(Code.MKDIR, "/x", "abc")]}, "8 bytes"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(box: Box, change: dict[str, Any], text: str) -> None:
    connection = box.launch()
    request = box.request("true")
    for name, value in change.items():
        setattr(request, name, value)
    with pytest.raises(Failure, match=text) as caught:
        connection.start(request)
    assert (caught.value.phase, caught.value.errno) == (5, errno.EINVAL)
    stream = connection.attach()
    connection.start(box.request("echo", "fine"))
    assert connection.collect(stream).out == b"fine\n"


def test_more_arguments_than_one_operation_holds(box: Box) -> None:
    words = [str(number) for number in range(600)]
    before = [simple(Code.ARGS, "echo", *words[:200]), simple(Code.ARGS, *words[200:450])]
    code, out, _ = box.run(*words[450:], before_exec=before)
    assert (code, out.decode().split()) == (0, words)


def test_start_comes_once(box: Box) -> None:
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    with pytest.raises(Failure) as caught:
        connection.start(box.request("true"))
    assert caught.value.errno == errno.EBUSY
    connection.quit()


def test_a_network_namespace_by_its_descriptor(new_box: Callable[[], Box], tmp_path: Path) -> None:
    box = new_box()
    with Path("/proc/self/ns/net").open() as own:
        inside = Path(f"/proc/self/fd/{own.fileno()}").readlink()
        box.agent.pass_fds = (own.fileno(),)
        script = "readlink /proc/self/ns/net; for fd in /proc/1/fd/*; do readlink $fd; done; true"
        code, out, err = box.sh(script, network=False, netns=f"/proc/self/fd/{own.fileno()}")
    assert (code, err) == (0, b"")
    found, null, *pipes = out.decode().split()
    assert (found, null, [pipe[:5] for pipe in pipes]) == (str(inside), "/dev/null", ["pipe:", "pipe:"])


def test_the_supervisor_keeps_no_inherited_descriptor(box: Box) -> None:
    read_end, write_end = os.pipe()
    box.agent.pass_fds = (write_end,)
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    os.close(write_end)
    assert os.read(read_end, 1) == b""
    os.close(read_end)
