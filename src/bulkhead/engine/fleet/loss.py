"""The loss of hosts, as the member looks after it: a thread for each part, since a start takes its time."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from bulkhead.engine.context import Context
from bulkhead.engine.fleet.arriving import Arrivals
from bulkhead.engine.fleet.asking import Peer
from bulkhead.engine.fleet.copies import Copies
from bulkhead.engine.fleet.fencing import Fence
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.judging import Judge
from bulkhead.engine.fleet.losing import Losses
from bulkhead.engine.fleet.recovering import Recoveries
from bulkhead.engine.fleet.replicating import Replicator
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import BulkheadError, Conflict
from bulkhead.fleet import Host
from bulkhead.moves import Held, Receipt, Shipment

log = logging.getLogger(__name__)
Work = Callable[[Opened], list[str]]


class Loss:
    """What others have lost, and this host."""

    def __init__(
        self,
        context: Context,
        lifecycle: Lifecycle,
        fence: Fence,
        *,
        judge: Judge,
        arrivals: Arrivals,
        peer: Callable[[Host], Peer],
    ) -> None:
        self._context = context
        self.copies = Copies(context, judge.bring)
        context.coming.append(self.copies.amounts)
        judged = partial(judge.judge, seconds=0.0)
        self._recoveries = Recoveries(context, lifecycle, fence, arrivals, self.copies, judged)
        self._losses = Losses(context, fence, arrivals)
        self._works: dict[str, Work] = {
            "losses": self._losses.look,
            "recoveries": self._recoveries.look,
            "replicas": Replicator(context, peer).look,
            "copies": self.copies.clean,
        }
        self._threads: dict[str, threading.Thread] = {}

    def recover(self) -> None:
        """When the daemon begins: know again what is here of other hosts' disks. Idempotent."""
        self.copies.recover()
        shutil.rmtree(self._context.config.state_dir / "shipping", ignore_errors=True)

    def look(self, member: Opened) -> None:
        """Carry on with each that is not under way."""
        for name, work in self._works.items():
            running = self._threads.get(name)
            if running is None or not running.is_alive():
                thread = threading.Thread(target=_carry_out, args=(work, member), name=name, daemon=True)
                self._threads[name] = thread
                thread.start()

    def unheard(self) -> dict[str, tuple[float, bool]]:
        """See Losses.unheard."""
        return self._losses.unheard()

    def held(self, instance_id: str, *, source: str) -> Held:
        """What is here of the disk of another host's instance. Raises Conflict."""
        return self.copies.ask(self._opened(), instance_id, source=source)

    def receive(self, instance_id: str, shipment: Shipment, stream: BinaryIO, *, source: str) -> Receipt:
        """Take in what has changed of it. Raises Conflict, Refused, NoRoom."""
        return self.copies.receive(self._opened(), instance_id, shipment, stream, source=source)

    def _opened(self) -> Opened:
        member = self._context.places.member
        if member is None:
            raise Conflict("this host has just begun, or is in no fleet", hint="try again")
        return member

    def remains(self) -> set[str]:
        """Ids of instances of this host that others have taken. Raises Unavailable."""
        return self._recoveries.remains(self._opened())

    def close(self) -> None:
        """Wait for what is under way."""
        for thread in self._threads.values():
            thread.join()
        self._threads.clear()
        self._recoveries.settle()


def _carry_out(work: Work, member: Opened) -> None:
    try:
        for told in work(member):
            log.info("loss: %s", told)
    except BulkheadError as error:
        log.warning("loss: %s", error)
    except Exception:
        log.exception("loss")
