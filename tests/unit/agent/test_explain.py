"""Errors of the agent in words."""

from __future__ import annotations

import errno

import pytest

from bulkhead.agent.explain import explain, words
from bulkhead.agent.frames import ExecRequest, Failure, Phase, Start
from bulkhead.agent.operations import Code, Operation, bind, mount, simple, write
from bulkhead.errors import AgentError, CommandNotExecutable, CommandNotFound

START = Start(
    prepare=(write("/sys/fs/cgroup/x/memory.max", "1"),),
    stage=(bind("/data", "/srv"),),
    inside=(mount("proc", "/proc"), simple(Code.CHDIR, "/nowhere", 0), simple(Code.EXEC, "nginx", "-g", "daemon off;")),
)


def test_a_mount_in_words() -> None:
    error = explain(Failure(Phase.INSIDE, Code.MOUNT, 0, errno.EPERM, ""), START)
    assert error.what == "cannot mount proc at /proc: EPERM (Operation not permitted)"
    assert error.hint


def test_each_phase_finds_its_own_list() -> None:
    prepare = explain(Failure(Phase.PREPARE, Code.WRITE, 0, errno.EBUSY, ""), START)
    assert prepare.what.startswith("cannot write 1 to /sys/fs/cgroup/x/memory.max: EBUSY")
    stage = explain(Failure(Phase.STAGE, Code.BIND, 0, errno.ENOENT, "no such source"), START)
    assert stage.what == "cannot bind /data at /srv: ENOENT (No such file or directory), no such source"
    assert "exist" in stage.hint
    assert "-w" in explain(Failure(Phase.INSIDE, Code.CHDIR, 1, errno.ENOENT, ""), START).hint


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOENT, CommandNotFound, 127),
        (errno.EACCES, CommandNotExecutable, 126),
        (errno.ENOEXEC, CommandNotExecutable, 126),
        (errno.EISDIR, CommandNotExecutable, 126),
    ],
)
def test_commands(number: int, kind: type[AgentError], code: int) -> None:
    error = explain(Failure(Phase.INSIDE, Code.EXEC, 2, number, ""), START)
    assert type(error) is kind
    assert error.exit_code == code
    assert "nginx" in error.what
    request = ExecRequest(inside=START.inside)
    assert type(explain(Failure(Phase.INSIDE, Code.EXEC, 2, number, ""), request)) is kind


def test_an_index_that_does_not_fit_is_still_an_error() -> None:
    for failure in (
        Failure(Phase.INSIDE, Code.MOUNT, 99, errno.EPERM, ""),
        Failure(Phase.INSIDE, Code.EXEC, 0, errno.ENOENT, ""),
    ):
        assert "EPERM" in explain(failure, START).what or "ENOENT" in explain(failure, START).what
    assert explain(Failure(Phase.REQUEST, 0, 0, errno.EINVAL, "what is that"), START).what == "what is that"
    assert "EINVAL" in explain(Failure(Phase.REQUEST, 0, 0, errno.EINVAL, ""), START).what


def test_every_operation_has_words() -> None:
    for code in Code:
        assert words(Operation(code, ("a", "b", "c", "d", "e")))
        assert words(Operation(code, ())), "also with arguments missing"
