"""How a registry is told who asks: HTTP's basic authentication, and docker's tokens."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit
from urllib.request import parse_http_list

from bulkhead.errors import ImageError, Refused, Unavailable
from bulkhead.images.registry.wire import Answer, Wire

_TOKEN = 1 << 18


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks. What is secret is never shown."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """In the place of a password, for servers that gave one at a login."""

    def encoded(self) -> str:
        """As HTTP's basic authentication and files of logins have it."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry answers to those that it does not know."""

    scheme: str
    """"basic" or "bearer"."""
    realm: str = ""
    service: str = ""
    scope: str = ""


def challenges(answer: Answer) -> list[Challenge]:
    """Those of an answer that are known here."""
    found = []
    for value in answer.headers("WWW-Authenticate"):
        scheme, _, rest = value.partition(" ")
        pairs = (item.partition("=") for item in parse_http_list(rest))
        said = {key.strip().lower(): text.strip().strip('"') for key, _, text in pairs}
        if scheme.lower() in ("basic", "bearer"):
            known = {key: said.get(key, "") for key in ("realm", "service", "scope")}
            found.append(Challenge(scheme.lower(), **known))
    return found


class Identity:
    """What goes into the Authorization header of requests to one registry. Safe for threads."""

    def __init__(self, wire: Wire, credentials: Credentials | None) -> None:
        self._wire = wire
        self._credentials = credentials
        self._headers: dict[tuple[str, ...], str] = {}
        self._lock = threading.Lock()

    @property
    def is_known(self) -> bool:
        """Whether there are credentials at all."""
        return self._credentials is not None

    def header(self, scopes: Sequence[str]) -> str:
        """What worked before for these scopes; "" where nothing has been asked for yet."""
        return self._headers.get(tuple(scopes), "")

    def answer(self, found: Sequence[Challenge], scopes: Sequence[str]) -> str:
        """The header that answers a registry's challenges. Raises Refused where that cannot be done."""
        with self._lock:
            bearer = next((one for one in found if one.scheme == "bearer"), None)
            if bearer:
                header = "Bearer " + self._token(bearer, scopes)
            elif found and self._credentials and self._credentials.password:
                header = self._basic(self._credentials)
            else:
                raise self._unknown()
            self._headers[tuple(scopes)] = header
            return header

    def _unknown(self) -> Refused:
        host = self._wire.place.host
        if self._credentials:
            return Refused(f"{host} asks for a password, and there is a token alone", hint=f"bulkhead login {host}")
        return Refused(f"{host} wants to know who asks", hint=f"bulkhead login {host}")

    @staticmethod
    def _basic(who: Credentials) -> str:
        return "Basic " + who.encoded()

    def _token(self, challenge: Challenge, scopes: Sequence[str]) -> str:
        """Ask the token server that the registry names."""
        wire, who = self._wire, self._credentials
        realm = wire.target(wire.root + "/", challenge.realm)
        asked = list(scopes) or ([challenge.scope] if challenge.scope else [])
        pairs = [("service", challenge.service)] if challenge.service else []
        if who and who.identity_token:
            form = [*pairs, ("grant_type", "refresh_token"), ("client_id", "bulkhead")]
            form += [("refresh_token", who.identity_token), ("scope", " ".join(asked))]
            data = self._ask("POST", realm, body=urlencode(form).encode())
        else:
            pairs += [("scope", scope) for scope in asked]
            if who:
                pairs.append(("account", who.username))
            joined = realm + ("&" if urlsplit(realm).query else "?") + urlencode(pairs)
            data = self._ask("GET", joined, basic=self._basic(who) if who else "")
        try:
            said = json.loads(data)
            token = said.get("token") or said.get("access_token")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ImageError(f"the token server of {wire.place.host} answered with what is no token") from error
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ImageError(f"the token server of {wire.place.host} answered with what is no token")
        return token

    def _ask(self, method: str, url: str, *, basic: str = "", body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        host = self._wire.place.host
        with self._wire.exchange(method, url, headers=headers, authorization=basic, body=body, most=_TOKEN) as answer:
            data = answer.read(_TOKEN, f"the token of {host}")
            if answer.status in (401, 403):
                known = "does not take the name and password given" if self.is_known else "wants to know who asks"
                raise Refused(f"{host} {known}", hint=f"bulkhead login {host}")
            if answer.status != 200:
                raise Unavailable(f"the token server of {host} answered with status {answer.status}", hint="try again")
            return data
