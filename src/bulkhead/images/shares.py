"""What imports under way take: bounded before it is written, by what their tenant may have and what the host has.

In memory alone: an import does not outlive the process that carries it out, and what it has written goes with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bulkhead.errors import Refused
from bulkhead.quantities import format_size

Left = Callable[[], int | None]
"""Bytes that a tenant's images may grow by, of those that are there; None: as many as there is room for."""
STEP: Final = 1 << 20
"""Bytes after which what grows is judged again."""
HINT = "remove some of the tenant's images, or ask the operator for more; nothing of this one is kept"


class Shares:
    """All imports under way of one store. Safe for threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[int, Share] = {}
        self.judge: Callable[[int], None] = lambda _: None
        """Raises NoRoom where the host has no room for so many bytes, which are among `coming` already."""

    def coming(self) -> int:
        """Bytes that are known to come, or have come, of imports that are not through."""
        with self._guard:
            return sum(share.new for share in self._open.values())

    @contextmanager
    def begin(self, tenant: str, left: Left, settle: Callable[[], None] = lambda: None) -> Iterator[Share]:
        """One import's share while it is under way. `settle`: what broken imports have left makes room for it."""
        share = Share(self, tenant, left, settle)
        with self._guard:
            self._open[id(share)] = share
        try:
            yield share
        finally:
            self.end(share)

    def end(self, share: Share) -> None:
        """Its image is in the store, and counted there. Idempotent."""
        with self._guard:
            self._open.pop(id(share), None)

    def of(self, tenant: str) -> int:
        """Bytes of images on their way to a tenant."""
        with self._guard:
            return sum(share.image for share in self._open.values() if share.tenant == tenant)


class Share:
    """What one import takes. `image`: bytes that its images will count; `new`: of them, what the store lacks."""

    def __init__(self, shares: Shares, tenant: str, left: Left, settle: Callable[[], None]) -> None:
        self._shares, self._left, self.settle = shares, left, settle
        self.tenant = tenant
        self.image = self.new = 0
        self._judged = 0

    def expect(self, image: int, *, new: int) -> None:
        """Before any of it comes: it will be at least so much. Raises Refused, NoRoom; nothing is reserved then."""
        before = self.image, self.new
        self.image, self.new = max(self.image, image), max(self.new, new)
        try:
            self._judge()
            self._shares.judge(new)
        except Refused:
            self.image, self.new = before
            raise

    def grew(self, size: int, *, last: bool = False) -> None:
        """So much has come by now. Raises Refused where that is more than the tenant may have; `last`: it is all."""
        self.image, self.new = max(self.image, size), max(self.new, size)
        if last or self.image - self._judged >= STEP:
            self._judge()
            self.settle()

    def end(self) -> None:
        """It is in the store."""
        self._shares.end(self)

    def _judge(self) -> None:
        self._judged = self.image
        left = self._left()
        if left is not None and (wanted := self._shares.of(self.tenant)) > left:
            may = format_size(max(0, left))
            raise Refused(
                f"the images of tenant {self.tenant} may grow by {may}, and {format_size(wanted)} would come", hint=HINT
            )
