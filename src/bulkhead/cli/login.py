"""bulkhead login: the same as bulkhead image login"""

from __future__ import annotations

from bulkhead.cli import registry

arguments, main = registry.SUBCOMMANDS["login"].arguments, registry.SUBCOMMANDS["login"].main
