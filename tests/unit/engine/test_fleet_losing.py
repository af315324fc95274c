"""What is said of an instance that finds no place once its host is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from bulkhead.cluster.rules import Rule
from bulkhead.engine.fleet.losing import refused


def test_a_tenant_is_not_told_what_is_sold_on_which_host() -> None:
    example = SimpleNamespace(host="alpha", reasons=[SimpleNamespace(what="memory: 3G of 4G are sold")])
    decision = cast(Any, SimpleNamespace(counts={Rule.MEMORY: 2}, examples={Rule.MEMORY: example}))
    assert refused(decision) == "2 of 2 hosts: not enough memory left, such as alpha: memory: 3G of 4G are sold"
    assert refused(decision, examples=False) == "2 of 2 hosts: not enough memory left"
