"""What a server's /proc says, and what follows: services, data, a command line."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from bulkhead.cli.suggestion import instance_name, request_of
from bulkhead.errors import Refused
from bulkhead.servers import dpkg, findings, fit, services, suggest, survey
from bulkhead.servers.archiving import Complaints
from bulkhead.servers.findings import Wanted
from bulkhead.servers.survey import Port
from tests.unit.servers.lists import entry, tree

SAID = {
    "uid": "0\n",
    "machine": "x86_64\n",
    "name": "web-1\n",
    "cores": "4\n",
    "load": "0.10 0.20 0.70 1/100 4242\n",
    "mounts": "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n",
    "swaps": "Filename Type Size Used Priority\n/swapfile file 1 0 -2\n",
    "owners": "1 0\n100 0\n101 33\n200 105\n300 0\n",
    "programs": "/proc/1 /usr/lib/systemd/systemd\n/proc/100 /usr/sbin/nginx\n/proc/101 /usr/sbin/nginx\n"
    "/proc/200 /usr/lib/postgresql/15/bin/postgres (deleted)\n/proc/300 /usr/sbin/sshd\n",
    "groups": "/proc/1/cgroup:0::/init.scope\n/proc/100/cgroup:0::/system.slice/nginx.service\n"
    "/proc/101/cgroup:0::/system.slice/nginx.service\n/proc/101/cgroup:1:name=systemd:/\n"
    "/proc/200/cgroup:0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n"
    "/proc/300/cgroup:0::/system.slice/ssh.service\n"
    "/proc/400/cgroup:0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n",
    "memory": "/proc/100/smaps_rollup:Pss:                1024 kB\n/proc/101/smaps_rollup:Pss: 1024 kB\n"
    "/proc/200/smaps_rollup:Pss: 102400 kB\n",
    "sockets": "/proc/1/fd/40 socket:[11]\n/proc/100/fd/6 socket:[11]\n/proc/101/fd/6 socket:[11]\n"
    "/proc/200/fd/5 socket:[12]\n/proc/300/fd/3 socket:[13]\n",
    "tcp": "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n"
    "   1: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 12 1\n"
    "   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n"
    "   3: 00000000:ZZZZ 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n"
    "   4: 0100007F:9999 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 14 1\n",
    "mapped": "/usr/lib/x86_64-linux-gnu/libssl.so.3\n[heap]\n",
    "end": "",
}
LISTING = tree(
    *("etc/", "usr/bin/", "sbin/init -> ../lib/systemd/systemd", "usr/lib/systemd/system/nginx.service", "etc/fstab"),
    *("usr/lib/systemd/system/postgresql@.service", "usr/lib/systemd/system/fstrim.timer", "etc/machine-id"),
    *("usr/lib/systemd/system/systemd-udevd.service", "etc/systemd/system/", "etc/resolv.conf -> /run/x", "etc/cloud/"),
    *("var/lib/postgresql/", "var/lib/postgresql/15/", "var/lib/dpkg/", "var/lib/dpkg/status", "srv/shop/"),
    *("etc/systemd/system/multi-user.target.wants/redis-server.service -> /lib/systemd/system/redis-server.service",),
    *("etc/systemd/system/multi-user.target.wants/cloud-init.service -> /lib/systemd/system/cloud-init.service",),
    **{
        "var/lib/postgresql/15/data": entry(size=3 << 30, uid=105),
        "srv/shop/goods": entry(size=5000),
        "home/ann/x": entry(size=1, uid=1000),
        "home/ann": entry("d", uid=1000),
    },
)


def said(**changed: str) -> bytes:
    return b"".join(b"\0%b\0%b" % (name.encode(), text.encode()) for name, text in {**SAID, **changed}.items())


def found() -> survey.Survey:
    return survey.parse(said())


def test_services_with_their_ports_and_memory() -> None:
    running = found().running
    assert running["nginx.service"].ports == {Port(80, "tcp", local=False)}
    assert running["nginx.service"].memory == 2 << 20
    assert running["nginx.service"].uids == {0, 33}
    assert running["postgresql@15-main.service"].ports == {Port(5432, "tcp", local=True)}
    assert running["postgresql@15-main.service"].programs == {b"usr/lib/postgresql/15/bin/postgres"}
    assert running["ssh.service"].ports == {Port(22, "tcp", local=False)}
    assert (found().cores, found().load, found().swaps) == (4, 0.7, (b"swapfile",))
    assert found().mapped == (b"usr/lib/x86_64-linux-gnu/libssl.so.3",)


def test_without_systemd_programs_are_the_services() -> None:
    running = survey.parse(said(groups="/proc/100/cgroup:1:name=systemd:/\n")).running
    assert running["nginx"].ports == {Port(80, "tcp", local=False)}


def test_this_hosts_own_survey() -> None:
    """The script as it is, on the host that runs the tests."""
    spoken = subprocess.run(["sh", "-c", survey.SCRIPT], check=True, capture_output=True).stdout
    here = survey.parse(spoken)
    assert here.machine and here.cores >= 1 and here.running


@pytest.mark.parametrize("spoken", [b"", b"hello", said()[:-6], b"\0" * 5000])
def test_what_is_no_survey(spoken: bytes) -> None:
    with pytest.raises(Refused):
        survey.parse(spoken)


def test_a_survey_of_nonsense_is_one_without_services() -> None:
    nonsense = "\x1b[2J \n:::: /proc/99999999999/x \n /proc/1/cgroup:0::/x.service\n" * 3
    here = survey.parse(said(**dict.fromkeys((name for name in SAID if name != "end"), nonsense)))
    assert (here.uid, here.cores, here.load, here.running) == (-1, 1, 0.0, {})


def test_purpose_data_and_what_is_enabled() -> None:
    here = services.find(found(), LISTING, None)
    assert [(one.name, one.measured) for one in here] == [
        ("nginx", True),
        ("postgresql@15-main", True),
        ("redis-server", False),
        ("ssh", True),
    ]
    assert [(one.path, one.size) for one in services.data(LISTING, here)] == [
        (b"var/lib/postgresql", 3 << 30),
        (b"srv/shop", 5000),
        (b"home/ann", 1),
    ]
    assert services.masked(LISTING) == ["fstrim.timer", "systemd-udevd.service"]


def test_the_command_line_is_the_request() -> None:
    here = services.find(found(), LISTING, None)
    data = services.data(LISTING, here)
    advice = suggest.suggest("web", "server/web", found(), here, data, init=True, volumes=True)
    assert shlex.join(advice.run) == (
        "run -d --name web --init system --memory 256M --cpus 2 --disk 9G --pids 1024 -p 80:80"
        " -v web-postgresql:/var/lib/postgresql -v web-shop:/srv/shop -v web-ann:/home/ann server/web"
    )
    assert advice.prepare[0] == ("volume", "create", "web-postgresql", "--size", "7G")
    request = request_of(advice)
    assert (request["image"], request["init"], request["name"]) == ("server/web", "system", "web")
    assert request["ports"] == [{"host_ip": "", "host_port": 80, "port": 80, "protocol": "tcp"}]


def test_a_server_that_does_not_run_gets_usual_ports() -> None:
    here = services.find(None, tree("etc/systemd/system/a.wants/nginx.service -> /x", "etc/systemd/system/"), None)
    assert [(one.name, [port.number for port in one.ports], one.measured) for one in here] == [("nginx", [80], False)]


def test_what_units_execute() -> None:
    text = "[Service]\nExecStartPre=-/bin/a -x\nExecStart=@+/usr/sbin/b b\n ExecStart=/no\nExecStop=relative\n"
    listing = tree("bin -> usr/bin")
    assert services.programs({b"usr/lib/systemd/system/x.service": text}, listing) == {
        "x": (b"usr/bin/a", b"usr/sbin/b")
    }


def test_what_is_written_anew() -> None:
    made = fit.files(LISTING, masked=["fstrim.timer"], status=None)
    assert made[b"etc/machine-id"] == b"" and made[b"etc/resolv.conf"] == b""
    assert made[b"etc/systemd/system/fstrim.timer"] is None
    assert b"UUID" not in (made[b"etc/fstab"] or b"")
    assert b"etc/cloud/cloud-init.disabled" in made


def test_only_files_are_looked_into() -> None:
    """A link in a root that leads to a file of this host's is not followed."""
    listing = tree("etc/", "usr/bin/", "etc/passwd -> /etc/shadow", "var/lib/dpkg/status -> /etc/shadow")
    assert findings.to_read(listing) == []


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(Refused) as error:
        findings.gather(tree("x"), {}, None, Wanted(minimize=True))
    assert len(error.value.problems) == 2
    status = b"Package: a\nStatus: install ok installed\n"
    with pytest.raises(Refused, match="--keep 'b'"):
        findings.gather(tree("etc/", "usr/bin/"), {dpkg.STATUS: status}, None, Wanted(minimize=True, keep=("a", "b")))


def test_databases_that_run_on_are_told() -> None:
    here = findings.gather(LISTING, {}, found(), Wanted())
    assert findings.unsafe(here, []) == ["postgresql@15-main"]
    stopped = findings.to_stop(here, [], all_with_data=True)
    assert stopped == ["nginx.service", "postgresql@15-main.service"]
    assert findings.unsafe(here, stopped) == findings.unsafe(here, ["postgresql"]) == []
    with pytest.raises(Refused, match="no unit's name"):
        findings.to_stop(here, ["x; reboot", "-a"], all_with_data=False)


@pytest.mark.parametrize(
    ("lines", "code", "fine"),
    [
        ([], 0, True),
        (["tar: ./a: file changed as we read it"], 1, True),
        (["tar: ./a: File shrank by 5 bytes; padding with zeros"], 1, True),
        (["tar: ./a: Cannot stat: No such file or directory",
          "tar: Exiting with failure status due to previous errors"],
         2, True),
        (["tar: ./a: Cannot open: Permission denied"], 2, False),
        (["sh: tar: not found"], 127, False),
        ([], 2, False),
        ([], 255, False),
    ],
)  # fmt: skip
def test_what_tar_complains_of(lines: list[str], code: int, fine: bool) -> None:
    complaints = Complaints()
    for line in lines:
        complaints.hear(line)
    assert complaints.fine(code) is fine


@pytest.mark.parametrize(
    ("text", "name"),
    [("server/web.example:1", "web"), ("web", "web"), ("", "server"), ("--x", "x"), ("a/b c", "b-c"),
     ("x" * 99, "x" * 40)],
)  # fmt: skip
def test_names_of_instances(text: str, name: str) -> None:
    assert instance_name(text) == name
