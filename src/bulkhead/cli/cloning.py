"""What is said while a clone's disk is copied."""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import instance_path
from bulkhead.cli.output import printable, talk
from bulkhead.client import quote
from bulkhead.quantities import format_size

LARGE = 64 << 20
"""Bytes that may take longer than a second to copy."""


def tell_copy(app: App, request: dict[str, object]) -> None:
    """Say how much is copied before an instance of a large snapshot is there; nothing for others."""
    reference = str(request.get("snapshot") or "")
    instance, slash, name = reference.partition("/")
    if not (instance and slash and name):
        return  # the request itself is refused then
    size = app.client.call("GET", f"{instance_path(instance)}/snapshots/{quote(name)}")["size"]
    if size >= LARGE:
        talk(printable(f"copying the disk of {reference} ({format_size(size)})"))
