"""What users write: ports, volumes, environments, labels, policies, times."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.cli import values
from bulkhead.model import Mount, PortMapping, RestartPolicy

PORTS = st.integers(1, 65535)


@given(
    ip=st.none() | st.ip_addresses(),
    host=PORTS,
    port=PORTS,
    protocol=st.sampled_from(["", "tcp", "udp"]),
)
def test_every_port_mapping_is_understood(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None, host: int, port: int, protocol: str
) -> None:
    shown = "" if ip is None else f"[{ip}]:" if ip.version == 6 else f"{ip}:"
    parsed = PortMapping.model_validate(values.parse_port(f"{shown}{host}:{port}{'/' if protocol else ''}{protocol}"))
    assert parsed == PortMapping(
        host_ip="" if ip is None else str(ip), host_port=host, port=port, protocol=protocol or "tcp"
    )


@given(st.text(alphabet="0123456789.:[]/abtcpud -+", max_size=24))
def test_no_port_text_gives_anything_but_a_mapping_or_a_reason(text: str) -> None:
    try:
        parsed = values.parse_port(text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        PortMapping.model_validate(parsed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("80", "[IP:]HOST:PORT"),
        ("", "[IP:]HOST:PORT"),
        ("80:", "[IP:]HOST:PORT"),
        ("a:80", "[IP:]HOST:PORT"),
        ("0:80", "port 0 is not in"),
        ("80:65536", "port 65536 is not in"),
        ("80:99999999999999999999", "is not in"),
        ("80:80/sctp", "'sctp' is not tcp or udp"),
        ("1.2.3:80:80", "'1.2.3' is not an IP address"),
        ("::1:80:80", "[IP:]HOST:PORT"),
        ("[1.2.3.4]:80:80", "brackets"),
        ("²:80", "[IP:]HOST:PORT"),
    ],
)
def test_wrong_ports(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="-p") as caught:
        values.parse_port(text)
    assert reason in str(caught.value)


NAMES = st.from_regex(values.NAME, fullmatch=True).map(str.strip).filter(values.NAME.match)
PATHS = st.text(alphabet="abc/._- ü", max_size=12).map(lambda text: "/" + text)


@given(name=NAMES, target=PATHS, mode=st.sampled_from(["", ":ro", ":rw"]))
def test_volumes(name: str, target: str, mode: str) -> None:
    parsed = Mount.model_validate(values.parse_volume(f"{name}:{target}{mode}"))
    assert parsed == Mount(kind="volume", source=name, target=target, read_only=mode == ":ro")


@given(source=PATHS, target=PATHS)
def test_binds(source: str, target: str) -> None:
    parsed = Mount.model_validate(values.parse_volume(f"{source}:{target}"))
    assert (parsed.kind, parsed.target, parsed.read_only) == ("bind", target, False)
    assert parsed.source.startswith("/")


def test_relative_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert values.parse_volume("./data:/data")["source"] == f"{tmp_path}/data"
    assert values.parse_volume("..:/data")["source"] == str(tmp_path.parent)


@given(st.text(alphabet="ab/:.ro\0 ", max_size=16))
def test_no_volume_text_gives_anything_but_a_mount_or_a_reason(text: str) -> None:
    try:
        parsed = values.parse_volume(text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        Mount.model_validate(parsed)


@pytest.mark.parametrize(
    "text", ["", "data", "data:", ":/data", "data:rel", "da ta:/x", "a:/b:rx", "a:/b:", "a:/b:ro:x"]
)
def test_wrong_volumes(text: str) -> None:
    with pytest.raises(ValueError, match="-v"):
        values.parse_volume(text)


def test_environment(tmp_path: Path) -> None:
    given_ = {"SET": "x=y"}
    assert values.parse_env("A=b=c", given_) == "A=b=c"
    assert values.parse_env("A=", given_) == "A="
    assert values.parse_env("SET", given_) == "SET=x=y"
    assert values.parse_env("UNSET", given_) is None
    for wrong in ("", "=x", "A=\0"):
        with pytest.raises(ValueError, match="K=V"):
            values.parse_env(wrong, given_)
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\n  B= two \nSET\nUNSET\n")
    assert values.read_env_file(str(file), given_) == ["A=1", "B= two ", "SET=x=y"]
    file.write_text("A=1\n=2\n")
    with pytest.raises(ValueError, match="line 2"):
        values.read_env_file(str(file), given_)
    with pytest.raises(ValueError, match="No such file"):
        values.read_env_file(str(tmp_path / "none"), given_)


def test_restart() -> None:
    assert RestartPolicy.model_validate(values.parse_restart("on-failure:3")) == RestartPolicy(
        kind="on-failure", retries=3
    )
    assert values.parse_restart("always")["kind"] == "always"
    for wrong in ("", "sometimes", "always:3", "on-failure:", "on-failure:0", "on-failure:x", "on-failure:-1"):
        with pytest.raises(ValueError, match="--restart"):
            values.parse_restart(wrong)


def test_entrypoint_and_labels() -> None:
    assert values.parse_entrypoint("sh") == ["sh"]
    assert values.parse_entrypoint("") == []
    assert values.parse_entrypoint('["a", "b c"]') == ["a", "b c"]
    for wrong in ("[", "[1]"):
        with pytest.raises(ValueError, match="JSON"):
            values.parse_entrypoint(wrong)
    assert values.parse_label("a=b=c") == ("a", "b=c")
    assert values.parse_label("a") == ("a", "")
    with pytest.raises(ValueError, match="K=V"):
        values.parse_label("=x")


def test_numbers() -> None:
    assert values.parse_number("5", "--n", low=1) == 5
    assert values.parse_number("0.5", "--n", low=0, whole=False) == 0.5
    for wrong, whole in (("x", True), ("1.5", True), ("0", True), ("nan", False), ("inf", False), ("-1", False)):
        with pytest.raises(ValueError, match="--n"):
            values.parse_number(wrong, "--n", low=1, whole=whole)


def test_when() -> None:
    now = 1_700_000_000.0
    assert values.parse_when("10m", "--since", now) == now - 600
    assert values.parse_when("90", "--since", now) == now - 90
    assert values.parse_when("1699999999.5", "--since", now) == 1699999999.5
    assert values.parse_when("2023-11-14T22:13:20Z", "--since", now) == now
    assert values.parse_when("2023-11-14T22:13:20.123456789Z", "--since", now) == pytest.approx(now + 0.123456)
    assert values.parse_when("2023-11-14T23:13:20+01:00", "--since", now) == now
    with pytest.raises(ValueError, match="--since 'yesterday'"):
        values.parse_when("yesterday", "--since", now)
