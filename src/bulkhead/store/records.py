"""Typed collections over the store: one model, one kind, one key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from bulkhead.errors import HostError
from bulkhead.store.base import Reader, Transaction

Record = TypeVar("Record", bound=BaseModel)


class Records(Generic[Record]):
    """All records of one kind, as frozen models.

    What was parsed is kept beside the text it was parsed from and used only while the store still holds that very
    text: reading again costs a lookup, and nothing here can be stale.
    """

    def __init__(self, kind: str, model: type[Record], key: Callable[[Record], str]) -> None:
        self.kind = kind
        self._model = model
        self._key = key
        self._parsed: dict[str, tuple[str, Record]] = {}

    def get(self, reader: Reader, key: str) -> Record | None:
        """The record under `key`, None where there is none. Raises HostError where it cannot be read."""
        text = reader.get(self.kind, key)
        if text is None:
            self._parsed.pop(key, None)
            return None
        return self._parse(key, text)

    def all(self, reader: Reader) -> list[Record]:
        """Every record, ordered by key."""
        return [self._parse(key, text) for key, text in reader.list(self.kind)]

    def put(self, transaction: Transaction, record: Record) -> None:
        """Write a record, in place of the one that is there."""
        key, text = self._key(record), record.model_dump_json()
        transaction.put(self.kind, key, text)
        self._parsed[key] = (text, record)

    def insert(self, transaction: Transaction, record: Record) -> bool:
        """Write a record; False, and nothing written, where its key is taken."""
        key, text = self._key(record), record.model_dump_json()
        inserted = transaction.insert(self.kind, key, text)
        if inserted:
            self._parsed[key] = (text, record)
        return inserted

    def delete(self, transaction: Transaction, key: str) -> bool:
        """Remove a record; False where there was none."""
        self._parsed.pop(key, None)
        return transaction.delete(self.kind, key)

    def _parse(self, key: str, text: str) -> Record:
        known = self._parsed.get(key)
        if known and known[0] == text:
            return known[1]
        record = self.read(key, text)
        self._parsed[key] = (text, record)
        return record

    def read(self, key: str, text: str) -> Record:
        """The record that a text is, of which nothing is kept here. Raises HostError where it cannot be read."""
        try:
            return self._model.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise HostError(
                f"the {self.kind} record {key} in the state cannot be read: {where}: {first['msg']}",
                hint="a newer Bulkhead may have written it; install that one",
            ) from error


def near(asked: str, names: Iterable[str]) -> str:
    """A hint that lists names which look like what was asked for; "" where none does."""
    found = get_close_matches(asked, list(names), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(found)}?" if found else ""
