"""bulkhead logout: the same as bulkhead image logout"""

from __future__ import annotations

from bulkhead.cli import registry

arguments, main = registry.SUBCOMMANDS["logout"].arguments, registry.SUBCOMMANDS["logout"].main
