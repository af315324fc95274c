"""An agent's ERROR in words: what was being done, why it failed, and what helps."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from bulkhead.agent.frames import ExecRequest, Failure, Phase, Start
from bulkhead.agent.operations import Argument, Code, Operation
from bulkhead.errors import AgentError, CommandNotExecutable, CommandNotFound

_WORDS: dict[Code, str] = {
    Code.MKDIR: "make the directory {0}",
    Code.RMDIR: "remove the directory {0}",
    Code.WRITE: "write {1} to {0}",
    Code.READ: "read {0}",
    Code.UNLINK: "remove {0}",
    Code.KILLALL: "end every process of {0}",
    Code.CHOWN: "give {0} to {1}:{2}",
    Code.STAGE: "mount a tmpfs at {0}",
    Code.ATTACH: "attach {0} as {1}",
    Code.OVERLAY: "mount the overlay of {0}",
    Code.ROOT: "use {0} as the root",
    Code.MOUNTDEV: "mount the device {0} as {2}",
    Code.MOUNT: "mount {0} at {2}",
    Code.BIND: "bind {0} at {1}",
    Code.REBIND: "bind {0} at {1} of the instance",
    Code.MASK: "mask {0}",
    Code.MKDIRS: "make the directory {0} in the instance",
    Code.FILE: "write the file {0} in the instance",
    Code.SYMLINK: "link {1} to {0} in the instance",
    Code.DEVICE: "bind the device {0} at {1}",
    Code.PIVOT: "make the instance's root the root",
    Code.SYSCTL: "set the sysctl {0} to {1}",
    Code.HOSTNAME: "set the host name {0}",
    Code.CONSOLE: "open the instance's terminal",
    Code.LOOPBACK: "bring up lo",
    Code.SECRET: "keep the secret {0} in memory",
    Code.CHDIR: "change to the working directory {0}",
    Code.RLIMIT: "set the resource limit {0} to {1}:{2}",
    Code.USER: "become the user {0}",
    Code.CAPS: "set the capabilities",
    Code.NO_NEW_PRIVS: "give up new privileges",
    Code.SECCOMP: "load the seccomp filter",
    Code.SECCOMP_FIRST: "load the seccomp filter",
    Code.UMASK: "set the umask {0}",
    Code.OOM_SCORE: "set the out-of-memory score {0}",
    Code.KEYRING: "join a new keyring",
    Code.ENV: "set the environment",
    Code.EXEC: "execute {0}",
    Code.ARGS: "pass the arguments",
    Code.PROGRAM: "keep the program in memory",
    Code.INHERIT: "keep the descriptor {0}",
    Code.MODULE: "load the kernel module {0}",
    Code.CLOCK: "set the guest's clock",
    Code.ENTROPY: "seed the guest's random generator",
    Code.NETIF: "set up the guest's interface {0}",
    Code.POWEROFF: "power the guest off",
    Code.SYNC: "write what waits in memory to the disks",
    Code.GROW: "grow the file system of the disk",
    Code.SERVE: "start a supervisor for the port {0}",
    Code.MACVLAN: "make the instance's interface on top of its VM's {1}",
}

_HINTS: dict[tuple[Code, int], str] = {
    (Code.ATTACH, errno.EINVAL): "the file system of that path may not allow id-mapped mounts; bulkhead doctor tells",
    (Code.BIND, errno.EINVAL): "a file system mounted there does not allow id-mapped mounts: bind another directory",
    (Code.BIND, errno.ENOENT): "the source of a bind mount must exist on the host",
    (Code.BIND, errno.ENOTDIR): "the source is a directory and the target, or what leads to it, a file of the image: "
    "name a directory as the target",
    (Code.BIND, errno.EISDIR): "the source is a file and the target a directory of the image: name the file in it",
    (Code.BIND, errno.EXDEV): "a link in the image leads the target out of the instance's root",
    (Code.OVERLAY, errno.EINVAL): "dmesg on the host tells what the overlay does not like",
    (Code.MOUNT, errno.EPERM): "the host does not let a user namespace mount this; bulkhead doctor tells more",
    (Code.MOUNT, errno.ENODEV): "the host's kernel does not have this file system",
    (Code.MACVLAN, errno.EOPNOTSUPP): "the VM's kernel has no macvlan: make its image anew (bulkhead image kernel)",
    (Code.CHDIR, errno.ENOENT): "check -w and the image's working directory",
    (Code.CHDIR, errno.EACCES): "the user may not enter the working directory: check -w and -u",
    (Code.CHDIR, errno.ENOTDIR): "the working directory is a file in this image: check -w",
    (Code.USER, errno.ENOENT): "the image's /etc/passwd or /etc/group does not have it: check -u",
    (Code.USER, errno.EINVAL): "a user is given as name, uid, name:group or uid:gid: check -u",
    (Code.RLIMIT, errno.EPERM): "the host's own hard limit is lower, and root may not raise it here",
    (Code.WRITE, errno.EBUSY): "the instance uses more than the new limit allows",
    (Code.EXEC, errno.ENOMEM): "the plan's memory is too small for this program",
}
_ANY_HINTS: dict[int, str] = {
    errno.ENOSPC: "the instance's disk, or a limit of the host such as user.max_mnt_namespaces, is full",
    errno.EROFS: "the target does not exist in a read-only file system",
    errno.ELOOP: "the image has a symbolic link where a file or directory is needed",
    errno.EDQUOT: "the disk is full",
    errno.EAGAIN: "the plan's or the host's limit of processes is reached",
}


def explain(failure: Failure, request: Start | ExecRequest | Sequence[Operation]) -> AgentError:
    """What a request's ERROR means, in words. `request` is what was sent, to find the operation by its index."""
    if failure.phase is Phase.REQUEST:
        what = failure.text or f"the agent refused the request: {_name(failure.errno)}"
        return AgentError(what, hint=_ANY_HINTS.get(failure.errno, ""))
    operation = _operation(failure, request)
    if operation is None:
        return AgentError(f"operation {failure.index} of the {failure.phase.name.lower()} list failed: {_why(failure)}")
    if operation.code is Code.EXEC and (problem := _command(failure.errno, str(operation.arguments[0]))):
        return problem
    hint = _HINTS.get((operation.code, failure.errno)) or _ANY_HINTS.get(failure.errno, "")
    return AgentError(f"cannot {words(operation)}: {_why(failure)}", hint=hint)


def words(operation: Operation) -> str:
    """An operation as the object of "cannot ..."."""
    return _WORDS[operation.code].format(*map(_text, operation.arguments), *["?"] * 3)


def _text(argument: Argument) -> str:
    text = argument.decode(errors="replace") if isinstance(argument, bytes) else str(argument)
    return text.strip() if len(text) <= 256 else text[:253] + "..."


def _name(number: int) -> str:
    return errno.errorcode.get(number, f"error {number}")


def _why(failure: Failure) -> str:
    why = f"{_name(failure.errno)} ({os.strerror(failure.errno)})" if failure.errno else "no reason given"
    return f"{why}, {failure.text}" if failure.text else why


def _operation(failure: Failure, request: Start | ExecRequest | Sequence[Operation]) -> Operation | None:
    if isinstance(request, Start):
        operations: Sequence[Operation] = request.phase(failure.phase)
    elif isinstance(request, ExecRequest):
        operations = request.inside
    else:
        operations = request
    if failure.index >= len(operations) or operations[failure.index].code != failure.code:
        return None
    return operations[failure.index]


def _command(number: int, program: str) -> AgentError | None:
    match number:
        case errno.ENOENT:
            hint = "check the command, the image's entrypoint and PATH; a script's interpreter must exist as well"
            return CommandNotFound(f"command not found: {program}", hint=hint)
        case errno.EACCES:
            return CommandNotExecutable(f"not executable: {program}", hint="check its mode and the user (-u)")
        case errno.ENOEXEC:
            hint = "it is neither a program for this processor nor a script that begins with #!"
            return CommandNotExecutable(f"not executable: {program}", hint=hint)
        case errno.EISDIR | errno.ENOTDIR | errno.ELOOP:
            return CommandNotExecutable(f"not executable: {program}: {os.strerror(number)}", hint="check the command")
    return None
