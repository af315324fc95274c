"""Clients of a fleet that create, start, stop, move, delete and look at the same few names at once, and what they saw.

Each asks whichever host it likes. What they do follows from a seed; when it happens does not.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bulkhead.errors import BulkheadError
from bulkhead.store.etcd import EtcdStore
from bulkhead.store.fleet import FleetState
from tests.harness.daemon import Answer
from tests.harness.fleet import Fleet, Host
from tests.harness.histories import FENCED, MACHINE, Operation, Outcome, Recorder, Verb
from tests.harness.namespaces import in_network

CHANGES = (Verb.CREATE, Verb.DELETE, Verb.MOVE, Verb.STOP, Verb.START)
WEIGHTS: Mapping[Verb, int] = {
    Verb.CREATE: 5,
    Verb.DELETE: 2,
    Verb.MOVE: 5,
    Verb.STOP: 2,
    Verb.START: 2,
    Verb.LOOK: 6,
    Verb.FIND: 3,
}
PLAIN = "n"
"""How names of containers begin that wait for their host; see FENCED and MACHINE."""
WORKLOAD = ["sleep", "100000"]
SECONDS = 90.0
"""In which an answer has to come; after that nobody knows."""
_TAKEN = "is taken by another instance"
_NO_SUCH = "no such instance"


class Record:
    """The fleet's record in etcd, read by nobody's daemon."""

    def __init__(self, fleet: Fleet) -> None:
        self._network = f"/proc/{fleet.switch.pid}/ns/net"
        self._store = EtcdStore(fleet.etcd.endpoints, cluster="bulkhead", tls=fleet.etcd.tls, timeout=20.0)
        self.state = FleetState(self._store)
        self._names = {host.id: host.name for host in self.hosts()}

    def hosts(self) -> list[Any]:
        """Of the fleet."""
        return in_network(self._network, self.state.hosts)

    def find(self, name: str) -> tuple[str, str] | None:
        """Id of the instance and name of its host. Raises Unavailable."""
        place = in_network(self._network, lambda: self.state.find(name, tenant=None))
        return (place.id, self._names.get(place.host, place.host)) if place else None

    def seen(self) -> Any:
        """All of it."""
        return in_network(self._network, self.state.seen)

    def close(self) -> None:
        """Ask no more."""
        self._store.close()


class Clients:
    """So many threads on names, as many at a time as there are `kinds`. `begin`, and after a while `end`."""

    def __init__(self, fleet: Fleet, seed: int, *, clients: int = 5, kinds: str = PLAIN * 4) -> None:
        self.recorder = Recorder()
        self.failures: list[BaseException] = []
        self.record = Record(fleet)
        self._hosts = fleet.hosts
        self._names = [f"{kind}{slot}-0" for slot, kind in enumerate(kinds)]
        self.used: dict[str, None] = dict.fromkeys(self._names)
        """All names so far."""
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(f"c{number}", random.Random(seed * 1000 + number)))
            for number in range(clients)
        ]

    def begin(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def end(self) -> list[Operation]:
        """Let each end what it does, and no more; all that they did. Raises what made one of them fail."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        return self.recorder.operations

    def ask_all(self) -> None:
        """Of each name: every host, and the record."""
        for name in self.used:
            self.perform("end", Verb.FIND, name, self._hosts[0])
            for host in self._hosts:
                self.perform("end", Verb.LOOK, name, host)

    def perform(self, client: str, verb: Verb, name: str, host: Host, target: str = "") -> Operation | None:
        """Do one thing by a host's daemon; None where nothing was sent, or where there is nothing to tell."""
        recorder = self.recorder
        draft = Operation(
            number=recorder.number(),
            client=f"{client}@{host.name}",
            verb=verb,
            name=name,
            outcome=Outcome.UNKNOWN,
            began=recorder.now(),
            ended=math.inf,
            host=target,
        )
        try:
            told = self._find(name) if verb is Verb.FIND else self._ask(host, verb, name, target)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except (OSError, http.client.HTTPException, BulkheadError) as error:
            told = {"outcome": Outcome.UNKNOWN, "why": f"{type(error).__name__}: {error}"}
        ended = math.inf if told["outcome"] is Outcome.UNKNOWN else recorder.now()
        if told["outcome"] is Outcome.UNKNOWN and verb not in CHANGES:
            return None
        return recorder.add(replace(draft, ended=ended, **told))

    # --- inside

    def _live(self, client: str, dice: random.Random) -> None:
        try:
            while not self._stop.is_set():
                slot = dice.randrange(len(self._names))
                (verb,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
                host, other = dice.choice(self._hosts), dice.choice(self._hosts).name
                target = other if verb is Verb.MOVE or (verb is Verb.CREATE and dice.random() < 0.7) else ""
                done = self.perform(client, verb, self._names[slot], host, target)
                if done and done.outcome is Outcome.UNKNOWN and dice.random() < 0.6:
                    self._rename(slot, done.name)
                self._stop.wait(dice.uniform(0.0, 0.3))
        except BaseException as error:
            self.failures.append(error)

    def _rename(self, slot: int, old: str) -> None:
        """What is not known adds up: go on with another name."""
        with self._guard:
            if self._names[slot] == old:
                self._names[slot] = f"{old.partition('-')[0]}-{int(old.partition('-')[2]) + 1}"
                self.used[self._names[slot]] = None

    def _find(self, name: str) -> dict[str, Any]:
        found = self.record.find(name)
        if found is None:
            return {"outcome": Outcome.MISSING}
        return {"outcome": Outcome.OK, "id": found[0], "host": found[1]}

    def _ask(self, host: Host, verb: Verb, name: str, target: str) -> dict[str, Any]:
        method, path, body = _request(verb, name, target)
        answer = host.daemon.api(method, path, body, timeout=SECONDS)
        if verb is Verb.MOVE and answer.status == 200:
            return _moved(answer)
        return _told(answer.status, answer.body)


def _request(verb: Verb, name: str, target: str) -> tuple[str, str, object]:
    path = f"/v1/instances/{name}"
    if verb is Verb.CREATE:
        plan = {"memory": 64 << 20, "cpus": 1.0, "disk": 32 << 20}
        body: dict[str, Any] = {"image": "box", "name": name, "command": WORKLOAD, "plan": plan, "stop_timeout": 0.0}
        if name.startswith(MACHINE):
            body |= {"isolation": "vm", "network": "none", "plan": {**plan, "memory": 96 << 20}}
        if name.startswith(FENCED):
            body["where"] = {"on_host_loss": "recreate"}
        return "POST", "/v1/instances?start=true" + (f"&host={target}" if target else ""), body
    if verb is Verb.DELETE:
        return "DELETE", f"{path}?force=true", None
    if verb is Verb.MOVE:
        return "POST", f"{path}/move", {"host": target}
    if verb is Verb.STOP:
        return "POST", f"{path}/stop", {"timeout": 0.0}
    if verb is Verb.START:
        return "POST", f"{path}/start", None
    return "GET", path, None


def _told(status: int, body: Any) -> dict[str, Any]:
    """An answer as an outcome. 4xx says that nothing was changed; 5xx says nothing of that."""
    document = body if isinstance(body, dict) else {}
    if status < 300:
        instance_id = document.get("id") or document.get("spec", {}).get("id", "")
        return {"outcome": Outcome.OK, "id": instance_id, "state": document.get("state", "")}
    why = str(document.get("detail", body))
    if status == 404 and _NO_SUCH in why:
        return {"outcome": Outcome.MISSING, "why": why}
    if status == 409 and _TAKEN in why:
        return {"outcome": Outcome.TAKEN, "why": why}
    return {"outcome": Outcome.FAILED if status in (409, 422) else Outcome.UNKNOWN, "why": f"{status} {why}"}


def _moved(answer: Answer) -> dict[str, Any]:
    """The last line says what became of it; without one nobody knows."""
    last: dict[str, Any] = {}
    with suppress(ValueError, IndexError):
        last = json.loads(str(answer.body).strip().splitlines()[-1])
    if "problem" in last:
        return _told(last["problem"]["status"], last["problem"])
    if "result" not in last:
        return {"outcome": Outcome.UNKNOWN, "why": "its answer has no end"}
    moved = last["result"]
    why = "; ".join(moved["dropped"])
    state = "" if "does not say yet" in why else moved["instance"]["state"]
    return {"outcome": Outcome.OK, "id": moved["instance"]["spec"]["id"], "state": state, "why": why}


def believed(operations: Iterable[Operation], cut: Iterable[tuple[str, float, float]]) -> list[Operation]:
    """Without looks by a daemon that was cut off from the fleet: it answers by its own store, as it has to."""
    spans = list(cut)

    def is_cut(operation: Operation) -> bool:
        host = operation.client.partition("@")[2]
        return any(
            host == name and operation.began <= until and operation.ended >= since for name, since, until in spans
        )

    return [each for each in operations if each.verb is not Verb.LOOK or not is_cut(each)]
