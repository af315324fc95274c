"""What services ask for, key by key."""

from __future__ import annotations

import pytest

from bulkhead.compose.project import chosen
from bulkhead.compose.steps import secrets_of
from bulkhead.errors import Refused
from tests.unit.compose.projects import problems, project, service, wrong


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("mem_limit: 512m\ncpus: '0.5'\npids_limit: 20", {"memory": 512 << 20, "cpus": 0.5, "pids": 20}),
        ("deploy: {resources: {limits: {cpus: '2', memory: 1gb, pids: 9}}}", {"memory": 1 << 30, "cpus": 2, "pids": 9}),
        ("cpu_quota: 50000", {"cpus": 0.5}),
        ("cpu_quota: 50000\ncpu_period: 25000", {"cpus": 2}),
        ("mem_limit: 100m\nmemswap_limit: 150M", {"memory": 100 << 20, "swap": 50 << 20}),
        ("storage_opt: {size: 2G}", {"disk": 2 << 30}),
        (
            "x-bulkhead: {plan: small, ghz: 2, disk: 1G, bandwidth: 100M, iops: 100, disk_bps: 10MB, memory: 1GiB}",
            {
                "name": "small",
                "ghz": 2,
                "disk": 1 << 30,
                "bandwidth": 100_000_000,
                "iops": 100,
                "disk_bps": 10_000_000,
                "memory": 1 << 30,
            },
        ),
        ("mem_limit: 512m\ndeploy: {resources: {limits: {memory: 512M}}}", {"memory": 512 << 20}),
    ],
)
def test_limits_old_and_new_are_one_plan(text: str, plan: dict[str, object]) -> None:
    assert service(text)["plan"] == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "mem_limit: 512m\ndeploy: {resources: {limits: {memory: 1G}}}",
            "is not the 1073741824 of services.web.deploy",
        ),
        ("cpus: 1\nx-bulkhead: {cpus: 2}", "say it once|both are the plan's cpus"),
        ("cpu_period: 5", "says nothing without cpu_quota"),
        ("memswap_limit: 1g", "there is no mem_limit"),
        ("mem_limit: 2g\nmemswap_limit: 1g", "is less than the memory"),
        ("memswap_limit: -1", "not a size"),
        ("deploy: {resources: {reservations: {memory: 1G}}}", "reservations: is not honoured: a plan is what is set"),
        ("mem_reservation: 1g", "is not honoured"),
        ("cpu_shares: 5", "nothing is shared out by weight"),
        ("ulimits: {nofile: 5}", "is not honoured"),
        ("storage_opt: {inodes: 5}", "has a size alone"),
        ("cpus: 0", "above 0"),
        ("pids_limit: -1", "at least 1"),
        ("cpus: .inf", "not a number"),
        ("ports: ['80']", "at any port of the host"),
        ("ports: ['80:80/sctp']", "not tcp or udp"),
        ("ports: ['80-82:80-81']", "not as many"),
        ("ports: ['1-65535:1-65535']", "more than 1024"),
        ("ports: [{target: 80}]", "at any port"),
        ("ports: [{published: 80}]", "target is missing"),
        ("ports: [{target: 80, published: 80, name: web}]", "a port has no name"),
        ("volumes: [/data]", "a volume without a name"),
        ("volumes: ['gone:/data']", "add|the volume gone is not there"),
        ("volumes: ['./a:b']", "not an absolute path"),
        ("volumes: ['./a:/b:cached']", "'cached'"),
        ("volumes: ['./a:/b', './c:/b']", "mounted twice"),
        ("volumes: [{type: tmpfs, target: /x}]", "'tmpfs' is not one of"),
        ("volumes: [{type: bind, source: ./a, target: /b, bind: {create_host_path: true}}]", "no path of the host"),
        ("networks: [a]", "the network a is not there"),
        ("networks: [default, default2]", "on one network, not on 2"),
        ("networks: {default: {ipv4_address: 10.0.0.1}}", "addresses are given"),
        ("network_mode: service:db", "known are none, host, bridge"),
        ("network_mode: host\nnetworks: [default]", "beside networks"),
        ("restart: on-failure:x", "takes a number"),
        ("restart: always\ndeploy: {restart_policy: {condition: none}}", "say it once|is not what"),
        ("deploy: {restart_policy: {max_attempts: 3}}", "no bound"),
        ("deploy: {mode: global}", "there is one host"),
        ("deploy: {replicas: 2}\nscale: 3", "is not the 2"),
        ("deploy: {replicas: 2}\nports: ['80:80']", "one instance's"),
        ("deploy: {replicas: 2}\ncontainer_name: x", "one instance's"),
        ("scale: 100000", "more than 1000"),
        ("healthcheck: {interval: 1s}", "there is no test"),
        ("healthcheck: {test: [RUN, x]}", "is not [CMD"),
        ("healthcheck: {test: x, start_interval: 1s}", "is not honoured"),
        ("links: ['db:other']", "alias"),
        ("configs: [gone]", "there is no config 'gone'"),
        ("secrets: [{source: gone}]", "there is no secret 'gone'"),
        ("labels: {bulkhead.compose.project: x}", "set by up"),
        ("expose: [http]", "is not a port"),
        ("tty: maybe", "neither true nor false"),
        ('command: "it\'s"', "cannot be split"),
        ("cap_add: [ALL]", "is not honoured"),
        ("security_opt: ['seccomp:unconfined']", "is not honoured"),
        ("pull_policy: daily", "is not one of"),
        ("pull_policy: build", "there is no build"),
        ("build: {context: ., platforms: [linux/arm64]}", "is not honoured"),
        ("build: https://example.org/x.git", "not a directory"),
        ("depends_on: {db: {condition: service_ready}}", "is not one of"),
        ("environment: {A: [1]}", "a text is wanted"),
        ("environment: 3", "a list is wanted"),
        ("deploy: 3", "a mapping is wanted"),
    ],
)
def test_what_cannot_be_is_refused(text: str, said: str) -> None:
    found = " / ".join(wrong(text))
    assert any(each in found for each in said.split("|")), found


def test_empty_asks_for_nothing() -> None:
    nothing = "cap_add: []\nprivileged: false\nread_only: 'no'\ndns:\nsysctls: {}\ninit: false\nipc: private\ntmpfs: []"
    assert service(nothing) == {"aliases": ["web"]}


def test_the_rest_of_a_service() -> None:
    text = """
command: nginx -g 'daemon off;'
entrypoint: []
working_dir: /srv
user: www:www
hostname: box
tty: true
stdin_open: true
stop_signal: SIGINT
stop_grace_period: 1m30s
restart: unless-stopped
expose: [80, "90-95/udp"]
labels: [a, b=c]
ports: ["127.0.0.1:8080:80", "[::1]:53:53/udp", {target: 9, published: "9", host_ip: 10.0.0.1, protocol: udp},
  "20-21:30-31"]
healthcheck: {test: curl -f localhost, interval: 5s, timeout: 1s, retries: 2, start_period: 3s}
security_opt: [no-new-privileges:true]
networks: {default: {aliases: [www, web]}}
x-bulkhead: {isolation: vm, trust: own, hostile_input: true, kernel: k, on_unhealthy: restart, init: system}
"""
    assert service(text) == {
        "command": ["nginx", "-g", "daemon off;"],
        "entrypoint": (),
        "workdir": "/srv",
        "user": "www:www",
        "hostname": "box",
        "tty": True,
        "stdin": True,
        "stop_signal": "SIGINT",
        "stop_timeout": 90.0,
        "restart": {"kind": "always", "retries": 0},
        "labels": {"a": "", "b": "c"},
        "aliases": ["web", "www"],
        "ports": [
            {"host_ip": "127.0.0.1", "host_port": 8080, "port": 80, "protocol": "tcp"},
            {"host_ip": "::1", "host_port": 53, "port": 53, "protocol": "udp"},
            {"host_ip": "10.0.0.1", "host_port": 9, "port": 9, "protocol": "udp"},
            {"host_ip": "", "host_port": 20, "port": 30, "protocol": "tcp"},
            {"host_ip": "", "host_port": 21, "port": 31, "protocol": "tcp"},
        ],
        "health": {
            "command": ["/bin/sh", "-c", "curl -f localhost"],
            "interval": 5.0,
            "timeout": 1.0,
            "start_period": 3.0,
            "retries": 2,
            "on_unhealthy": "restart",
        },
        "isolation": "vm",
        "trust": "own",
        "hostile_input": True,
        "kernel": "k",
        "init": "system",
    }


def test_health_checks() -> None:
    assert service("healthcheck: {test: [CMD, a, b]}")["health"] == {"command": ["a", "b"]}
    assert service("healthcheck: {test: [CMD-SHELL, a b]}")["health"] == {"command": ["/bin/sh", "-c", "a b"]}
    assert "health" not in service("healthcheck: {test: [NONE]}")
    assert "health" not in service("healthcheck: {test: a, disable: true}")


def test_networks_and_volumes() -> None:
    text = """
services:
  a: {image: x, networks: [in], volumes: ["d:/d:ro", {type: volume, source: e, target: /e, volume: {nocopy: true}}]}
  b: {image: x, network_mode: none}
  c: {image: x, networks: [out]}
networks:
  in: {ipam: {config: [{subnet: 10.9.0.0/24}, {subnet: "fd09::/64"}]}}
  out: {external: true, name: public}
volumes:
  d: {driver_opts: {size: 1G}}
  e: {external: true}
"""
    made = project(text)
    assert made.networks["in"].name == "shop_in"
    assert (made.networks["in"].subnet4, made.networks["in"].subnet6) == ("10.9.0.0/24", "fd09::/64")
    assert (made.networks["out"].name, made.networks["out"].external) == ("public", True)
    assert (made.volumes["d"].name, made.volumes["d"].size, made.volumes["e"].name) == ("shop_d", 1 << 30, "e")
    assert [mount.read_only for mount in made.services["a"].mounts] == [True, False]
    assert made.services["b"].request == {"network": "none"}
    assert "bridge" in problems(text.replace("external: true, name: public", "driver: overlay"))[0]
    assert "internal" in problems(text.replace("external: true, name: public", "internal: true"))[0]
    assert (
        "is said of what is external"
        in problems(text.replace("e: {external: true}", "e: {external: true, driver: local}"))[0]
    )


def test_configs_and_secrets() -> None:
    text = """
services: {a: {image: x, configs: [c, {source: d, target: /etc/d}], secrets: [s, {source: t, target: key}]}}
configs: {c: {file: ./c.conf}, d: {content: "it is $A"}}
secrets: {s: {environment: TOKEN}, t: {file: ~/key}}
"""
    made = project(text, A="1", TOKEN="2", HOME="/root")
    uses = [(use.source, use.target) for use in made.services["a"].files]
    assert uses == [("c", "/c"), ("d", "/etc/d"), ("s", "/run/secrets/s"), ("t", "/run/secrets/key")]
    assert made.configs["c"].value == "/work/shop/c.conf"
    assert made.configs["d"].value == "it is 1"
    assert made.secrets["t"].value == "/root/key"
    assert "TOKEN is not set" in problems(text)[0]
    assert made.secrets["s"].text == "2" and "text" not in repr(made.secrets["s"])
    names = [made.secrets[key].name for key in ("s", "t")]
    assert names == ["shop_s", "shop_t"]
    text = """
services: {a: {image: x, secrets: [{source: s, uid: 5, gid: "6", mode: 0440}]}}
secrets: {s: {external: true}, t: {file: key, name: other}}
"""
    made = project(text)
    assert (made.secrets["s"].kind, made.secrets["s"].name, made.secrets["t"].name) == ("external", "s", "other")
    assert secrets_of(made, made.services["a"]) == [
        {"source": "s", "target": "/run/secrets/s", "uid": 5, "gid": 6, "mode": 0o440}
    ]
    found = problems("services: {a: {image: x, configs: [{source: c, mode: 0400}]}}\nconfigs: {c: {content: x}}")
    assert any("mode: is not honoured" in each for each in found)
    found = problems(text.replace("0440", "0999"))
    assert any("no mode such as 0400" in each for each in found)


def test_builds() -> None:
    text = """
services:
  a: {build: ./a}
  b:
    build:
      context: b
      dockerfile: Dockerfile.dev
      args: [A=1, TAKEN]
      target: dev
      tags: ["b:2"]
      secrets: [s, {source: s, target: other}]
    image: b:1
secrets: {s: {file: key}}
"""
    made = project(text)
    a, b = made.services["a"].build, made.services["b"].build
    assert a
    assert b
    assert (a.context, made.services["a"].image) == ("/work/shop/a", "")
    assert (b.context, b.file, b.arguments, b.target) == (
        "/work/shop/b",
        "Dockerfile.dev",
        {"A": "1", "TAKEN": None},
        "dev",
    )
    assert b.secrets == (("s", "s"), ("other", "s"))


# --- which services


ORDERED = """
services:
  web: {image: x, depends_on: [app], profiles: [front]}
  app: {image: x, depends_on: {db: {condition: service_healthy}, cache: {condition: service_started, required: false}}}
  db: {image: x, healthcheck: {test: x}}
  cache: {image: x, profiles: [fast]}
  tool: {image: x, profiles: [tools], depends_on: [cache]}
"""


def test_profiles_and_order() -> None:
    made = project(ORDERED)
    assert chosen(made, (), ()) == ["db", "app"]
    assert chosen(made, (), ("front",)) == ["db", "app", "web"]
    assert chosen(made, (), ("fast",)) == ["db", "cache", "app"]
    assert chosen(made, (), ("*",)) == ["db", "cache", "app", "web", "tool"]
    assert chosen(made, ("web",), ()) == ["db", "app", "web"]
    assert chosen(made, ("web",), (), dependencies=False) == ["web"]
    with pytest.raises(Refused, match="profile is not asked for"):
        chosen(made, (), ("tools",))
    with pytest.raises(Refused, match="no such service: gone"):
        chosen(made, ("gone",), ())


def test_dependencies_that_cannot_come_true() -> None:
    assert (
        "in a circle: a -> b -> a"
        in problems("services: {a: {image: x, depends_on: [b]}, b: {image: x, links: [a]}}")[0]
    )
    text = "services: {a: {image: x, depends_on: {b: {condition: service_healthy}}}, b: {image: x}}"
    assert "has no healthcheck" in problems(text)[0]
    made = project("services: {a: {image: x, depends_on: {b: {condition: service_started, required: false}}}}")
    assert not made.services["a"].depends["b"].required
