"""A process that makes transactions over the pages of a book in etcd, and says what it read and wrote:

python -m tests.integration.etcd.bookkeeper ENDPOINTS CLUSTER NAME SEED SECONDS

A page has two entries, "left" and "right". Each line of its output is an Entry as JSON. Times are of the monotonic
clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from bulkhead.errors import Contended, Unavailable, Undecided
from bulkhead.store import Store, Transaction
from bulkhead.store.etcd import EtcdStore
from tests.harness.linearizing import Call

PAGES, SIDES = ("p0", "p1", "p2"), ("left", "right")
Page = tuple[str | None, str | None]
EMPTY: Page = (None, None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction: what it is to have found on a page, and what it is to have left there."""

    who: str
    what: str
    page: str
    began: float
    ended: float
    """math.inf where nobody knows how it ended."""
    outcome: str
    """made, refused (nothing was changed) or undecided."""
    found: list[str | None] | None = None
    """None where it was not told."""
    wrote: str = ""

    def call(self) -> Call[Page] | None:
        """As a moment that is looked for; None of what has changed nothing."""
        if self.outcome == "refused":
            return None
        return Call(self.began, self.ended, self._step, optional=self.outcome == "undecided", words=str(self))

    def _step(self, page: Page) -> Iterable[Page]:
        if self.found is not None and tuple(self.found) != page:
            return
        yield change(self.what, page, self.wrote)


def change(what: str, page: Page, text: str) -> Page:
    """What a transaction makes of a page."""
    left, right = page
    if what == "write both":
        return text, text
    if what == "write right":
        return left, text
    if what == "insert left":
        return (text if left is None else left), right
    if what == "erase left":
        return None, right
    if what == "swap":
        return right, left
    return page


KINDS = ("write both", "write right", "insert left", "erase left", "swap", "read", "list")


def carry_out(what: str, page: str, text: str) -> Callable[[Transaction], list[str | None]]:
    """The transaction: returns what it found."""

    def body(transaction: Transaction) -> list[str | None]:
        if what == "list":
            there = dict(transaction.list("book", f"{page}/"))
            found = [there.get(f"{page}/{side}") for side in SIDES]
        else:
            found = [transaction.get("book", f"{page}/{side}") for side in SIDES]
        wanted = change(what, (found[0], found[1]), text)
        for side, old, new in zip(SIDES, found, wanted, strict=True):
            if new is None and old is not None:
                transaction.delete("book", f"{page}/{side}")
            elif new is not None and new != old:
                transaction.put("book", f"{page}/{side}", new)
        return found

    return body


def attempt(store: Store, who: str, what: str, page: str, text: str) -> Entry:
    """Make one, and say how it went."""
    began, found = time.monotonic(), None
    try:
        found = store.attempt(carry_out(what, page, text))
        outcome = "made"
    except Undecided:
        outcome = "undecided"
    except (Contended, Unavailable):
        outcome = "refused"
    ended = math.inf if outcome == "undecided" else time.monotonic()
    return Entry(who, what, page, began, ended, outcome, found, text)


def main() -> None:
    """See above."""
    endpoints, cluster, who, seed, seconds = sys.argv[1:]
    dice, store = random.Random(f"{seed} {who}"), EtcdStore(endpoints.split(","), cluster=cluster, timeout=8.0)
    deadline, number = time.monotonic() + float(seconds), 0
    while time.monotonic() < deadline:
        number += 1
        entry = attempt(store, who, dice.choice(KINDS), dice.choice(PAGES), f"{who}-{number}")
        print(json.dumps(asdict(entry)), flush=True)  # noqa: T201 - its answer
        time.sleep(dice.uniform(0.0, 0.02))
    store.close()


if __name__ == "__main__":
    main()
