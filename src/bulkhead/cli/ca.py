"""bulkhead ca: an own certificate authority for the API over TCP. It works on files, and asks no daemon."""

from __future__ import annotations

import os

from bulkhead.cli.app import App
from bulkhead.cli.options import Problems
from bulkhead.cli.output import write
from bulkhead.cli.parsing import Namespace, Parser, Subcommand

DIRECTORY = "/etc/bulkhead/tls"
CA = "ca"


def _directory(parser: Parser) -> None:
    parser.add_argument("--directory", metavar="DIR", default=DIRECTORY, help=f"where the files are ({DIRECTORY})")
    parser.add_argument("--days", metavar="N", help="how long it is good (ca: 3650, certificates: 365)")


def _init(args: Namespace, app: App) -> int:  # noqa: ARG001 - as every command has it
    from bulkhead.tenancy import certificates

    days = _days(args.days, 3650)
    certificate, key = certificates.make_ca(days=days)
    os.makedirs(args.directory, mode=0o700, exist_ok=True)  # noqa: PTH103
    _keep(args.directory, CA, certificate, key)
    return 0


def _issue_arguments(parser: Parser) -> None:
    _directory(parser)
    parser.add_argument("--server", metavar="NAME", action="append", help="a name or an address of the daemon's host")
    parser.add_argument("--client", metavar="USER", help="a user, who can sign in with it")


def _issue(args: Namespace, app: App) -> int:  # noqa: ARG001 - as every command has it
    from bulkhead.tenancy import certificates

    if bool(args.server) is bool(args.client):
        _refuse("a certificate is either for a server or for a client", "give --server NAME, or --client USER")
    days = _days(args.days, 365)
    ca = _read(args.directory, f"{CA}.crt"), _read(args.directory, f"{CA}.key")
    if args.server:
        certificate, key = certificates.issue_server(ca, args.server, days=days)
    else:
        certificate, key = certificates.issue_client(ca, args.client, days=days)
    _keep(args.directory, "server" if args.server else f"client-{args.client}", certificate, key)
    return 0


def _days(text: str | None, usual: int) -> int:
    problems = Problems("see bulkhead ca --help")
    if text is not None and not (text.isdigit() and 1 <= int(text) <= 36500):
        problems.add(f"--days {text!r} is not a number from 1 to 36500")
    problems.check()
    return int(text) if text else usual


def _read(directory: str, name: str) -> bytes:
    path = os.path.join(directory, name)  # noqa: PTH118
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror}", "bulkhead ca init makes one")
    raise AssertionError


def _keep(directory: str, name: str, certificate: bytes, key: bytes) -> None:
    """Both files, which must not be there yet; the key is its owner's alone from the beginning."""
    paths = [os.path.join(directory, f"{name}.{kind}") for kind in ("key", "crt")]  # noqa: PTH118
    for path in paths:
        if os.path.exists(path):  # noqa: PTH110
            _refuse(f"{path} is there already", "remove it first, or name another --directory")
    for path, data, mode in zip(paths, (key, certificate), (0o600, 0o644), strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(data)
        write(path)


def _refuse(what: str, hint: str) -> None:
    from bulkhead.errors import Refused

    raise Refused(what, hint=hint)


SUBCOMMANDS = {
    "init": Subcommand("Make a certificate authority", _directory, _init),
    "issue": Subcommand("Make a certificate for a server or a user", _issue_arguments, _issue),
}
