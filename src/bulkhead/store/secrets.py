"""The records of secrets over a State: all but what is in them. Each method is one transaction, or part of one."""

from __future__ import annotations

from bulkhead.errors import NotFound
from bulkhead.secret import Secret
from bulkhead.store.records import Records, near
from bulkhead.store.state import State, names_of, within

KIND = "secret"


class SecretRecords:
    """Secrets by their keys."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._secrets = Records(KIND, Secret, lambda secret: secret.key)

    def all(self, tenant: str | None = None) -> list[Secret]:
        """Every secret, or those of a tenant, by name."""
        with self._state.reading() as reader:
            return [one for one in self._secrets.all(reader) if tenant in (None, one.tenant)]

    def find(self, name: str, *, tenant: str | None = None) -> Secret:
        """One: of a tenant by its name, else by `Secret.key`. Raises NotFound with names that look alike."""
        with self._state.reading() as reader:
            record = self._secrets.get(reader, within(tenant, name))
            if record is not None:
                return record
            names = names_of([key for key, _ in reader.list(KIND)], tenant)
        raise NotFound(f"no such secret: {name}", hint=near(name, names) or "see: bulkhead secret ls")

    def save(self, secret: Secret) -> None:
        """Write a record, in place of the one with that key."""
        with self._state.atomic() as transaction:
            self._secrets.put(transaction, secret)

    def delete(self, key: str) -> None:
        """Forget one. Idempotent."""
        with self._state.atomic() as transaction:
            self._secrets.delete(transaction, key)
