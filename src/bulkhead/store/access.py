"""Tenants, users, tokens and the trail in the store. Each method is one transaction, or part of an open one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeVar

from pydantic import BaseModel

from bulkhead.errors import Conflict, NotFound
from bulkhead.model import DEFAULT_TENANT, Plan
from bulkhead.store.base import Transaction
from bulkhead.store.records import Records, near
from bulkhead.store.state import State
from bulkhead.tenancy.records import OPERATORS, Tenant, Token, User

TRAIL = "trail"
_COUNT = "trail-count"
_CLAIM = "quota-claim"
MOST_TRAIL = 20_000
"""Entries of the trail that are kept."""
_TRIM_EVERY = 256
Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Trace:
    """One change: who did what, on which, with what result, from where. Holds no secret."""

    when: float
    user: str
    role: str
    tenant: str
    """Of the user; "" for those who see all."""
    action: str
    """Method and path."""
    targets: tuple[str, ...]
    result: str
    """"begun" while it is carried out, and for good where the daemon ended in the middle; "ok", or an error's kind."""
    source: str
    token: str = ""
    number: int = 0


class Access:
    """The records of who may do what, over a State."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ended: list[tuple[int, Trace]] = []
        self._ending, self._flushing = threading.Lock(), threading.Lock()
        self._tenants = Records("tenant", Tenant, lambda tenant: tenant.name)
        self._users = Records("user", User, lambda user: user.name)
        self._tokens = Records("token", Token, lambda token: token.id)

    # --- tenants

    def tenants(self) -> list[Tenant]:
        """Every tenant, the operator's own first."""
        return [self.tenant(DEFAULT_TENANT), *(one for one in self._all(self._tenants) if one.name != DEFAULT_TENANT)]

    def tenant(self, name: str) -> Tenant:
        """Raises NotFound."""
        if name == DEFAULT_TENANT:
            with self._state.reading() as reader:
                return self._tenants.get(reader, name) or OPERATORS
        return self._one(self._tenants, name, "tenant")

    def create_tenant(self, tenant: Tenant) -> None:
        """Raises Conflict where the name is taken."""
        if tenant.name == DEFAULT_TENANT:
            raise Conflict(f"tenant {tenant.name} is the operator's own, and always there")
        self._create(self._tenants, tenant, f"tenant {tenant.name}")

    def save_tenant(self, tenant: Tenant) -> None:
        """Write a tenant in the place of the one with that name."""
        with self._state.atomic() as transaction:
            self._tenants.put(transaction, tenant)

    def delete_tenant(self, name: str) -> None:
        """Forget a tenant. Idempotent."""
        with self._state.atomic() as transaction:
            self._tenants.delete(transaction, name)

    # --- users and tokens

    def users(self, tenant: str | None = None) -> list[User]:
        """Every user, or those of a tenant, by name."""
        return [user for user in self._all(self._users) if tenant in (None, user.tenant)]

    def user(self, name: str) -> User:
        """Raises NotFound."""
        return self._one(self._users, name, "user")

    def create_user(self, user: User) -> None:
        """Raises Conflict where the name is taken, NotFound where the tenant is not there."""
        with self._state.atomic():
            if user.tenant is not None:
                self.tenant(user.tenant)
            self._create(self._users, user, f"user {user.name}")

    def delete_user(self, name: str) -> None:
        """Forget a user with all tokens. Idempotent."""
        with self._state.atomic() as transaction:
            for token in self.tokens(name):
                self._tokens.delete(transaction, token.id)
            self._users.delete(transaction, name)

    def tokens(self, user: str | None = None) -> list[Token]:
        """Every token, or those of a user, the oldest first."""
        found = [token for token in self._all(self._tokens) if user in (None, token.user)]
        return sorted(found, key=lambda token: (token.created, token.id))

    def token(self, identifier: str) -> Token:
        """Raises NotFound."""
        return self._one(self._tokens, identifier, "token")

    def find_token(self, identifier: str) -> tuple[Token, User] | None:
        """A token with its user; None where either is gone."""
        with self._state.reading() as reader:
            token = self._tokens.get(reader, identifier)
            user = self._users.get(reader, token.user) if token else None
        return (token, user) if token and user else None

    def find_user(self, name: str) -> User | None:
        """None where there is none."""
        with self._state.reading() as reader:
            return self._users.get(reader, name)

    def create_token(self, token: Token) -> None:
        """Raises NotFound where its user is gone."""
        with self._state.atomic():
            self.user(token.user)
            self._create(self._tokens, token, f"token {token.id}")

    def delete_token(self, identifier: str) -> None:
        """Forget a token: it is good for nothing from here on. Idempotent."""
        with self._state.atomic() as transaction:
            self._tokens.delete(transaction, identifier)

    # --- claims of instances that change

    def claim(self, instance_id: str, plan: Plan) -> None:
        """An instance is about to have this plan, beside the one that it has."""
        with self._state.atomic() as transaction:
            transaction.put(_CLAIM, instance_id, plan.model_dump_json())

    def drop_claim(self, instance_id: str) -> None:
        """It has it now, or never will. Idempotent."""
        with self._state.atomic() as transaction:
            transaction.delete(_CLAIM, instance_id)

    def claims(self) -> dict[str, Plan]:
        """Plans that instances are about to have, by the instances' ids."""
        with self._state.reading() as reader:
            return {key: Plan.model_validate_json(text) for key, text in reader.list(_CLAIM)}

    def forget_claims(self) -> None:
        """After a crash, once every change that was under way is through or undone."""
        for instance_id in self.claims():
            self.drop_claim(instance_id)

    # --- the trail

    def begin_trace(self, trace: Trace) -> int:
        """Keep that something is begun; its number. The oldest are dropped where there are too many."""
        with self._writing_ends() as transaction:
            number = _next(transaction)
            transaction.put(TRAIL, _key(number), _text(trace))
        return number

    def end_trace(self, number: int, trace: Trace) -> None:
        """Keep how it ended, with whatever of the trail is written next; `number` 0: it was not begun, since nothing
        was to be changed.
        """
        with self._ending:
            self._ended.append((number, trace))

    def flush(self) -> None:
        """Write how entries have ended of which that was told since the last time."""
        if self._ended:
            with self._writing_ends():
                pass

    @contextmanager
    def _writing_ends(self) -> Iterator[Transaction]:
        """A transaction that writes these ends before anything else."""
        with self._flushing:
            with self._ending:
                ended = self._ended[:]
            with self._state.atomic() as transaction:
                for number, trace in ended:
                    transaction.put(TRAIL, _key(number or _next(transaction)), _text(trace))
                yield transaction
            with self._ending:
                del self._ended[: len(ended)]

    def trail(self, *, keep: Callable[[Trace], bool], most: int) -> Sequence[Trace]:
        """The last `most` traces that `keep` says true of, the oldest first."""
        self.flush()
        with self._state.reading() as reader:
            rows = reader.list(TRAIL)
        found: list[Trace] = []
        for key, text in reversed(rows):
            said = json.loads(text)
            trace = Trace(**{**said, "targets": tuple(said["targets"]), "number": int(key)})
            if keep(trace):
                found.append(trace)
                if len(found) == most:
                    break
        return found[::-1]

    # --- inside

    def _all(self, records: Records[Record]) -> list[Record]:
        with self._state.reading() as reader:
            return records.all(reader)

    def _one(self, records: Records[Record], key: str, kind: str) -> Record:
        with self._state.reading() as reader:
            found = records.get(reader, key)
            names = [] if found else [name for name, _ in reader.list(records.kind)]
        if found is None:
            raise NotFound(f"no such {kind}: {key}", hint=near(key, names) or f"see: bulkhead {kind} ls")
        return found

    def _create(self, records: Records[Record], record: Record, what: str) -> None:
        with self._state.atomic() as transaction:
            if not records.insert(transaction, record):
                raise Conflict(f"{what} exists", hint="choose another name")


def _key(number: int) -> str:
    return f"{number:012d}"


def _next(transaction: Transaction) -> int:
    """The number of a new entry. The oldest are dropped where there are too many."""
    number = int(transaction.get(_COUNT, "") or "0") + 1
    transaction.put(_COUNT, "", str(number))
    if number % _TRIM_EVERY == 0:
        _trim(transaction, number - MOST_TRAIL)
    return number


def _text(trace: Trace) -> str:
    said = asdict(trace)
    del said["number"]
    return json.dumps(said, separators=(",", ":"))


def _trim(transaction: Transaction, last: int) -> None:
    for key, _ in transaction.list(TRAIL):
        if int(key) > last:
            break
        transaction.delete(TRAIL, key)
