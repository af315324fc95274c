"""What things cost, and what they cost behind another wall."""

from __future__ import annotations

import pytest

from bulkhead.audit import rules
from bulkhead.audit.assessing import assess
from bulkhead.audit.facts import CALLS
from bulkhead.audit.findings import Targets
from bulkhead.audit.outside import HostPath, Mounted, host_paths, open_files, root_of, shared_kinds
from bulkhead.audit.report import AuditReport
from tests.unit.audit.lab import EPERM, OPEN, calls, container, gathered, line, process, report, rules_of

BARE = {"shared": ("user", "pid", "net", "ipc", "uts", "cgroup"), "root_uid": 0, "uid": 0, "seccomp": 0}


def interface(path: str, *, read: int = 13, write: int = 13, telling: bool = False) -> bytes:
    """A file of the kernel's."""
    return line("interface", path=path, read=read, write=write, telling=telling)


def audit(*facts: bytes, **more: object) -> AuditReport:
    """A container's audit with these facts on top."""
    return assess(gathered(container(*facts), **more))  # type: ignore[arg-type]


def test_a_tight_container_loses_its_kernel_alone() -> None:
    found = audit()
    assert found.score == 100 - rules.SHARED_KERNEL and rules_of(found.findings) == {"kernel"}
    assert found.raises == ("give it a kernel of its own: --isolation vm",)


def test_a_tight_machine_is_nearly_whole_whatever_its_guest_may_do() -> None:
    jail = process(bounding=(), effective=())
    guest = report(
        calls(usual=OPEN),
        line("attempt", name="module_load", result=8),
        line("attempt", name="userns_unshare", result=0),
        line("device", path="/dev/vda", kind="b", major=254, minor=0, result=0),
        interface("/proc/sys/kernel/core_pattern", read=0, write=0, telling=True),
    )
    found = assess(gathered(guest, hypervisor=jail))
    assert found.score == 97 and rules_of(found.findings) == {"hypervisor"}
    assert {"module_load", "userns", "device /dev/vda"} <= {each.rule for each in found.findings}, "told all the same"
    assert {each.side for each in found.findings} == {"hypervisor", "guest"}


def test_a_hole_in_a_hypervisors_jail_counts_a_quarter() -> None:
    loose = process(bounding=("CAP_SYS_ADMIN",), shared=("user", "net"), root_uid=0, seccomp=0)
    found = assess(gathered(None, hypervisor=loose))
    lost = {each.rule: each.weight for each in found.findings}
    assert lost["cap_sys_admin"] == 2 and lost["no-filter"] == 2 and lost["namespace-net"] == 1.5
    assert found.score is not None and found.score < 97 and not found.probed


def test_a_chroot_is_nearly_nothing() -> None:
    loose = process(**BARE, bounding=("CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_READ_SEARCH"), no_new_privs=False)
    facts = [line("attempt", name=name, result=0) for name in ("userns_unshare", "bpf_map", "io_uring", "mount_new")]
    found = assess(gathered(report(calls(usual=OPEN), *facts), of=loose, level="chroot"))
    assert found.score is not None and found.score <= 30
    assert found.raises[0] == "put it in a container: --isolation container"


def test_every_group_has_its_most() -> None:
    facts = [line("device", path=f"/dev/sd{n}", kind="b", major=8, minor=n, result=0) for n in range(20)]
    facts += [interface(path, read=0, write=0, telling=True) for path in (*rules.TRIGGERS, *rules.TELLING)]
    facts += [line("attempt", name=attempt, result=0) for _, names, _ in rules.FEATURES for attempt in names]
    loose = process(**BARE, bounding=tuple(rules.CAPABILITIES), no_new_privs=False)
    found = assess(gathered(report(calls(usual=OPEN), *facts), of=loose))
    assert found.score == 0
    assert all(each.points <= each.most for each in found.deductions)


def test_capabilities_of_ones_own_users_cost_little() -> None:
    own = {each.rule: each.weight for each in audit(of=process(bounding=("CAP_SYS_ADMIN", "CAP_MKNOD"))).findings}
    shared = process(bounding=("CAP_SYS_ADMIN", "CAP_MKNOD"), shared=("user",), root_uid=0)
    hosts = {each.rule: each.weight for each in audit(of=shared).findings}
    assert own["cap_sys_admin"] == 3 and "cap_mknod" not in own
    assert hosts["cap_sys_admin"] == 8 and hosts["cap_mknod"] == 3 and hosts["namespace-user"] == 10


@pytest.mark.parametrize(("result", "counts"), [(0, True), (22, True), (EPERM, False), (38, False), (1031, False)])
def test_what_is_wrong_on_purpose_counts_where_the_kernel_says_so(result: int, counts: bool) -> None:
    found = audit(line("attempt", name="clock_set", result=result))
    assert ("clock_set" in rules_of(found.findings)) is counts


def test_writable_files_of_the_kernels() -> None:
    own = audit(line("writable", path="/proc/sys/net/ipv4/ip_forward"))
    assert "sysctl" not in rules_of(own.findings), "of its own network namespace"
    hosts = audit(line("writable", path="/proc/sys/net/ipv4/ip_forward"), of=process(shared=("net",)))
    assert "sysctl" in rules_of(hosts.findings)
    agent = audit(line("writable", path="/sys/fs/cgroup/memory/release_agent"))
    assert "release-agent" in rules_of(agent.findings)


def test_addresses_count_by_whose_they_are() -> None:
    targets = Targets(same=frozenset({"10.0.0.2"}), tenants=frozenset({"10.0.0.3", "10.0.0.4"}))
    facts = [
        line("reach", address="10.0.0.2", port=80, answer="refused"),
        line("reach", address="10.0.0.3", port=0, answer="silent"),
        line("neighbour", address="10.0.0.3"),
        line("reach", address="10.0.0.4", port=80, answer="unreachable"),
        line("reach", address="10.9.9.9", port=80, answer="open"),
    ]
    found = {each.rule: each.detail for each in audit(*facts, targets=targets).findings if each.group == "network"}
    assert found == {"reaches-network": "10.0.0.2", "reaches-tenants": "10.0.0.3"}


def test_an_incomplete_report_has_no_score() -> None:
    found = assess(gathered(container(b"{}")))
    assert found.score is None and not found.complete and "incomplete" in found.notes[0]


def test_the_hosts_word_counts_more_than_the_probes() -> None:
    """A workload that says there is no filter cannot make its refusals look like the kernel's."""
    lying = report(calls(results={425: 38}), line("attempt", name="io_uring", result=38))
    told = assess(gathered(lying, reference={"x86_64": dict.fromkeys(range(CALLS), OPEN)}))
    (surface,) = told.calls
    assert "io_uring_setup" in surface.filtered


def test_families_beyond_the_usual() -> None:
    results = [code for family in range(46) for code in (0 if family in (0, 1, 2, 10, 16) else 97, 3000)]
    assert "families" not in rules_of(audit(line("families", abi="x86_64", results=results)).findings)
    results[40 * 2] = 0
    found = audit(line("families", abi="socketcall", results=results)).findings
    assert [each.detail for each in found if each.rule == "families"] == ["vsock (by socketcall)"]


# --- what the host says


def test_namespaces_that_are_shared() -> None:
    host = {"pid": frozenset({1}), "net": frozenset({2, 3}), "time": frozenset({4})}
    assert shared_kinds({"pid": 1, "net": 9, "time": 4, "mnt": 5}, host) == ("pid",)


def test_root_of_a_map() -> None:
    assert root_of([(0, 100000, 65536)]) == 100000
    assert root_of([(1, 100000, 65536)]) is None and root_of([]) is None


def test_paths_of_the_hosts() -> None:
    host = [Mounted("/", "ext4", "8:1", "/", False), Mounted("/state/volumes/v", "ext4", "7:1", "/", False)]
    inside = [
        Mounted("/", "overlay", "0:50", "/", False),
        Mounted("/proc", "proc", "0:51", "/", False),
        Mounted("/data", "ext4", "7:1", "/data", False),
        Mounted("/srv", "ext4", "8:1", "/home/me", False),
        Mounted("/etc/ssl", "ext4", "8:1", "/etc/ssl", True),
        Mounted("/own", "ext4", "9:9", "/", False),
    ]
    assert host_paths(inside, host, ["/state"]) == (
        HostPath(target="/srv", source="/home/me", read_only=False),
        HostPath(target="/etc/ssl", source="/etc/ssl", read_only=True),
    )
    found = assess(gathered(container(), of=process(host_paths=host_paths(inside, host, ["/state"]))))
    assert {"host-path /srv": 4.0, "host-path /etc/ssl": 0.5}.items() <= {
        each.rule: each.weight for each in found.findings
    }.items()


def test_open_files_without_what_everybody_has() -> None:
    told = {0: "/dev/null", 1: "pipe:[3]", 2: "socket:[4]", 3: "/run/vm/disk", 4: "/run/vm/disk", 5: ""}
    assert open_files(told) == ("/run/vm/disk",)
