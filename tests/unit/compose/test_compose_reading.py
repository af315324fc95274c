"""YAML, variables, files of variables, and merging: how texts become one tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.compose import dotenv
from bulkhead.compose.interpolation import expand
from bulkhead.compose.nodes import Troubles, parse
from bulkhead.compose.printing import as_value
from bulkhead.errors import Refused
from tests.unit.compose.projects import problems, project, service


def value(text: str) -> object:
    """A text's value."""
    return as_value(parse(text, "f", Troubles()))


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "{a: yes, b: 22:22, c: 010, d: 0o10, e: 1.5, f: null, g: '3', h: true, i: 0x1f, j: ~, k: on}"
    assert value(text) == {
        "a": "yes",
        "b": "22:22",
        "c": 10,
        "d": 8,
        "e": 1.5,
        "f": None,
        "g": "3",
        "h": True,
        "i": 31,
        "j": None,
        "k": "on",
    }


def test_anchors_and_merge_keys() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 5\n"
    assert value(text)["z"] == {"b": 2, "c": 4, "a": 5}  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(10)),
        "a: " + "[" * 5000 + "]" * 5000,
        "a: &a [*a]",
        "a: [1",
        "- 1",
        "a: \x00",
        "a: " + "x" * (5 << 20),
    ],
)
def test_hostile_files(text: str) -> None:
    with pytest.raises(Refused):
        parse(text, "f", Troubles())


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text, "f", Troubles())
    except Refused as error:
        assert error.problems


def test_keys_that_are_there_twice_and_tags() -> None:
    found = problems("services:\n  a: {image: x}\n  a: {image: y}\n  b: !boom {image: z}\n")
    assert found == ["0.yaml:3:3: a: this key is there twice", "0.yaml:4:6: the tag !boom means nothing here"]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("$A-${A}-$$A", "1-1-$A"),
        ("${EMPTY:-x}${EMPTY-y}", "x"),
        ("${GONE:-a ${A} b}", "a 1 b"),
        ("${GONE-${OTHER:-z}}", "z"),
        ("${A:+yes}${GONE:+no}${EMPTY+there}", "yesthere"),
        ("${A:?needed}", "1"),
        ("${GONE}", ""),
        ("{${A}}", "{1}"),
        ("a}b", "a}b"),
    ],
)
def test_variables(text: str, made: str) -> None:
    assert expand(text, {"A": "1", "EMPTY": ""}) == made


@pytest.mark.parametrize(
    "text", ["$", "${", "${A", "${}", "${1}", "${A!x}", "$1", "${GONE:?}", "${EMPTY:?say it}", "${A" + ":-${A" * 30]
)
def test_what_is_no_variable(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        expand(text, {"A": "1", "EMPTY": ""})


@given(st.text(alphabet="${}:-?+aA \n"))
def test_any_value_is_expanded_or_refused(text: str) -> None:
    try:
        expand(text, {"a": "1"})
    except ValueError as error:
        assert str(error)


def test_unset_variables_are_told_once() -> None:
    made = project("services: {web: {image: 'x:${TAG}', command: '$TAG $OTHER ${SET:-$MORE}'}}", SET="1")
    assert made.unset == ("TAG", "OTHER")
    assert made.services["web"].image == "x:"


def test_a_default_that_is_not_needed_is_not_looked_at() -> None:
    assert project("services: {web: {image: '${A:-$GONE}'}}", A="x").unset == ()


def test_env_files() -> None:
    text = """
# a comment
export A=1
B = two words # and a comment
C="x\\ty $A ${GONE:-z}"
D='$A # no comment'
E
F=
G="two
lines"
H: yes
I=a#b
"""
    assert dotenv.parse(text, {}) == {
        "A": "1",
        "B": "two words",
        "C": "x\ty 1 z",
        "D": "$A # no comment",
        "E": None,
        "F": "",
        "G": "two\nlines",
        "H": "yes",
        "I": "a#b",
    }
    for wrong in ("1A=2", 'A="x', "A='x' y", "=x"):
        with pytest.raises(ValueError, match="line 1"):
            dotenv.parse(wrong, {})


def test_environment_of_a_service() -> None:
    files = {"a.env": "A=file\nB=$SHELL_B", "raw.env": "R='$A'"}
    text = """
services:
  web:
    image: x
    env_file: [a.env, {path: none.env, required: false}, {path: raw.env, format: raw}]
    environment: [A=here, TAKEN, GONE]
"""
    made = project(text, files=files, TAKEN="1", SHELL_B="b")
    assert made.services["web"].request["env"] == ["A=here", "B=b", "R='$A'", "TAKEN=1"]
    found = problems(text.replace("required: false", "required: true"), files=files)
    assert found == ["0.yaml:5:23: services.web.env_file[1]: there is no file none.env"]


def test_several_files_are_merged() -> None:
    base = """
services:
  web:
    image: a
    command: [one, two]
    environment: {A: 1, B: 2}
    ports: ["80:80"]
    volumes: ["data:/data", "./x:/x"]
    depends_on: [db]
    labels: [k=v]
  db: {image: d}
volumes: {data: }
"""
    over = """
services:
  web:
    image: b
    command: [three]
    environment: [B=3, C=4]
    ports: ["81:81", "80:80"]
    volumes: ["other:/data"]
    depends_on: {db: {condition: service_started, restart: true}}
    labels: {k: w, l: x}
volumes: {other: }
"""
    made = project(base, over).services["web"]
    assert (made.image, made.request["command"]) == ("b", ["three"])
    assert made.request["env"] == ["A=1", "B=3", "C=4"]
    assert [port["port"] for port in made.request["ports"]] == [80, 81]  # type: ignore[attr-defined]
    assert [(mount.source, mount.target) for mount in made.mounts] == [("other", "/data"), ("/work/shop/x", "/x")]
    assert made.depends["db"].restart
    assert made.request["labels"] == {"k": "w", "l": "x"}


def test_reset_and_override() -> None:
    base = "services: {web: {image: a, command: x, ports: ['80:80'], environment: {A: 1}, user: u}}"
    over = """
services:
  web:
    command: !reset null
    user: !reset null
    ports: !override ["81:81"]
    environment: {A: !reset null, B: 2}
"""
    request = project(base, over).services["web"].request
    assert "command" not in request
    assert "user" not in request
    assert [port["port"] for port in request["ports"]] == [81]  # type: ignore[attr-defined]
    assert request["env"] == ["B=2"]


def test_extends() -> None:
    common = """
services:
  base: {image: b, environment: {A: 1}, volumes: ["./here:/x"], extends: {service: root}}
  root: {image: r, user: u}
"""
    text = """
services:
  web: {extends: {service: base, file: sub/common.yaml}, environment: {B: 2}}
  two: {extends: web, user: v}
"""
    made = project(text, files={"sub/common.yaml": common})
    web, two = made.services["web"], made.services["two"]
    assert (web.image, web.request["user"], web.request["env"]) == ("b", "u", ["A=1", "B=2"])
    assert web.mounts[0].source == "/work/shop/sub/here"
    assert (two.request["user"], two.request["env"]) == ("v", ["A=1", "B=2"])


def test_extends_that_cannot_be() -> None:
    assert "in a circle" in problems("services: {a: {extends: b, image: x}, b: {extends: a}}")[0]
    assert "no service 'gone'" in problems("services: {a: {extends: gone, image: x}}")[0]
    assert "cannot be read" in problems("services: {a: {extends: {service: b, file: gone.yaml}}}")[0]
    with_links = {"o.yaml": "services: {b: {image: x, depends_on: [c]}, c: {image: y}}"}
    found = problems("services: {a: {extends: {service: b, file: o.yaml}}}", files=with_links)
    assert "depends_on, which is not taken over" in found[0]


def test_everything_that_is_wrong_is_told_with_its_place() -> None:
    text = """
services:
  web:
    imagee: x
    privileged: true
    mem_limit: lots
    ports:
      - "99999:80"
    depends_on: [gone]
  db:
    image: d
    restart: sometimes
    x-bulkhead: {isolation: jail, gigahertz: 2}
nonsense: 1
"""
    assert problems(text) == [
        "0.yaml:4:5: services.web.imagee: this key is not known",
        "0.yaml:4:5: services.web: neither image nor build: what is it to run?",
        "0.yaml:4:5: services.web: depends on the service gone, which is not there",
        "0.yaml:5:17: services.web.privileged: true is not honoured: nobody is",
        "0.yaml:6:16: services.web.mem_limit: 'lots' is not a size such as 512M, 5G or 1.5GiB",
        "0.yaml:8:9: services.web.ports[0]: '99999' is no port, or range of ports, in 1 to 65535",
        "0.yaml:12:14: services.db.restart: 'sometimes' is not one of no, always, on-failure, unless-stopped",
        "0.yaml:13:29: services.db.x-bulkhead.isolation: 'jail' is not one of auto, chroot, container, vm, unikernel",
        "0.yaml:13:35: services.db.x-bulkhead.gigahertz: this key is not known",
        "0.yaml:14:1: nonsense: this key is not known",
    ]


def test_names() -> None:
    assert project("services: {a: {image: x}}").name == "shop"
    assert project("name: other\nservices: {a: {image: x}}").name == "other"
    assert project("name: other\nservices: {a: {image: x}}", name="given").name == "given"
    assert "project's name" in problems("name: Other!\nservices: {a: {image: x}}")[0]
    assert "more than 63" in problems(f"services: {{{'a' * 60}: {{image: x}}}}")[0]
    assert "there are none" in problems("name: x")[0]
    assert service("x-anything: {a: [1]}") == {"aliases": ["web"]}
