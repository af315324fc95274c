"""Builds through the daemon and the command line: every instruction, the cache, failures, what is left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.building import build, config, context, layers, run
from tests.integration.lives import until, with_image

FIRST = """
ARG NAME=world
FROM busybox AS base
ARG NAME
ENV GREETING="hello $NAME" OTHER=one
LABEL kind=test
RUN echo "$GREETING" > /greeting
COPY --chown=user:1000 --chmod=640 file /opt/app/
COPY sub /opt/app/sub/
ADD packed.tar /unpacked/
WORKDIR /opt/app
RUN ["sh", "-c", "pwd > where; id -u >> where"]
RUN <<EOF
set -e
echo one > /script
echo $OTHER >> /script
EOF
COPY <<EOF /document
it's $GREETING
EOF
EXPOSE 80 90-91/udp
USER user
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["cat"]
CMD ["/greeting"]
"""


@pytest.fixture
def busy(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """The daemon with the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def test_every_instruction(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path / "context", FIRST, file="text\n", sub__deep__er="deep\n")
    (tmp_path / "in-tar").write_text("from a tar\n")
    subprocess.run(["tar", "-C", tmp_path, "-czf", place / "packed.tar", "in-tar"], check=True)
    said = build(busy, place, "-t", "first", "-t", "second:1", "--build-arg", "NAME=you")
    assert said.stdout.startswith("sha256:")
    assert run(busy, "first") == "hello you\n"
    script = "cd /opt/app; cat where /script /document sub/deep/er /unpacked/in-tar; stat -c '%u %g %a' file"
    told = busy.cli("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", "second:1", "-c", script)
    assert told.stdout.splitlines() == [
        "/opt/app", "0", "one", "one", "it's hello you", "deep", "from a tar", "1000 1000 640",
    ]  # fmt: skip
    said_config = config(busy, "first")
    assert said_config["Labels"] == {"kind": "test"}
    assert said_config["ExposedPorts"] == {"80/tcp": {}, "90/udp": {}, "91/udp": {}}
    assert (said_config["User"], said_config["StopSignal"], said_config["WorkingDir"]) == ("user", "SIGINT", "/opt/app")
    assert said_config["Volumes"] == {"/data": {}}
    assert said_config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}


def test_what_was_made_is_not_made_again(busy: Daemon, tmp_path: Path) -> None:
    place = context(
        tmp_path, "FROM busybox\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /b\nCOPY c /c\n", a="1", c="1"
    )
    first = build(busy, place)
    again = build(busy, place)
    assert first.stdout == again.stdout
    assert again.stderr.count("cached") == 3 and first.stderr.count("cached") == 0
    (place / "c").write_text("2")
    os.utime(place / "a")  # content counts, not time
    third = build(busy, place)
    assert third.stderr.count("cached") == 2
    (place / "a").write_text("2")
    assert build(busy, place).stderr.count("cached") == 0
    before = layers(busy, third.stdout.strip())
    assert layers(busy, build(busy, place, "--no-cache").stdout.strip())[2] != before[2]


def test_steps_that_change_the_same(busy: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nCOPY a /x\nRUN rm /x\nCOPY a /x\nRUN --network=none cat /x > /y\n"
    build(busy, context(tmp_path, text, a="again"), "-t", "same", "--build-arg", "SOURCE_DATE_EPOCH=1")
    found = layers(busy, "same")
    assert found[1] == found[3]
    assert run(busy, "same", "cat", "/x", "/y") == "againagain"


def test_stages_side_by_side(busy: Daemon, tmp_path: Path) -> None:
    text = """
FROM busybox AS one
RUN mkfifo /run/x 2>/dev/null; echo one > /one
FROM busybox AS two
RUN echo two > /two && ln -s /two /link
FROM busybox AS never
RUN false
FROM scratch
COPY --from=busybox /bin /bin
COPY --from=one /one /
COPY --from=two /two /link /out/
"""
    place = context(tmp_path, text)
    build(busy, place, "-t", "joined")
    assert run(busy, "joined", "/bin/cat", "/one", "/out/two", "/out/link") == "one\ntwo\ntwo\n"
    build(busy, place, "--target", "one", "-t", "only-one")
    assert run(busy, "only-one", "cat", "/one") == "one\n"


def test_a_step_that_fails(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\n\nRUN echo before\nRUN echo said; \\\n  exit 7\nRUN echo never\n")
    done = build(busy, place, "-t", "failed", check=False)
    assert done.returncode == 7
    assert "line 4: RUN ended with code 7" in done.stderr and "| said" in done.stderr and "never" not in done.stderr
    assert "no image" in busy.cli("image", "inspect", "failed", check=False).stderr
    quiet = build(busy, place, "-q", check=False)
    assert quiet.stderr.startswith("said\n") and quiet.returncode == 7
    assert busy.json("ps", "-a", "--format", "json") == []


def test_a_command_that_is_not_there(busy: Daemon, tmp_path: Path) -> None:
    done = build(busy, context(tmp_path, 'FROM busybox\nRUN ["no-such-program"]\n'), check=False)
    assert done.returncode != 0 and "line 2" in done.stderr and "no-such-program" in done.stderr


def test_a_shell_in_the_state_before(busy: Daemon, tmp_path: Path) -> None:
    place = context(
        tmp_path, "FROM busybox\nARG A=7\nWORKDIR /work\nRUN echo kept > file\nRUN echo lost > other; exit 3\n"
    )
    before = busy.json("image", "ls", "--format", "json")
    done = subprocess.run(
        [str(BULKHEAD), "build", "--on-failure", "shell", str(place)],
        input=b"pwd; cat file; ls; echo A=$A\n",
        capture_output=True,
        env=busy.environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout.decode() == "/work\nkept\nfile\nA=7\n", done
    assert busy.json("image", "ls", "--format", "json") == before
    assert busy.json("ps", "-a", "--format", "json") == []


def test_everything_wrong_is_told_before_anything_is_done(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\nRUN --network=none true\nRUN true\n")
    done = build(busy, place, "--isolation", "chroot", "--network", "nowhere", "--cpus", "512", check=False)
    assert done.returncode == 125
    assert "nowhere" in done.stderr and "512" in done.stderr and "[" not in done.stderr.split("Error")[0]
    for options in (("--keep", "/x"), ("--isolation", "jail"), ("--build-arg", "=x"), ("--secret", "src=/x")):
        assert build(busy, place, *options, check=False).returncode == 125, options
    assert "more than one CONTEXT" in busy.cli("build", str(place), "other", check=False).stderr


def test_options_behind_the_context(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\nENV A=1\n")
    busy.cli("build", str(place), "-t", "behind", "--label", "a=b")
    assert config(busy, "behind")["Labels"] == {"a": "b"}


def test_a_context_that_is_a_stream(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\nCOPY file /\n", file="streamed")
    for flag in ("-c", "-cz"):
        tar = subprocess.run(["tar", "-C", place, flag, "."], check=True, capture_output=True).stdout
        busy.cli("build", "-t", "streamed", "-", stdin=tar)
        assert run(busy, "streamed", "cat", "/file") == "streamed"
    busy.cli("build", "-t", "alone", "-", stdin="FROM busybox\nRUN echo alone > /x\n")
    assert run(busy, "alone", "cat", "/x") == "alone\n"
    busy.cli("build", "-t", "other", "-f", "-", place, stdin="FROM busybox\nCOPY file /y\n")
    assert run(busy, "other", "cat", "/y") == "streamed"


def test_ignore_files(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\nCOPY . /all/\n", keep="", drop__a="", drop__b="", x__log="")
    (place / ".dockerignore").write_text("drop\n!drop/b\n*/log\n.dockerignore\nContainerfile\n")
    build(busy, place, "-t", "ignored")
    found = run(busy, "ignored", "find", "/all", "-type", "f").split()
    assert sorted(found) == ["/all/drop/b", "/all/keep"]
    (place / ".containerignore").write_text("*\n!keep\n")
    build(busy, place, "-t", "ignored")
    assert run(busy, "ignored", "find", "/all", "-type", "f").split() == ["/all/keep"]


def test_two_builds_one_digest(busy: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nCOPY a /a/b/\nWORKDIR /w\nRUN echo x > y; mkdir -p d/e; ln y z; rm /etc/os-release\n"
    place = context(tmp_path, text, a="1")
    digests = set()
    for number in range(2):
        os.utime(place / "a", (2_000_000_000 + number, 2_000_000_000 + number))
        done = build(busy, place, "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000")
        digests.add(done.stdout)
    assert len(digests) == 1
    image = busy.json("image", "inspect", digests.pop().strip())[0]
    assert image["Created"].startswith("2023-11-14")


def test_mounts(busy: Daemon, tmp_path: Path) -> None:
    text = """
FROM busybox AS tools
RUN mkdir /tools && echo tool > /tools/t && ln -s /etc/passwd /tools/link
FROM busybox
RUN --mount=type=secret,id=token,required=true cat /run/secrets/token | wc -c > /length
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
RUN --mount=type=secret,id=token,target=/etc/token,mode=0444,uid=7 stat -c '%u %a' /etc/token > /owner
RUN --mount=type=cache,target=/cache echo first > /cache/kept
RUN --mount=type=cache,target=/cache,sharing=locked cat /cache/kept > /from-cache
RUN --mount=type=tmpfs,target=/memory,size=1m echo x > /memory/x && df -k /memory | tail -1 | awk '{print $2}' > /size
RUN --mount=type=bind,from=tools,source=/tools,target=/mnt cat /mnt/t > /bound && ! touch /mnt/x 2>/dev/null
RUN --mount=target=/ctx cat /ctx/file > /context
RUN --mount=type=bind,source=file,target=/one cat /one > /single
"""
    (tmp_path / "secret").write_text("hidden!")
    place = context(tmp_path / "context", text, file="of the context")
    build(busy, place, "-t", "mounts", "--secret", f"id=token,src={tmp_path / 'secret'}")
    names = ("length", "owner", "from-cache", "size", "bound", "context", "single")
    told = run(busy, "mounts", "sh", "-c", "; ".join(f"cat /{name}; echo" for name in names))
    assert [line for line in told.splitlines() if line] == [
        "7", "7 444", "first", "1024", "tool", "of the context", "of the context",
    ]  # fmt: skip
    left = run(
        busy, "mounts", "sh", "-c", "ls -d /cache /memory /mnt /ctx /one /etc/token /run/secrets 2>/dev/null; true"
    )
    assert left == ""
    assert b"hidden!" not in b"".join(path.read_bytes() for path in (busy.config.images_dir / "blobs/sha256").iterdir())
    missing = build(busy, place, "--no-cache", check=False)
    assert "secret 'token' was not given" in missing.stderr
    for volume in busy.json("volume", "ls", "--format", "json"):
        busy.cli("volume", "rm", volume["name"])


def test_networks(busy: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN ls /sys/class/net > /a\nRUN --network=none ls /sys/class/net > /b\n"
    place = context(tmp_path, text)
    build(busy, place, "-t", "networks")
    assert run(busy, "networks", "cat", "/a", "/b").split() == ["eth0", "lo", "lo"]
    build(busy, place, "-t", "networks", "--network", "none")
    assert run(busy, "networks", "cat", "/a", "/b").split() == ["lo", "lo"]


def test_proxies_are_seen_and_not_kept(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\nRUN env | grep -i proxy > /seen; true\n")
    done = build(busy, place, "-t", "proxied", "--build-arg", "http_proxy=http://proxy:1")
    assert run(busy, "proxied", "cat", "/seen") == "http_proxy=http://proxy:1\n"
    assert "proxy" not in str(config(busy, "proxied"))
    assert "cached" in build(busy, place, "--build-arg", "http_proxy=http://proxy:2").stderr, done


def test_a_chroot(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\nRUN mkdir /x && echo chroot > /x/y && chown 7:8 /x/y\n")
    build(busy, place, "-t", "room", "--isolation", "chroot")
    assert run(busy, "room", "sh", "-c", "cat /x/y; stat -c '%u %g' /x/y") == "chroot\n7 8\n"


def test_onbuild(busy: Daemon, tmp_path: Path) -> None:
    build(
        busy,
        context(tmp_path / "base", "FROM busybox\nONBUILD COPY file /file\nONBUILD RUN cat /file > /copy\n"),
        "-t",
        "base",
    )
    build(busy, context(tmp_path / "child", "FROM base\nCMD cat /copy\n", file="triggered"), "-t", "child")
    assert run(busy, "child") == "triggered"
    build(busy, context(tmp_path / "grandchild", "FROM child\nENV A=1\n"), "-t", "grandchild")


def test_a_client_that_goes_ends_its_build(busy: Daemon, tmp_path: Path) -> None:
    place = context(tmp_path, "FROM busybox\nRUN echo begun; sleep 1000\n")
    client = subprocess.Popen(
        [str(BULKHEAD), "build", str(place)], env=busy.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until("the step runs", lambda: any(row["state"] == "running" for row in busy.json("ps", "--format", "json")))
    client.kill()
    client.communicate()
    until("nothing is left", lambda: not busy.json("ps", "-a", "--format", "json"))


def test_images_of_a_build_under_way_stay(busy: Daemon, tmp_path: Path) -> None:
    busy.cli("build", "-t", "mortal", "-", stdin="FROM busybox\nRUN echo base > /base\n")
    place = context(tmp_path, "FROM mortal\nRUN echo one > /one\nRUN sleep 3\nRUN cat /base /one > /both\n")
    client = subprocess.Popen(
        [str(BULKHEAD), "build", "-t", "survivor", str(place)],
        env=busy.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until("the step runs", lambda: any(row["state"] == "running" for row in busy.json("ps", "--format", "json")))
    refused = busy.cli("image", "rm", "mortal", check=False)
    busy.cli("image", "prune", "--all")
    _, said = client.communicate(timeout=60)
    assert client.returncode == 0, said
    assert "a build" in refused.stderr
    assert run(busy, "survivor", "cat", "/both") == "base\none\n"


def test_a_virtual_machine(busy: Daemon, tmp_path: Path) -> None:
    if "kernel/debian:latest" not in busy.cli("image", "ls").stdout:
        busy.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    text = "FROM busybox\nRUN uname -r >/kernel; rm /etc/os-release; mkdir -p /a/b; chown 5:6 /a/b; echo x >>/etc/group"
    place = context(tmp_path, text)
    build(busy, place, "-t", "guest", "--isolation", "vm", "--memory", "128M", "--cpus", "1", "--disk", "64M")
    told = run(
        busy, "guest", "sh", "-c", "cat /kernel; stat -c '%u %g' /a/b; test -e /etc/os-release || tail -1 /etc/group"
    )
    assert told.splitlines()[0] != os.uname().release
    assert told.splitlines()[1:] == ["5 6", "x"]
    place = context(tmp_path, "FROM busybox\nRUN --mount=type=tmpfs,target=/x true\n")
    refused = build(busy, place, "--isolation", "vm", check=False)
    assert "line 2: a virtual machine has no --mount=type=tmpfs" in refused.stderr
