"""What is said of a clean room."""

from __future__ import annotations

from bulkhead.cli.output import printable, talk
from bulkhead.quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def describe_changes(changes: dict[str, Any]) -> str:
    """How much was changed, in words."""
    size = format_size(changes["size"])
    if changes["files"] is None:
        return f"{size} of disk used (a guest's files are its own kernel's)"
    gone = f", {changes['removed']} removed" if changes["removed"] else ""
    return f"{changes['files']} file{'' if changes['files'] == 1 else 's'} changed ({size}){gone}"


def tell(what: str) -> None:
    """Say something about the room."""
    talk(printable(f"room: {what}"))
