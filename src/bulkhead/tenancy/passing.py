"""For whom a host of a fleet passes a request on: a header that is believed of a host alone."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from bulkhead.errors import Unauthorized
from bulkhead.tenancy.principal import Principal

HEADER = "bulkhead-principal"
_principal: TypeAdapter[Principal] = TypeAdapter(Principal)


def encode(principal: Principal) -> str:
    """Who asks, as the header carries it."""
    return _principal.dump_json(principal).decode()


def decode(text: str) -> Principal:
    """Who asks. Raises Unauthorized."""
    try:
        return _principal.validate_json(text)
    except ValidationError as error:
        raise Unauthorized(f"the header {HEADER} cannot be read: {error.error_count()} problems") from error
