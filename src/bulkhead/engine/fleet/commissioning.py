"""A move that another host carries out, for whoever asked here: an operation of that host, followed to its end.

A link that is cut for a while changes nothing: the operation goes on, and is asked for again.
"""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass

from bulkhead.errors import NotFound, NotMoved, Unavailable, from_document
from bulkhead.events import Progress, Step
from bulkhead.fleet import Host
from bulkhead.host import peers
from bulkhead.moves import Moved
from bulkhead.operation import Operation, OperationState
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import Principal

LOOK_SECONDS = 0.3
SILENT_SECONDS = 60.0
"""For which the host may not answer before it is not known what came of the move."""
CANCEL_SECONDS = 120.0
"""In which a move that is cancelled goes back."""


@dataclass(frozen=True, slots=True)
class Commission:
    """Asks one host."""

    host: Host
    tls: ssl.SSLContext
    principal: Principal

    def move(self, instance_id: str, target: str, progress: Progress) -> Moved:
        """Let an instance that is there be on another host (id). Raises as a move does; what `progress` raises leads
        back first.
        """
        begun = self._ask("POST", f"/v1/instances/{instance_id}/move?detach=true", {"host": target, "way": "any"})
        operation = Operation.model_validate(begun)
        try:
            operation = self._follow(operation, progress, until=None)
        except BrokenPipeError:
            self._cancel(operation)
            raise
        return self._result(operation, instance_id)

    def _follow(self, operation: Operation, progress: Progress, *, until: float | None) -> Operation:
        heard = time.monotonic()
        while operation.running:
            if until is not None and time.monotonic() > until:
                raise Unavailable(f"host {self.host.name} does not end a move", hint="see: bulkhead ps")
            told = operation.progress
            progress(Step(told.label, told.done, told.total, told.unit) if told else Step(f"host {self.host.name}"))
            time.sleep(LOOK_SECONDS)
            try:
                operation = Operation.model_validate(self._ask("GET", f"/v1/operations/{operation.id}"))
                heard = time.monotonic()
            except Unavailable as error:
                if time.monotonic() - heard > SILENT_SECONDS:
                    what = f"what came of the move is not known: {error.what}"
                    raise Unavailable(what, hint="its host decides it alone: see bulkhead ps") from error
        return operation

    def _cancel(self, operation: Operation) -> None:
        try:
            self._ask("DELETE", f"/v1/operations/{operation.id}")
            self._follow(operation, lambda _: None, until=time.monotonic() + CANCEL_SECONDS)
        except (Unavailable, NotFound):
            return  # it goes back, or has arrived: its host decides that alone

    def _result(self, operation: Operation, instance_id: str) -> Moved:
        if operation.state is OperationState.SUCCEEDED and operation.result is not None:
            return Moved.model_validate(operation.result)
        if operation.problem is not None:
            raise from_document(json.dumps(operation.problem).encode(), int(str(operation.problem.get("status", 500))))
        raise NotMoved(f"the move of {instance_id[:12]} was {operation.state}", hint="see: bulkhead ps")

    def _ask(self, method: str, path: str, body: object = None) -> object:
        headers = {HEADER: encode(self.principal)}
        return peers.call(self.host.address, method, path, context=self.tls, body=body, headers=headers)
