"""What is done with memory beyond holding everybody to his plan: merged and taken back, as the configuration says."""

from __future__ import annotations

from bulkhead.engine.context import Context
from bulkhead.engine.merging import Merger
from bulkhead.engine.reclaiming import Reclaimer


class Memory:
    """Both, with one life."""

    def __init__(self, context: Context) -> None:
        self._reclaimer = Reclaimer(context)
        self.merger = Merger(context)

    def check(self) -> None:
        """Raise Refused where this host cannot do what the configuration says; nothing is changed."""
        self._reclaimer.check()
        self.merger.check()

    def begin(self) -> None:
        """Do it from now on."""
        self._reclaimer.begin()
        self.merger.begin()

    def close(self) -> None:
        """Stop; the host is left as it was found, unless what runs needs it."""
        self._reclaimer.close()
        self.merger.close()
