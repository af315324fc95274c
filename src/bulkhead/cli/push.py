"""bulkhead push: the same as bulkhead image push"""

from __future__ import annotations

from bulkhead.cli import registry

arguments, main = registry.SUBCOMMANDS["push"].arguments, registry.SUBCOMMANDS["push"].main
