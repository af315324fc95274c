"""bulkhead pull: the same as bulkhead image pull"""

from __future__ import annotations

from bulkhead.cli import registry

arguments, main = registry.SUBCOMMANDS["pull"].arguments, registry.SUBCOMMANDS["pull"].main
