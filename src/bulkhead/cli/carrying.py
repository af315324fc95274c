"""Carries out the steps of a project: side by side where nothing holds them up, each once what it waits for is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from bulkhead.cli.app import App
from bulkhead.client import Client, quote
from bulkhead.compose.steps import Existing, Step
from bulkhead.errors import BulkheadError, Conflict, NotFound, Problem, Refused, Unavailable

AT_ONCE = 8
"""Steps that are carried out at the same time."""
LOOK_SECONDS = 0.2


class Show(Protocol):
    """Shows steps as they begin and end."""

    def begin(self, step: Step) -> None:
        """It is being carried out."""

    def end(self, step: Step, error: str = "") -> None:
        """It is done, or has failed."""


class Carrier:
    """Carries steps out for one project."""

    def __init__(
        self,
        app: App,
        show: Show,
        *,
        instances: Callable[[str], Sequence[Existing]],
        prepare: Callable[[Step], Mapping[str, object]],
        stop_timeout: float | None = None,
        wait_timeout: float | None = None,
    ) -> None:
        self._app, self._show, self._instances, self._prepare = app, show, instances, prepare
        self._stop_timeout = stop_timeout
        self._deadline = None if wait_timeout is None else time.monotonic() + wait_timeout
        self._local = threading.local()
        self._clients: list[Client] = []
        self._ending = threading.Event()

    def run(self, steps: Sequence[Step]) -> None:
        """All of them. What waits for something that failed is left, all else is done; then what failed is raised."""
        done: set[str] = set()
        failed: dict[str, BulkheadError] = {}
        waiting = {step.key: step for step in steps}
        running: dict[Future[None], Step] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="step") as pool:
            try:
                while waiting or running:
                    ready = [
                        step
                        for step in waiting.values()
                        if all(self._past(key, done, waiting, running) for key in step.after)
                    ]
                    for step in ready:
                        del waiting[step.key]
                        running[pool.submit(self._carry, step)] = step
                    if not running:
                        break
                    ended, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                    for future in ended:
                        step = running.pop(future)
                        self._note(step, future, done, failed, waiting)
            except BaseException:
                self._ending.set()
                raise
            finally:
                self._close()
        if failed:
            _raise(list(failed.values()))

    def _past(
        self, key: str, done: set[str], waiting: Mapping[str, Step], running: Mapping[Future[None], Step]
    ) -> bool:
        """Whether a step is over; one that was never wanted holds nobody up."""
        return key in done or not (key in waiting or any(step.key == key for step in running.values()))

    def _note(
        self,
        step: Step,
        future: Future[None],
        done: set[str],
        failed: dict[str, BulkheadError],
        waiting: dict[str, Step],
    ) -> None:
        error = future.exception()
        if error is not None and not isinstance(error, BulkheadError):
            raise error
        if error is None or step.tolerated:
            done.add(step.key)
            return
        failed[step.key] = error
        lost = {step.key}
        while more := {each.key for each in waiting.values() if lost & set(each.after)}:
            lost |= more
            for key in more:
                del waiting[key]

    def _carry(self, step: Step) -> None:
        if self._ending.is_set():
            return
        self._show.begin(step)
        try:
            _VERBS[step.verb](self, step)
        except BulkheadError as error:
            self._show.end(step, error.what)
            raise
        self._show.end(step)

    # --- the verbs

    def _call(self, method: str, path: str, *, query: Any = None, body: object = None) -> Any:
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._app.another_client()
            self._clients.append(client)
        return client.call(method, path, query=query, body=body)

    def _close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _make(self, step: Step) -> None:
        try:
            self._call("POST", f"/v1/{step.verb}s", body=dict(step.request))
        except Conflict:
            self._call("GET", f"/v1/{step.verb}s/{quote(step.subject)}")  # it has been made meanwhile

    def _create(self, step: Step) -> None:
        self._call("POST", "/v1/instances", body=self._prepare(step))

    def _start(self, step: Step) -> None:
        self._call("POST", f"/v1/instances/{quote(step.subject)}/start")

    def _stop(self, step: Step) -> None:
        try:
            self._call("POST", f"/v1/instances/{quote(step.subject)}/stop", body={"timeout": self._stop_timeout})
        except NotFound:
            return

    def _remove(self, step: Step) -> None:
        try:
            self._call("DELETE", f"/v1/instances/{quote(step.subject)}", query={"force": True})
        except NotFound:
            return

    def _drop(self, step: Step) -> None:
        try:
            self._call("DELETE", f"/v1/{step.verb.removeprefix('drop-')}s/{quote(step.subject)}")
        except NotFound:
            return

    def _wait(self, step: Step) -> None:
        for each in self._instances(step.service):
            self._wait_for(step, each)

    def _wait_for(self, step: Step, each: Existing) -> None:
        while not self._ending.is_set():
            record = self._call("GET", f"/v1/instances/{each.id}")
            state, health, end = record["state"], record["health"], record["exit"]
            if step.verb == "completed":
                if state == "exited":
                    if end and end["code"] == 0:
                        return
                    raise Refused(f"{each.name} ended with {end['code'] if end else 'no exit code'}", hint=_log(each))
            elif state == "exited":
                code = f" with {end['code']}" if end else ""
                raise Refused(f"{each.name} has ended{code} and not become {step.verb}", hint=_log(each))
            elif health == "unhealthy" and step.verb == "healthy":
                raise Refused(f"{each.name} is unhealthy", hint=_log(each))
            elif state == "running" and (step.verb == "running" or health == "healthy"):
                return
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise Unavailable(f"{each.name} has not become {step.verb} in time", hint=_log(each))
            time.sleep(LOOK_SECONDS)


_VERBS: dict[str, Callable[[Carrier, Step], None]] = {
    "network": Carrier._make,
    "volume": Carrier._make,
    "create": Carrier._create,
    "start": Carrier._start,
    "stop": Carrier._stop,
    "remove": Carrier._remove,
    "healthy": Carrier._wait,
    "running": Carrier._wait,
    "completed": Carrier._wait,
    "drop-network": Carrier._drop,
    "drop-secret": Carrier._drop,
    "drop-volume": Carrier._drop,
}


def _log(each: Existing) -> str:
    return f"bulkhead logs {each.name}"


def _raise(errors: list[BulkheadError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    problems: list[Problem] = [problem for error in errors for problem in error.problems]
    raise Refused(list(dict.fromkeys(problems)))
