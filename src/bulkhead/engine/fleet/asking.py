"""What a host asks another one about an instance that is to be moved there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from pydantic import ValidationError

from bulkhead.engine.fleet.parcels import Sender
from bulkhead.errors import Unavailable
from bulkhead.fleet import Host
from bulkhead.host import peers
from bulkhead.host.pipes import Pipe, Rate
from bulkhead.isolation.migration import To
from bulkhead.model import Model
from bulkhead.moves import Held, Inquiry, Judgement, Receipt, Settled

PATH, REPLICAS = "/v1/fleet/arrivals", "/v1/fleet/replicas"
PADDING = 8 << 20
"""Bytes by which the way is measured."""
JUDGE_SECONDS, PREPARE_SECONDS, SETTLE_SECONDS = 60.0, 900.0, 180.0
SEND_SECONDS, SYNC_SECONDS = 30.0, 900.0
"""In which a portion must go, and in which all that has come must be on the target's disk."""
_PORTION = bytes(1 << 18)
Said = TypeVar("Said", bound=Model)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host. Each call raises its error as it tells it, Unavailable where it does not answer."""

    host: Host
    context: ssl.SSLContext

    def _read(self, model: type[Said], answer: object) -> Said:
        try:
            return model.model_validate(answer)
        except ValidationError as error:
            what = f"host {self.host.name} does not answer as a daemon does: {error.error_count()} problems"
            raise Unavailable(what, hint="see its version: bulkhead host ls") from error

    def judge(self, inquiry: Inquiry) -> Judgement:
        """Everything that stands in the way there; nothing is changed."""
        return self._ask(inquiry.model_copy(update={"padding": PADDING}), JUDGE_SECONDS)

    def prepare(self, inquiry: Inquiry) -> Judgement:
        """Let it have the image, and the kernel of a machine. Raises what it still objects to."""
        return self._ask(inquiry.model_copy(update={"fetch": True}), PREPARE_SECONDS)

    def _ask(self, inquiry: Inquiry, timeout: float) -> Judgement:
        def body() -> Iterator[bytes]:
            yield inquiry.model_dump_json().encode() + b"\n"
            for _ in range(inquiry.padding // len(_PORTION)):
                yield _PORTION

        answer = peers.call(self.host.address, "POST", PATH, context=self.context, body=body(), timeout=timeout)
        return self._read(Judgement, answer)

    def send(self, instance_id: str, sender: Sender) -> Receipt:
        """Send a parcel. What `told` of the sender raises ends it, and is raised."""
        path = f"{PATH}/{instance_id}"
        with peers.stopping() as stoppable:
            answer = peers.call(
                self.host.address,
                "PUT",
                path,
                context=self.context,
                body=stoppable(iter(sender)),
                timeout=SEND_SECONDS,
                patience=SYNC_SECONDS,
            )
        return self._read(Receipt, answer)

    def held(self, instance_id: str) -> Held:
        """What it has of the disk of an instance. Raises Conflict where the fleet has no replica there."""
        path = f"{REPLICAS}/{instance_id}/digests"
        answer = peers.call(self.host.address, "POST", path, context=self.context, timeout=SETTLE_SECONDS)
        return self._read(Held, answer)

    def ship(self, instance_id: str, portions: Iterator[bytes]) -> Receipt:
        """Send a replica, or what has changed of it. What `portions` raises ends it, and is raised."""
        with peers.stopping() as stoppable:
            answer = peers.call(
                self.host.address,
                "PUT",
                f"{REPLICAS}/{instance_id}",
                context=self.context,
                body=stoppable(portions),
                timeout=SEND_SECONDS,
                patience=SYNC_SECONDS,
            )
        return self._read(Receipt, answer)

    def settle(self, instance_id: str, move: str) -> Settled:
        """Let it make an instance of what has arrived. Raises Conflict where that is not its own."""
        path = f"{PATH}/{instance_id}/settle?{urlencode({'move': move})}"
        answer = peers.call(self.host.address, "POST", path, context=self.context, timeout=SETTLE_SECONDS)
        return self._read(Settled, answer)

    def stream(self, instance_id: str, move: str, to: To, near: socket.socket, *, listens: bool, rate: Rate) -> Pipe:
        """What joins a socket here with a machine that waits there; to be started and closed."""
        path = f"{PATH}/{instance_id}/stream?{urlencode({'move': move, 'to': to})}"
        return Pipe(self.host.address, path, context=self.context, near=near, listens=listens, rate=rate)

    def complete(self, instance_id: str, move: str, log: Iterator[bytes]) -> Receipt:
        """Let it see that all of a machine is there, and hold it for good; with the rest of its log."""
        path = f"{PATH}/{instance_id}/rest?{urlencode({'move': move})}"
        answer = peers.call(
            self.host.address, "PUT", path, context=self.context, body=log, timeout=SEND_SECONDS, patience=SYNC_SECONDS
        )
        return self._read(Receipt, answer)
