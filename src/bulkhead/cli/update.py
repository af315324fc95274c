"""bulkhead update"""

from __future__ import annotations

from bulkhead.cli import options, values
from bulkhead.cli.app import App
from bulkhead.cli.each import add_instances, for_each, instance_path
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """What to change, and of which ones."""
    parser.add_argument("--plan", metavar="NAME", help="another named plan")
    options.add_plan(parser)
    parser.add_argument("--restart", metavar="POLICY", help="no, on-failure[:n] or always")
    add_instances(parser)


def main(args: Namespace, app: App) -> int:
    """Change them, at once where they run."""
    problems = options.Problems("see bulkhead update --help")
    plan = options.plan(args, problems)
    if args.plan is not None:
        plan["name"] = args.plan
    body: dict[str, object] = {"plan": plan}
    if args.restart is not None:
        body["restart"] = problems.of(lambda: values.parse_restart(args.restart))
    if not plan and args.restart is None:
        problems.add("nothing to change was given")
    problems.check()
    return for_each(args.instances, lambda name: app.client.call("PATCH", instance_path(name), body=body))
