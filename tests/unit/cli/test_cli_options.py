"""Command lines of run and create, and the requests they become."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bulkhead.cli import create, options, run
from bulkhead.cli.parsing import Namespace, Subcommand, subcommand_parser
from bulkhead.errors import Refused
from bulkhead.model import CreateRequest


def parse(*words: str) -> Namespace:
    return subcommand_parser("bulkhead run", Subcommand("", run.arguments, run.main)).parse_args(words)


def request(*words: str) -> dict[str, object]:
    made = options.request(parse(*words))
    CreateRequest.model_validate(made)
    return made


def test_nothing_but_an_image() -> None:
    assert request("debian") == {"plan": {}, "image": "debian"}
    assert CreateRequest.model_validate(request("debian")) == CreateRequest(image="debian")


def test_an_image_alone_is_required() -> None:
    with pytest.raises(Refused, match="IMAGE is missing"):
        request("--rm")
    assert parse("debian").command == []


def test_a_clone_needs_none() -> None:
    assert request("--from", "web/s") == {"plan": {}, "snapshot": "web/s"}
    assert request(*["--from", "web/s", "sh", "-c", "true"]) == {
        "plan": {},
        "snapshot": "web/s",
        "command": ["sh", "-c", "true"],
    }
    assert CreateRequest.model_validate(request("--from", "web/s")).snapshot == "web/s"


GOLDEN = [
    (
        "--isolation chroot --plan small -d --rm nginx",
        {"plan": {"name": "small"}, "image": "nginx", "isolation": "chroot", "auto_remove": True},
    ),
    (
        "-m 512M --cpus 2 --ghz 2.0 --disk 5G --iops 1000 --disk-bps 10M --bandwidth 100M --pids 256 --swap 1G x",
        {
            "plan": {
                "memory": 512 << 20,
                "swap": 1 << 30,
                "cpus": 2.0,
                "ghz": 2.0,
                "disk": 5 << 30,
                "iops": 1000,
                "disk_bps": 10 << 20,
                "bandwidth": 100_000_000,
                "pids": 256,
            },
            "image": "x",
        },
    ),
    (
        "-it --name web --hostname h -w /srv -u www:www --network none --stop-signal QUIT --stop-timeout 0 x sh -c id",
        {
            "plan": {},
            "image": "x",
            "name": "web",
            "command": ["sh", "-c", "id"],
            "workdir": "/srv",
            "user": "www:www",
            "hostname": "h",
            "network": "none",
            "tty": True,
            "stdin": True,
            "stop_signal": "QUIT",
            "stop_timeout": 0.0,
        },
    ),
    (
        "-eA=1 -e B=2 -v data:/data:ro -p127.0.0.1:8080:80 -p 53:53/udp --label a=b --label c --restart on-failure:2 x",
        {
            "plan": {},
            "image": "x",
            "env": ["A=1", "B=2"],
            "labels": {"a": "b", "c": ""},
            "ports": [
                {"host_ip": "127.0.0.1", "host_port": 8080, "port": 80, "protocol": "tcp"},
                {"host_ip": "", "host_port": 53, "port": 53, "protocol": "udp"},
            ],
            "mounts": [{"kind": "volume", "source": "data", "target": "/data", "read_only": True}],
            "restart": {"kind": "on-failure", "retries": 2},
        },
    ),
    (
        "--health-cmd true --health-interval 5s --health-timeout 1m --health-retries 2 --health-start-period 0 "
        "--on-unhealthy restart x",
        {
            "plan": {},
            "image": "x",
            "health": {
                "command": ["/bin/sh", "-c", "true"],
                "interval": 5.0,
                "timeout": 60.0,
                "start_period": 0.0,
                "retries": 2,
                "on_unhealthy": "restart",
            },
        },
    ),
    ("--entrypoint /bin/echo x hi", {"plan": {}, "image": "x", "entrypoint": ["/bin/echo"], "command": ["hi"]}),
    ("--entrypoint= x", {"plan": {}, "image": "x", "entrypoint": []}),
]


@pytest.mark.parametrize(("words", "expected"), GOLDEN)
def test_golden(words: str, expected: dict[str, object]) -> None:
    assert request(*words.split()) == expected


@pytest.mark.parametrize(
    "command", [["ls", "-l"], ["-l"], ["--rm", "-d"], ["sh", "-c", "a -b --name x"], ["ls", "--", "-x"], ["-it"]]
)
def test_options_after_the_image_are_the_command_s(command: list[str]) -> None:
    args = parse("--rm", "debian", *command)
    assert (args.image, args.command, args.rm, args.detach) == ("debian", command, True, False)


def test_env_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text("A=file\n")
    monkeypatch.setenv("PASSED", "on")
    assert request("-e", "A=flag", "-e", "PASSED", "--env-file", str(file), "x")["env"] == [
        "A=file",
        "A=flag",
        "PASSED=on",
    ]


def test_all_problems_at_once() -> None:
    line = (
        "--isolation jail --name=-x -m 1Q --cpus 0 --ghz x --pids 0 --bandwidth fast -e =1 -p x -v y -w rel "
        "--restart never --stop-timeout soon --on-unhealthy restart --entrypoint [ --label = x"
    )
    words = shlex.split(line)
    with pytest.raises(Refused) as caught:
        options.request(parse(*words))
    said = [problem.what for problem in caught.value.problems]
    assert len(said) == 16
    for flag in (
        "--isolation",
        "--name",
        "--memory",
        "--cpus",
        "--ghz",
        "--pids",
        "--bandwidth",
        "--workdir",
        "--restart",
    ):
        assert any(what.startswith(flag) for what in said), flag
    assert caught.value.problems[-1].hint == "see bulkhead run --help"


@pytest.mark.parametrize("words", [["--bogus", "x"], ["--mem", "1G", "x"], ["--on-unhealthy", "pray", "x"]])
def test_parsers_complain_in_our_way(words: list[str]) -> None:
    with pytest.raises(Refused, match="bulkhead run: ") as caught:
        parse(*words)
    assert caught.value.exit_code == 125
    assert caught.value.hint == "see bulkhead run --help"


def test_create_takes_the_same_options() -> None:
    parser = subcommand_parser("bulkhead create", Subcommand("", create.arguments, create.main))
    args = parser.parse_args(["--rm", "-p", "1:2", "x", "y"])
    assert options.request(args)["command"] == ["y"]
