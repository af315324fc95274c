"""The images of a project: pulled, or built as `bulkhead build` builds them."""

from __future__ import annotations

import tempfile
from argparse import Namespace

from bulkhead.cli import build as build_command
from bulkhead.cli import building
from bulkhead.cli.app import App
from bulkhead.cli.context import open_context
from bulkhead.cli.output import printable, talk
from bulkhead.cli.parsing import Parser
from bulkhead.cli.registry import pull
from bulkhead.compose import steps
from bulkhead.compose.builds import Build
from bulkhead.compose.project import Project
from bulkhead.compose.services import Service
from bulkhead.compose.steps import Step


def fetch(args: Namespace, app: App, project: Project, step: Step) -> None:
    """Carry out a step of `steps.images`."""
    if step.verb == "pull":
        if not args.quiet:
            talk(f"pulling {printable(step.subject)}")
        policy, platform = step.request["policy"], step.request["platform"]
        pull(args, app, step.subject, policy=str(policy), platform=platform, quiet=args.quiet)  # type: ignore[arg-type]
        return
    service = project.services[step.service]
    assert service.build
    if not args.quiet:
        talk(f"building {step.service}")
    _build(args, app, project, service, service.build)


def _build(args: Namespace, app: App, project: Project, service: Service, asked: Build) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="Containerfile.") as inline:
        file = asked.file
        if asked.inline is not None:
            inline.write(asked.inline)
            inline.flush()
            file = inline.name
        words = [
            *("--tag", steps.image_of(project, service)),
            *(word for tag in asked.tags for word in ("--tag", tag)),
            *(("--file", file) if file else ()),
            *(word for name, value in asked.arguments.items() for word in ("--build-arg", _pair(name, value))),
            *(word for name, value in asked.labels.items() for word in ("--label", f"{name}={value}")),
            *(("--target", asked.target) if asked.target else ()),
            *(("--network", asked.network) if asked.network else ()),
            *(("--no-cache",) if asked.no_cache else ()),
            *(("--pull", "always") if asked.pull else ()),
            *(word for identifier, name in asked.secrets for word in ("--secret", _secret(project, identifier, name))),
            *(("--quiet",) if args.quiet else ()),
            asked.context,
        ]
        parser = Parser("bulkhead build")
        build_command.arguments(parser)
        parsed = parser.parse_args(words)
        for name in ("authfile", "creds", "tls_verify"):
            setattr(parsed, name, getattr(args, name))
        order = build_command.request(parsed)
        context = open_context(asked.context, parsed.file)
        order["containerfile"] = context.text
        building.build(app, order, context.chunks, parsed)


def _pair(name: str, value: str | None) -> str:
    return name if value is None else f"{name}={value}"


def _secret(project: Project, identifier: str, name: str) -> str:
    source = project.secrets.get(name)
    if source is None:
        from bulkhead.errors import Refused

        raise Refused(f"there is no secret {name!r}", hint="add it below secrets:")
    if source.kind == "external":
        from bulkhead.errors import Refused

        raise Refused(f"the secret {name!r} is the daemon's, which does not tell it: a build cannot have it")
    return f"id={identifier},{'src' if source.kind == 'file' else 'env'}={source.value}"
