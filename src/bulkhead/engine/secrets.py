"""Secrets: made, replaced and removed here, and read at each start of an instance that has them; nowhere else.

The record is in the store, the value in a file of its own (`storage.secrets`). A value is on the disk before its record
is, and removed after it: whatever a crash leaves is a file without a record, which recovery removes.
"""

from __future__ import annotations

import hmac
import secrets as randomness
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from bulkhead.agent.operations import Hidden
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.errors import Conflict, NotFound, Problem, Refused
from bulkhead.isolation.base import GivenSecret
from bulkhead.model import DEFAULT_TENANT, CreateRequest, Spec
from bulkhead.secret import MOST_SIZE, Secret, SecretUse
from bulkhead.store.secrets import SecretRecords
from bulkhead.tenancy import acting
from bulkhead.tenancy.names import qualified

MOST = 256
"""Secrets of one tenant: with MOST_SIZE this bounds what they take of the host's disk."""
MOST_LABELS = 1 << 14
"""Bytes of all labels of one."""
_TRIES = 8


class SecretCatalog:
    """The secrets that have a name."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._records = SecretRecords(context.state)

    def list(self, *, tenant: str | None = None) -> Sequence[Secret]:
        """Every secret, or those of a tenant."""
        return self._records.all(tenant)

    def get(self, name: str, *, tenant: str | None = None) -> Secret:
        """One secret: of a tenant by its name, else by `Secret.key`. Raises NotFound."""
        return self._records.find(name, tenant=tenant)

    def create(
        self,
        name: str,
        value: bytes,
        *,
        labels: Mapping[str, str],
        replace: bool = False,
        tenant: str = DEFAULT_TENANT,
    ) -> Secret:
        """Keep a value under a name; with `replace` in the place of what is there, unless it is the very same.

        Instances that run keep the value that they were started with. Raises Conflict, Refused.
        """
        acting.touched("secret", name)
        if problems := _problems(value, labels):
            raise Refused(problems)
        now = time.time()
        made = Secret(
            name=name,
            tenant=tenant,
            id=randomness.token_hex(16),
            size=len(value),
            labels=dict(labels),
            created=now,
            updated=now,
        )
        with ExitStack() as undo:
            undo.callback(self._context.secrets.delete, made.id)
            self._context.secrets.write(made.id, value)
            checkpoint("secret.written")
            with self._context.state.atomic():
                before = self._replaced(made, replace=replace)
                if before and before.labels == made.labels and self._holds(before, value):
                    return before
                kept = made.model_copy(update={"created": before.created}) if before else made
                self._records.save(kept)
            undo.pop_all()
        checkpoint("secret.recorded")
        if before:
            self._context.secrets.delete(before.id)
        return kept

    def remove(self, name: str, *, tenant: str | None = None) -> None:
        """Remove a secret that no instance names. Raises NotFound, Conflict."""
        with self._context.state.atomic():
            secret = self.get(name, tenant=tenant)
            users = [one.spec.name for one in self._context.state.instances() if secret.key in keys(one.spec)]
            if users:
                raise Conflict(f"secret {name} is used by {', '.join(users)}", hint="remove these instances first")
            self._records.delete(secret.key)
        checkpoint("secret.forgotten")
        self._context.secrets.delete(secret.id)

    def _replaced(self, made: Secret, *, replace: bool) -> Secret | None:
        """In the transaction that records it: what it takes the place of."""
        own = self._records.all(made.tenant)
        before = next((one for one in own if one.name == made.name), None)
        if before and not replace:
            hint = f"--replace puts another value in its place; or: bulkhead secret rm {made.name}"
            raise Conflict(f"secret {made.name} exists", hint=hint)
        if before is None and len(own) >= MOST:
            raise Refused(f"there are {MOST} secrets, which is all that fit", hint="bulkhead secret rm")
        return before

    def _holds(self, secret: Secret, value: bytes) -> bool:
        try:
            return hmac.compare_digest(self._context.secrets.read(secret.id), value)
        except NotFound:
            return False


def keys(spec: Spec) -> set[str]:
    """Names of an instance's secrets, unique on this host."""
    return {qualified(spec.tenant, use.source) for use in spec.secrets}


def known(context: Context) -> set[str]:
    """Ids of the values that records know."""
    return {secret.id for secret in SecretRecords(context.state).all()}


def problems(context: Context, request: CreateRequest, tenant: str) -> list[Problem]:
    """What stands in the way of a request's secrets: one that is not there, two in one place, more than fit."""
    found: list[Problem] = []
    size, targets = 0, [mount.target.rstrip("/") for mount in request.mounts]
    records = SecretRecords(context.state)
    for use in request.secrets:
        try:
            size += records.find(use.source, tenant=tenant).size
        except NotFound as error:
            found += error.problems
        if use.path.rstrip("/") in targets:
            found.append(Problem(f"something else is at {use.path} already", f"--secret {use.source},target=/PATH"))
        targets.append(use.path.rstrip("/"))
    return [*found, *_too_large(size)]


def admit(context: Context, spec: Spec) -> None:
    """In the transaction that records an instance: raise NotFound where one of its secrets has just been removed."""
    records = SecretRecords(context.state)
    for use in spec.secrets:
        records.find(use.source, tenant=spec.tenant)


def given(context: Context, spec: Spec) -> tuple[GivenSecret, ...]:
    """What an instance gets with this start: the values as they are now. Raises NotFound, Refused."""
    found = tuple(GivenSecret(use, _value(context, spec, use)) for use in spec.secrets)
    if wrong := _too_large(sum(len(one.value) for one in found)):
        raise Refused(wrong)
    return found


def explained(context: Context, spec: Spec) -> tuple[GivenSecret, ...]:
    """The same for a dry run, which reads no value: as many zeros."""
    records = SecretRecords(context.state)
    return tuple(
        GivenSecret(use, Hidden(f"secret {use.source}", bytes(records.find(use.source, tenant=spec.tenant).size)))
        for use in spec.secrets
    )


def _value(context: Context, spec: Spec, use: SecretUse) -> Hidden:
    records = SecretRecords(context.state)
    for _ in range(_TRIES):
        secret = records.find(use.source, tenant=spec.tenant)
        try:
            return Hidden(f"secret {use.source}", context.secrets.read(secret.id))
        except NotFound:
            continue  # it was replaced in between
    what = f"the value of secret {use.source} is not there"
    raise NotFound(what, hint=f"bulkhead secret create --replace {use.source} FILE")


def _problems(value: bytes, labels: Mapping[str, str]) -> list[Problem]:
    found = [] if value else [Problem("a secret of no bytes", "the file, the variable or stdin is empty")]
    if len(value) > MOST_SIZE:
        found.append(Problem(f"{len(value)} bytes are more than a secret has", f"at most {MOST_SIZE}"))
    if sum(len(key.encode()) + len(text.encode()) for key, text in labels.items()) > MOST_LABELS:
        found.append(Problem("the labels of a secret are too long", f"at most {MOST_LABELS} bytes"))
    return found


def _too_large(size: int) -> list[Problem]:
    if size <= MOST_SIZE:
        return []
    what = f"the secrets of an instance have at most {MOST_SIZE} bytes together, these have {size}"
    return [Problem(what, "put large files that are no secret into the image or a volume")]
