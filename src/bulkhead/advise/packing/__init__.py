"""Which items on which hosts, for the least cost: packing of vectors with several resources, over time, under rules.

    hosts, items = (HostType("small", (8, 32)),), (Item("web", (2, 4)), ...)
    answer = pack(Problem(("cpu", "memory"), hosts, items), seconds=10, seed=0)
    answer.places["web"]        # Place(type="small", number=0)
    answer.cost, answer.bound, answer.gap

`pack` tells every problem of its input at once (`errors.Refused`), checks its answer by `check`, which shares no
code with it, and gives the best answer that it has when the time is over. It is offline: which host one more instance
goes to is `cluster`'s question. docs/design/0036-packing.md says how it works and what is guaranteed.
"""

from bulkhead.advise.packing.checker import check
from bulkhead.advise.packing.model import Answer, HostType, Item, Place, Problem
from bulkhead.advise.packing.solving import pack, quick

__all__ = ["Answer", "HostType", "Item", "Place", "Problem", "check", "pack", "quick"]
