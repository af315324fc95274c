"""Lists of files as a server's find would give them."""

from __future__ import annotations

from bulkhead.servers.listing import Entry


def entry(kind: str = "f", *, size: int = 0, uid: int = 0, target: bytes = b"", times: str = "1 1 1") -> Entry:
    """One file."""
    return Entry(kind, 0o644, uid, uid, size, times, target)


def tree(*paths: str, **named: Entry) -> dict[bytes, Entry]:
    """Files by their paths; one that ends in a slash is a directory, "a -> b" a link."""
    found = dict[bytes, Entry]()
    for path in paths:
        name, arrow, target = path.partition(" -> ")
        kind = "l" if arrow else "d" if path.endswith("/") else "f"
        found[name.rstrip("/").encode()] = entry(kind, size=10 if kind == "f" else 0, target=target.encode())
    return found | {name.encode(): value for name, value in named.items()}
