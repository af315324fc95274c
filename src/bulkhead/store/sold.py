"""The running sum of what is sold. All functions work inside one transaction.

What a record counts is the business of whoever hands the scale to the state. A *claim* says that an instance counts
at least so much while it changes, so that nobody else is sold what it is about to have, or may have to go back to.
"""

from __future__ import annotations

import json

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.store.base import Reader, Transaction

SOLD, CLAIM = "sold", "claim"
HOST = "host"


def total(reader: Reader) -> Amounts:
    """What is sold."""
    return _parse(reader.get(SOLD, HOST))


def add(transaction: Transaction, change: Amounts) -> None:
    """Something more is sold; what is taken back is below zero."""
    if change != NOTHING:
        transaction.put(SOLD, HOST, _text(total(transaction) + change))


def replace(transaction: Transaction, amounts: Amounts) -> bool:
    """Write the sum anew; whether it was another."""
    if total(transaction) == amounts:
        return False
    transaction.put(SOLD, HOST, _text(amounts))
    return True


def claimed(reader: Reader, instance_id: str) -> Amounts:
    """What an instance counts at least."""
    return _parse(reader.get(CLAIM, instance_id))


def claim(transaction: Transaction, instance_id: str, amounts: Amounts) -> None:
    """Let an instance count at least so much. The caller puts the difference into the sum."""
    transaction.put(CLAIM, instance_id, _text(amounts))


def drop_claim(transaction: Transaction, instance_id: str) -> None:
    """Let it count what it has. The caller puts the difference into the sum."""
    transaction.delete(CLAIM, instance_id)


def claims(reader: Reader) -> list[str]:
    """Ids of the instances that have one."""
    return [key for key, _ in reader.list(CLAIM)]


def _parse(text: str | None) -> Amounts:
    return NOTHING if text is None else Amounts(**json.loads(text))


def _text(amounts: Amounts) -> str:
    return json.dumps(amounts.as_dict())
