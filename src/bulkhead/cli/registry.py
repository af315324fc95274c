"""Commands about registries: pull, push, login, logout, tags, referrers. `bulkhead image` has them."""

from __future__ import annotations

import os
import sys

from bulkhead.cli.app import App
from bulkhead.cli.output import printable, talk, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_format
from bulkhead.quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bulkhead.client import Response

_HUB = ("docker.io/library/", "docker.io/")
COMPRESSIONS = ("gzip", "zstd", "zstd:chunked")
POLICIES = ("missing", "always", "never")


def add_access(parser: Parser) -> None:
    """How registries are talked to."""
    add = parser.add_argument
    add("--authfile", metavar="FILE", help="where logins are kept ($REGISTRY_AUTH_FILE, podman's, docker's)")
    add("--creds", metavar="USER:PASSWORD", help="a login for this command alone")
    add(
        "--tls-verify",
        metavar="BOOL",
        nargs="?",
        const="true",
        help="false: take any certificate, or plain HTTP (as registries.conf says)",
    )


def access(args: Namespace, app: App, reference: str, *, push: bool = False) -> dict[str, object]:
    """What a request says of logins and TLS: those of the registries that it may talk to, and no others."""
    from bulkhead.cli import logins

    found = app.client.call("GET", "/v1/registries/sources", query={"reference": reference, "push": push})
    if args.creds:
        username, _, password = args.creds.partition(":")
        own = {source["registry"] for source in found if not source["mirror"]}
        auth = [{"registry": host, "username": username, "password": password} for host in sorted(own)]
    else:
        auth = logins.for_sources(found, args.authfile)
    return {"auth": auth, "tls_verify": tls_verify(args), "proxies": proxies(app)}


def proxies(app: App) -> dict[str, str]:
    """Those of this process, as podman and skopeo read them: capitals first. Empty: the daemon uses its own.

    They are this host's way out, so a daemon on another host is not told of them.
    """
    if app.is_remote:
        return {}
    names = ("http_proxy", "https_proxy", "no_proxy")
    found = {name: (os.environ.get(name.upper()) or os.environ.get(name, "")).strip() for name in names}
    # no_proxy alone says nothing of a way.
    return {name: value for name, value in found.items() if value} if found[names[0]] or found[names[1]] else {}


def tls_verify(args: Namespace) -> bool | None:
    """--tls-verify; None where it was not given. Raises Refused."""
    if args.tls_verify is None:
        return None
    if args.tls_verify.lower() not in ("true", "false", "1", "0"):
        from bulkhead.errors import Refused

        raise Refused(f"--tls-verify {args.tls_verify!r} is neither true nor false")
    return args.tls_verify.lower() in ("true", "1")


def shown(response: Response, *, quiet: bool = False) -> dict[str, Any]:
    """Show the steps on stderr, unless it is to be `quiet`; the result."""
    if quiet:
        return dict(next(item["result"] for item in response.json_lines() if "result" in item))
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    return show(response.json_lines())


# --- pull and push


def _pull_arguments(parser: Parser) -> None:
    add_access(parser)
    parser.add_argument("--platform", metavar="OS/ARCH", help="such as linux/arm64 (this host's)")
    parser.add_argument("--all-platforms", action="store_true", help="every image of a list, not this host's alone")
    parser.add_argument("--policy", choices=POLICIES, default="always", help="when to ask the registry (always)")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_json(parser)
    parser.add_argument("image", metavar="IMAGE", help="such as quay.io/team/app:1.2, or a short name")


def name_of(asked: str, image: dict[str, Any]) -> str:
    """Which of an image's names is the one that was asked for; its digest where none is."""
    wanted = next((asked.removeprefix(hub) for hub in _HUB if asked.startswith(hub)), asked)
    tagged = wanted if ":" in wanted.rpartition("/")[2] else f"{wanted}:latest"
    found = [name for name in image["references"] if name == tagged or name.endswith(f"/{tagged}")]
    return str(min(found, key=lambda name: name != tagged) if found else image["digest"])


def add_json(parser: Parser) -> None:
    """`--format text|json`, for one result."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print the result (text)")


def _pull(args: Namespace, app: App) -> int:
    if args.all_platforms:
        return _pull_all(args, app)
    image = pull(args, app, args.image, policy=args.policy, platform=args.platform, quiet=args.quiet)
    if args.format == "json":
        write_json(image)
    else:
        write(printable(name_of(args.image, image)))
    return 0


def _pull_all(args: Namespace, app: App) -> int:
    body = {
        "reference": args.image,
        "all_platforms": True,
        "policy": args.policy,
        "platform": args.platform,
        **access(args, app, args.image),
    }
    with app.client.stream("POST", "/v1/images/pull", body=body) as response:
        images = shown(response, quiet=args.quiet)["images"]
    if args.format == "json":
        write_json(images)
        return 0
    for image in images:
        other = f"{args.image}-{image['architecture']}" if ":" in args.image.rpartition("/")[2] else args.image
        write(
            printable(next((name for name in image["references"] if name.endswith(other)), name_of(args.image, image)))
        )
    return 0


def pull(
    args: Namespace, app: App, reference: str, *, policy: str, platform: str | None, quiet: bool = False
) -> dict[str, Any]:
    """Have an image in the store; what the API says of it."""
    body = {"reference": reference, "policy": policy, "platform": platform, **access(args, app, reference)}
    with app.client.stream("POST", "/v1/images/pull", body=body) as response:
        return shown(response, quiet=quiet)


def _push_arguments(parser: Parser) -> None:
    add_access(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--compression-format",
        choices=COMPRESSIONS,
        help="compress layers so (they stay as they are; gzip for those that are not compressed)",
    )
    parser.add_argument(
        "--all-platforms",
        action="store_true",
        help="with the images of other platforms (IMAGE-arm64, IMAGE-386, ...) as one list",
    )
    add_json(parser)
    parser.add_argument("image", metavar="IMAGE", help="name or id")
    parser.add_argument("destination", metavar="DESTINATION", nargs="?", help="where to (the image's own name)")


def _push(args: Namespace, app: App) -> int:
    destination = args.destination.removeprefix("docker://") if args.destination else None
    body = {
        "reference": args.image,
        "destination": destination,
        "compression": args.compression_format,
        "all_platforms": args.all_platforms,
        **access(args, app, destination or args.image, push=True),
    }
    with app.client.stream("POST", "/v1/images/push", body=body) as response:
        pushed = shown(response, quiet=args.quiet)
    if args.format == "json":
        write_json(pushed)
        return 0
    if not args.quiet:
        kept = f"{pushed['known']} blobs were there, {pushed['mounted']} mounted"
        talk(f"{printable(pushed['name'])}: {format_size(pushed['moved'])} sent, {kept}")
    write(pushed["digest"])
    return 0


# --- lists


def _tags_arguments(parser: Parser) -> None:
    add_access(parser)
    add_format(parser)
    parser.add_argument("repository", metavar="REPOSITORY", help="such as quay.io/team/app")


def _tags(args: Namespace, app: App) -> int:
    body = {"reference": args.repository, **access(args, app, args.repository)}
    found = app.client.call("POST", "/v1/registries/tags", body=body)
    if args.format == "json":
        write_json(found)
    else:
        for tag in found:
            write(tag)
    return 0


def _referrers_arguments(parser: Parser) -> None:
    add_access(parser)
    add_format(parser)
    parser.add_argument("image", metavar="IMAGE", help="an image in its registry")


def _referrers(args: Namespace, app: App) -> int:
    body = {"reference": args.image, **access(args, app, args.image)}
    found = app.client.call("POST", "/v1/registries/referrers", body=body)
    if args.format == "json":
        write_json(found)
        return 0
    rows = [(entry.get("digest"), entry.get("artifactType") or "-", str(entry.get("size", "-"))) for entry in found]
    write_table(("DIGEST", "TYPE", "SIZE"), rows)
    return 0


# --- logins


def _login_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("-u", "--username", metavar="NAME", help="who (asked for where it is not given)")
    add("-p", "--password", metavar="PASSWORD", help="others on this host can see it: rather --password-stdin")
    add("--password-stdin", action="store_true", help="read the password from stdin")
    add("--authfile", metavar="FILE", help="where logins are kept ($REGISTRY_AUTH_FILE, podman's)")
    add("--tls-verify", metavar="BOOL", nargs="?", const="true", help="false: take any certificate, or plain HTTP")
    add("registry", metavar="REGISTRY", help="its host, such as quay.io")


def _login(args: Namespace, app: App) -> int:
    from bulkhead.cli import logins

    registry = logins.host_of(args.registry)
    username, password = logins.ask(args)
    auth = [{"registry": registry, "username": username, "password": password}]
    body = {"registry": registry, "auth": auth, "tls_verify": tls_verify(args), "proxies": proxies(app)}
    app.client.call("POST", "/v1/registries/login", body=body)
    where = logins.save(registry, username, password, args.authfile)
    talk(printable(f"logged in to {registry} as {username}; kept in {where}"))
    return 0


def _logout_arguments(parser: Parser) -> None:
    parser.add_argument("--authfile", metavar="FILE", help="where logins are kept ($REGISTRY_AUTH_FILE, podman's)")
    parser.add_argument("-a", "--all", action="store_true", help="of every registry")
    parser.add_argument("registry", metavar="REGISTRY", nargs="?", help="its host, such as quay.io")


def _logout(args: Namespace, app: App) -> int:  # noqa: ARG001 - nothing is asked of the daemon
    from bulkhead.cli import logins
    from bulkhead.errors import Refused

    if args.all == bool(args.registry):
        raise Refused("which registry? name one, or --all")
    for line in logins.forget(None if args.all else logins.host_of(args.registry), args.authfile):
        talk(printable(line))
    return 0


SUBCOMMANDS = {
    "pull": Subcommand("Have a registry's image in the store", _pull_arguments, _pull),
    "push": Subcommand("Give an image to a registry", _push_arguments, _push),
    "tags": Subcommand("List the tags of a registry's repository", _tags_arguments, _tags),
    "referrers": Subcommand(
        "List what refers to a registry's image: signatures and the like", _referrers_arguments, _referrers
    ),
    "login": Subcommand("Keep a login for a registry", _login_arguments, _login),
    "logout": Subcommand("Forget a login", _logout_arguments, _logout),
}
