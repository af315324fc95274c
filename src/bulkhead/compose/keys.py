"""Every key of the Compose specification: how it is honoured, or why it is refused. Nothing is passed over.

The names are those of the specification's JSON schema (compose-spec, Apache-2.0), as of its `gpus`, `label_file`,
`post_start` and `develop`; a test compares. docs/reference/compose.md is written from this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `text`: how it is honoured, or why not."""

    honoured: bool
    text: str
    hint: str = ""


def _yes(text: str) -> Key:
    return Key(True, text)


def _no(text: str, hint: str = "") -> Key:
    return Key(False, text, hint)


_OTHER_ENGINE = "it is about another engine's insides"
_SHARES = "a plan is a hard limit: nothing is shared out by weight"
_SEPARATE = "every instance has namespaces of its own, behind every wall"
_NO_LABELS = "only instances have labels"
_RESERVED = "a plan is what is set aside, and the limit: give limits"
_SWARM = "it tells a swarm how to roll out; `up` replaces what has changed, one service after the other"

TOP = {
    "version": _yes("obsolete in the specification itself: it says nothing"),
    "name": _yes("the project's name, where neither -p nor $COMPOSE_PROJECT_NAME gives one"),
    "services": _yes("each becomes instances named PROJECT-SERVICE-NUMBER"),
    "networks": _yes("each becomes a network named PROJECT_NAME"),
    "volumes": _yes("each becomes a volume named PROJECT_NAME"),
    "configs": _yes("files that services get"),
    "secrets": _yes("files that services get"),
    "include": _no("other projects are not taken in", "merge files with several -f, or use extends"),
}
SERVICE = {
    "annotations": _no("instances have labels, no annotations", "use labels"),
    "attach": _yes("false: `up` in the foreground does not show its log"),
    "blkio_config": _no(_SHARES, "x-bulkhead has disk_bps and iops"),
    "build": _yes("the image is built where it is not there, and with --build"),
    "cap_add": _no("each level has its own set of capabilities, and no more", "behind a vm a program has all of them"),
    "cap_drop": _no("each level has its own set of capabilities, the fewest that usual images need"),
    "cgroup": _yes("`private` only: it always is"),
    "cgroup_parent": _no("Bulkhead's cgroups are its own to lay out"),
    "command": _yes("in the place of the image's; a text is split as a shell does it"),
    "configs": _yes("a file, read-only; `source`, `target`"),
    "container_name": _yes("the instance's name; not with more than one replica"),
    "cpu_count": _no("it is of Windows containers", "use cpus"),
    "cpu_percent": _no("it is of Windows containers", "use cpus"),
    "cpu_period": _yes("with cpu_quota: cpus = quota / period"),
    "cpu_quota": _yes("with cpu_period (100000): cpus = quota / period"),
    "cpu_rt_period": _no("real-time scheduling is the host's own"),
    "cpu_rt_runtime": _no("real-time scheduling is the host's own"),
    "cpu_shares": _no(_SHARES, "use cpus"),
    "cpus": _yes("the plan's cpus"),
    "cpuset": _no("Bulkhead chooses the cores", "use cpus"),
    "credential_spec": _no("it is of Windows containers"),
    "depends_on": _yes("order and conditions: service_started, service_healthy, service_completed_successfully"),
    "deploy": _yes("see below"),
    "develop": _no("nothing watches the files of a project", "build again with up --build"),
    "device_cgroup_rules": _no("no device of the host is handed in"),
    "devices": _no("no device of the host is handed in"),
    "dns": _no("names are answered by the network's own server, which asks the host's"),
    "dns_opt": _no("names are answered by the network's own server, which asks the host's"),
    "dns_search": _no("names are answered by the network's own server, which asks the host's"),
    "domainname": _no("the domain of every network is `bulkhead`"),
    "entrypoint": _yes("in the place of the image's; a text is split as a shell does it"),
    "env_file": _yes("files of K=V lines; `path`, `required`, `format: raw`"),
    "environment": _yes("variables; a name alone takes the value of `up`'s environment"),
    "expose": _yes("judged; whoever is on the network reaches every port of an instance"),
    "extends": _yes("another service as the base, of this file or another one"),
    "external_links": _no("instances find one another by name on one network", "put both on one external network"),
    "extra_hosts": _no("names are answered by the network's own server"),
    "gpus": _no("no device of the host is handed in"),
    "group_add": _no("a program has the groups that its image's /etc/group gives its user"),
    "healthcheck": _yes("see below"),
    "hostname": _yes("the name inside"),
    "image": _yes("pulled where it is not there"),
    "init": _yes("`false` only: a small init is the image's to bring, such as tini"),
    "ipc": _yes("`private` only: it always is"),
    "isolation": _no("it names Windows' kinds of containers", "use x-bulkhead: {isolation: ...}"),
    "label_file": _yes("files of K=V lines"),
    "labels": _yes("labels of the instance"),
    "links": _yes("SERVICE alone: it is started before; names are found without it"),
    "logging": _no("an instance's log is kept by Bulkhead, bounded and rotated", "see bulkhead logs"),
    "mac_address": _no("addresses are given by Bulkhead, and guarded"),
    "mem_limit": _yes("the plan's memory"),
    "mem_reservation": _no(_RESERVED, "use mem_limit"),
    "mem_swappiness": _no("how the kernel swaps is the host's own"),
    "memswap_limit": _yes("the plan's swap: this less mem_limit"),
    "network_mode": _yes("`none`, `host`, `bridge` (the network `default`)"),
    "networks": _yes("one; `aliases` are more names on it"),
    "oom_kill_disable": _yes("`false` only: who exceeds its plan's memory is ended"),
    "oom_score_adj": _no("each instance's memory is its own: nobody else's is freed by ending it"),
    "pid": _no(_SEPARATE),
    "pids_limit": _yes("the plan's pids"),
    "platform": _yes("which image is pulled"),
    "ports": _yes("published ports; ranges of the same length; the host's port must be given"),
    "post_start": _no("nothing is run beside a service", "a service of its own, with depends_on"),
    "pre_stop": _no("nothing is run beside a service", "let the program handle its stop_signal"),
    "privileged": _yes("`false` only: nobody is"),
    "profiles": _yes("it is started where one of them is asked for (--profile, $COMPOSE_PROFILES), or by its name"),
    "pull_policy": _yes("always, missing (if_not_present), never, build"),
    "read_only": _yes("`false` only: an instance's disk is its own, of the size that its plan says"),
    "restart": _yes("no, always, on-failure[:n], unless-stopped (what `always` is here: a stop holds)"),
    "runtime": _no("the wall is chosen by x-bulkhead", "use x-bulkhead: {isolation: vm}"),
    "scale": _yes("how many instances; as deploy.replicas"),
    "secrets": _yes("a file in its memory, read-only; `source`, `target`, `uid`, `gid`, `mode`"),
    "security_opt": _yes("`no-new-privileges` only: it always holds"),
    "shm_size": _no("shared memory counts against the plan's, and has no limit of its own"),
    "stdin_open": _yes("stdin stays open"),
    "stop_grace_period": _yes("how long stop waits before KILL"),
    "stop_signal": _yes("what stop sends first"),
    "storage_opt": _yes("`size` only: the plan's disk"),
    "sysctls": _no("the kernel's settings are the host's", "a vm has a kernel of its own to set"),
    "tmpfs": _no("memory in a directory's place counts as memory, and has no limit of its own"),
    "tty": _yes("a terminal"),
    "ulimits": _no("a plan's limits hold; those of a process are the image's own to set lower"),
    "user": _yes("user[:group]"),
    "userns_mode": _no("every instance has a range of uids of its own"),
    "uts": _no(_SEPARATE),
    "volumes": _yes("volumes and paths of the host; see below"),
    "volumes_from": _no("each says what it mounts itself", "name the same volume in both"),
    "working_dir": _yes("the working directory"),
    "x-bulkhead": _yes("what a compose file has no words for; see below"),
}
BULKHEAD = {
    "isolation": _yes("the wall: auto, chroot, container, vm, unikernel"),
    "trust": _yes("auto: own, partner, public"),
    "needs_kernel": _yes("auto: it changes the kernel, or needs one of its own"),
    "hostile_input": _yes("auto: it reads what strangers send"),
    "kernel": _yes("a vm's kernel image"),
    "inside": _yes("the vm that it runs in"),
    "plan": _yes("a named plan; what else is given overrides its fields"),
    "memory": _yes("the plan's memory"),
    "swap": _yes("the plan's swap"),
    "cpus": _yes("the plan's cpus"),
    "ghz": _yes("the plan's GHz"),
    "disk": _yes("the plan's disk"),
    "iops": _yes("the plan's disk operations per second"),
    "disk_bps": _yes("the plan's disk bytes per second"),
    "bandwidth": _yes("the plan's network bits per second"),
    "pids": _yes("the plan's processes and threads"),
    "init": _yes("none, or system: the image's own init"),
    "on_unhealthy": _yes("none, or restart: what follows a failed healthcheck"),
}
DEPLOY = {
    "mode": _yes("`replicated` only: there is one host"),
    "endpoint_mode": _yes("`dnsrr` only: a service's name is answered with the addresses of all its instances"),
    "replicas": _yes("how many instances"),
    "labels": _no("a service itself has no record to label", "use the service's labels"),
    "rollback_config": _no(_SWARM),
    "update_config": _no(_SWARM),
    "resources": _yes("limits; see below"),
    "restart_policy": _yes("`condition` and `max_attempts`"),
    "placement": _no("there is one host"),
}
RESOURCES = {"limits": _yes("the plan's fields"), "reservations": _no(_RESERVED, "use limits")}
LIMITS = {
    "cpus": _yes("the plan's cpus"),
    "memory": _yes("the plan's memory"),
    "pids": _yes("the plan's pids"),
}
RESTART_POLICY = {
    "condition": _yes("none, on-failure, any"),
    "max_attempts": _yes("how often, with on-failure"),
    "delay": _no("Bulkhead waits longer from one restart to the next by itself"),
    "window": _no("Bulkhead waits longer from one restart to the next by itself"),
}
HEALTHCHECK = {
    "test": _yes("a text for /bin/sh, [CMD, ...], [CMD-SHELL, ...] or [NONE]"),
    "disable": _yes("no check, also not that of what is extended"),
    "interval": _yes("time between checks (30s)"),
    "timeout": _yes("time that a check may take (30s)"),
    "retries": _yes("failures in a row that make it unhealthy (3)"),
    "start_period": _yes("time after the start in which failures do not count (0s)"),
    "start_interval": _no("checks come at one interval", "use a shorter interval"),
}
DEPENDS_ON = {
    "condition": _yes("service_started, service_healthy, service_completed_successfully"),
    "restart": _yes("true: it is made anew when what it depends on has been"),
    "required": _yes("false: it is started all the same where the other is not there or fails"),
}
SERVICE_NETWORK = {
    "aliases": _yes("more names by which it is found"),
    "ipv4_address": _no("addresses are given by Bulkhead", "use the service's name"),
    "ipv6_address": _no("addresses are given by Bulkhead", "use the service's name"),
    "link_local_ips": _no("addresses are given by Bulkhead"),
    "mac_address": _no("addresses are given by Bulkhead, and guarded"),
    "driver_opts": _no("a network is a bridge of Bulkhead's"),
    "priority": _no("a service is on one network"),
}
PORT = {
    "target": _yes("the port inside"),
    "published": _yes("the host's port, or a range of them"),
    "host_ip": _yes("the host's address; all of them where it is not given"),
    "protocol": _yes("tcp or udp"),
    "mode": _yes("host or ingress, which is the same on one host"),
    "name": _no("a port has no name here"),
    "app_protocol": _no("nothing here looks into what is sent"),
}
MOUNT = {
    "type": _yes("volume or bind"),
    "source": _yes("a volume's name, or a path"),
    "target": _yes("where it is mounted"),
    "read_only": _yes("it cannot be written"),
    "consistency": _no("there is one kind of consistency"),
    "bind": _yes("`create_host_path: false` and `propagation: rprivate` only: that is how it is"),
    "volume": _yes("`nocopy: true` only: nothing of an image is copied into a volume"),
    "tmpfs": _no("memory in a directory's place counts as memory, and has no limit of its own"),
    "image": _no("an image cannot be mounted into another one", "COPY --from=IMAGE in a Containerfile"),
}
FILE_USE = {
    "source": _yes("which one"),
    "target": _yes("where: a path, of a secret a name below /run/secrets"),
    "uid": _yes("of a secret: whose it is (0), a number"),
    "gid": _yes("of a secret: the same of its group"),
    "mode": _yes("of a secret: octal (0444)"),
}
BUILD = {
    "context": _yes("a directory"),
    "dockerfile": _yes("the Containerfile, from the context on"),
    "dockerfile_inline": _yes("its text"),
    "args": _yes("values for ARG"),
    "labels": _yes("labels of the image"),
    "network": _yes("of RUN steps"),
    "no_cache": _yes("every step is carried out"),
    "pull": _yes("registries are asked for base images"),
    "secrets": _yes("for RUN --mount=type=secret"),
    "tags": _yes("more names"),
    "target": _yes("the stage that becomes the image"),
    "additional_contexts": _no("a build has one context"),
    "cache_from": _no("the cache is this host's"),
    "cache_to": _no("the cache is this host's"),
    "entitlements": _no("no step of a build is privileged"),
    "extra_hosts": _no("names are answered by the network's own server"),
    "isolation": _no("it names Windows' kinds of containers"),
    "platforms": _no("images are built for this host's processor"),
    "privileged": _yes("`false` only"),
    "shm_size": _no("shared memory counts against the plan's"),
    "ssh": _no("no agent of the host is handed in", "use secrets"),
    "ulimits": _no("the default plan's limits hold"),
}
NETWORK = {
    "name": _yes("its name, as it is"),
    "external": _yes("it is there, and stays"),
    "driver": _yes("`bridge` only"),
    "ipam": _yes("`config` with `subnet`, one for IPv4 and one for IPv6"),
    "driver_opts": _no("a network is a bridge of Bulkhead's"),
    "internal": _yes("`false` only"),
    "attachable": _yes("true only: any instance can be on it"),
    "enable_ipv4": _yes("true only: every network has it"),
    "enable_ipv6": _yes("true only: every network has it"),
    "labels": _no(_NO_LABELS),
}
IPAM = {
    "config": _yes("`subnet` each"),
    "driver": _yes("`default` only"),
    "options": _no(_OTHER_ENGINE),
}
IPAM_CONFIG = {
    "subnet": _yes("such as 10.9.0.0/24"),
    "ip_range": _no("addresses are given by Bulkhead"),
    "gateway": _no("it is the subnet's first address"),
    "aux_addresses": _no("addresses are given by Bulkhead"),
}
VOLUME = {
    "name": _yes("its name, as it is"),
    "external": _yes("it is there, and stays"),
    "driver": _yes("`local` only"),
    "driver_opts": _yes("`size` only: how large it is (5G)"),
    "labels": _no(_NO_LABELS),
}
SECRET = {
    "file": _yes("what is in it"),
    "environment": _yes("a variable of `up`'s environment"),
    "name": _yes("its name in the daemon, as it is"),
    "external": _yes("it is there (bulkhead secret create), and stays"),
    "labels": _no(_NO_LABELS),
    "driver": _no("secrets are kept by the daemon"),
    "driver_opts": _no("secrets are kept by the daemon"),
    "template_driver": _no("files are given as they are"),
}
CONFIG = {
    "file": _yes("what is in it"),
    "environment": _yes("a variable of `up`'s environment"),
    "content": _yes("its text"),
    "name": _no("configs are in the file, not in the daemon"),
    "external": _no("configs are in the file, not in the daemon", "use file, environment or content"),
    "labels": _no(_NO_LABELS),
    "template_driver": _no("files are given as they are"),
}
EXTENDS = {"service": _yes("its name"), "file": _yes("where it is; this file, where it is not given")}
ENV_FILE = {
    "path": _yes("the file"),
    "required": _yes("false: it may be missing"),
    "format": _yes("`raw`: nothing is put in for variables, quotes stay"),
}

SECTIONS: dict[str, tuple[str, dict[str, Key]]] = {
    "top": ("", TOP),
    "service": ("services.SERVICE", SERVICE),
    "bulkhead": ("services.SERVICE.x-bulkhead", BULKHEAD),
    "deploy": ("services.SERVICE.deploy", DEPLOY),
    "resources": ("services.SERVICE.deploy.resources", RESOURCES),
    "limits": ("services.SERVICE.deploy.resources.limits", LIMITS),
    "restart_policy": ("services.SERVICE.deploy.restart_policy", RESTART_POLICY),
    "healthcheck": ("services.SERVICE.healthcheck", HEALTHCHECK),
    "depends_on": ("services.SERVICE.depends_on.OTHER", DEPENDS_ON),
    "service_network": ("services.SERVICE.networks.NETWORK", SERVICE_NETWORK),
    "port": ("services.SERVICE.ports[]", PORT),
    "mount": ("services.SERVICE.volumes[]", MOUNT),
    "file_use": ("services.SERVICE.configs[] and secrets[]", FILE_USE),
    "extends": ("services.SERVICE.extends", EXTENDS),
    "env_file": ("services.SERVICE.env_file[]", ENV_FILE),
    "build": ("services.SERVICE.build", BUILD),
    "network": ("networks.NETWORK", NETWORK),
    "ipam": ("networks.NETWORK.ipam", IPAM),
    "ipam_config": ("networks.NETWORK.ipam.config[]", IPAM_CONFIG),
    "volume": ("volumes.VOLUME", VOLUME),
    "secret": ("secrets.SECRET", SECRET),
    "config": ("configs.CONFIG", CONFIG),
}
"""Where each section stands in a file, and its keys."""
