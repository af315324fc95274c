"""A host that says again and again that it lives: whatever goes wrong once, it goes on."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.member import Member
from bulkhead.errors import Unavailable


@pytest.mark.parametrize(
    "error", [Unavailable("etcd is away"), ValueError("a record that nobody foresaw"), KeyError(1)]
)
def test_one_error_is_not_the_last_word(error: Exception) -> None:
    stop, looked = threading.Event(), list[int]()

    def renew(*_: Any) -> None:
        looked.append(len(looked))
        if len(looked) == 3:
            stop.set()
        raise error

    host = SimpleNamespace(_stop=stop, _soon=threading.Event(), _interval=0.0, _renew=renew)
    Member._keep(cast(Member, host), cast(Opened, None))
    assert looked == [0, 1, 2]
