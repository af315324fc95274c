"""Users and tokens: who signs in, and as what."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bulkhead.errors import Forbidden, NotFound, Refused, Unauthorized
from bulkhead.store.access import Access, Trace
from bulkhead.tenancy import acting, tokens
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.records import Token, User
from bulkhead.tenancy.roles import PERMISSIONS, Permission, Role

NOT_GOOD = "this token is not good: it is unknown, was removed, or has expired"
"""One answer to all, so that nobody learns which ids there are."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token when it is made: the only time that all of it is seen."""

    id: str
    token: str
    user: str
    expires: float | None


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token in a list."""

    id: str
    user: str
    label: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None
    expired: bool


class Users:
    """The users of this host, and their tokens."""

    def __init__(self, access: Access) -> None:
        self._access = access

    # --- signing in

    def authenticate(self, text: str, *, source: str) -> Principal:
        """Who shows this token. Raises Unauthorized, always with the same words."""
        presented = tokens.parse(text)
        found = self._access.find_token(presented.id) if presented else None
        kept = found[0].secret_hash if found else tokens.NOTHING
        good = presented is not None and tokens.matches(presented, kept)
        if not (good and found) or (found[0].expires is not None and found[0].expires <= time.time()):
            raise Unauthorized(NOT_GOOD, hint="ask for another: bulkhead token create")
        token, user = found
        return Principal(user.name, user.role, user.tenant, token_id=token.id, scopes=token.scopes, source=source)

    def by_certificate(self, name: str, *, source: str) -> Principal:
        """Who a verified client certificate with this common name is. Raises Unauthorized."""
        user = self._access.find_user(name)
        if user is None:
            raise Unauthorized(f"there is no user {name[:64]!r}, whom the certificate names")
        return Principal(user.name, user.role, user.tenant, source=source)

    # --- users

    def list(self) -> Sequence[User]:
        """Every user."""
        return self._access.users()

    def create(self, name: str, *, role: Role, tenant: str | None) -> User:
        """Make a user. Raises Refused, Conflict, NotFound."""
        acting.touched("user", name)
        try:
            user = User(name=name, role=role, tenant=tenant, created=time.time())
        except ValueError as error:
            raise Refused(_words(error), hint="see docs/reference/access.md") from None
        self._access.create_user(user)
        return user

    def remove(self, name: str) -> None:
        """Forget a user with all tokens: none of them is good from here on."""
        acting.touched("user", name)
        self._access.user(name)
        self._access.delete_user(name)

    # --- tokens

    def tokens(self, asker: Principal) -> Sequence[TokenLine]:
        """The asker's tokens; an administrator sees everybody's."""
        own = None if asker.may(Permission.TENANTS) else asker.user
        now = time.time()
        return [
            TokenLine(
                token.id,
                token.user,
                token.label,
                tuple(sorted(token.scopes)),
                token.created,
                token.expires,
                token.expires is not None and token.expires <= now,
            )
            for token in self._access.tokens(own)
        ]

    def create_token(
        self, asker: Principal, *, user: str | None, scopes: Collection[Permission], expires: float | None, label: str
    ) -> NewToken:
        """Make a token for the asker, or, by an administrator, for anybody. `expires`: seconds since the epoch.

        It may never do more than the token that it is made with.
        """
        whose = user or asker.user
        if whose != asker.user and not asker.may(Permission.TENANTS):
            raise Forbidden(f"{asker.user} may make tokens for {asker.user} alone")
        found = self._access.find_user(whose)
        if found is None:
            hint = "make a user first: bulkhead user create" if whose == asker.user else "see: bulkhead user ls"
            raise NotFound(f"no such user: {whose}", hint=hint)
        given = frozenset(scopes)
        if over := given - PERMISSIONS[found.role]:
            what = f"role {found.role} has no {', '.join(sorted(over))}, so a token of it cannot either"
            raise Refused(what, hint=f"of {', '.join(sorted(PERMISSIONS[found.role]))}")
        if asker.scopes and whose == asker.user:
            if given - asker.scopes:
                raise Forbidden("a token can be limited to no more than the token that it is made with")
            given = given or asker.scopes
        if expires is not None and expires <= time.time():
            raise Refused("the token would have expired already", hint="such as --expires 30d")
        identifier, text, kept = tokens.make()
        token = Token(
            id=identifier,
            user=whose,
            secret_hash=kept,
            scopes=given,
            label=label,
            created=time.time(),
            expires=expires,
        )
        self._access.create_token(token)
        acting.touched("token", identifier)
        return NewToken(identifier, text, whose, expires)

    def remove_token(self, asker: Principal, identifier: str) -> None:
        """Make a token good for nothing. Another user's is as if it were not there."""
        token = self._access.token(identifier)
        if token.user != asker.user and not asker.may(Permission.TENANTS):
            raise NotFound(f"no such token: {identifier}", hint="see: bulkhead token ls")
        acting.touched("token", identifier)
        self._access.delete_token(identifier)

    # --- the trail

    def trail(self, asker: Principal, *, most: int, user: str | None, since: float) -> Sequence[Trace]:
        """Who did what, the oldest first: all of it for those who see all, a tenant's users' own else."""

        def keep(trace: Trace) -> bool:
            mine = asker.tenant is None or trace.tenant == asker.tenant
            return mine and trace.when >= since and user in (None, trace.user)

        return self._access.trail(keep=keep, most=most)


def _words(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    found = errors()[0] if callable(errors) else None
    return str(found["msg"]).removeprefix("Value error, ") if found else str(error)
