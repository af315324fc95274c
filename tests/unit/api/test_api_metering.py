"""Who is told of whose use."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from bulkhead.api.usage import visible_tenant
from bulkhead.errors import BulkheadError, Forbidden, NotFound, Unauthorized
from bulkhead.tenancy.principal import ROOT, Principal
from bulkhead.tenancy.roles import Permission, Role

ACME = Principal(user="ann", role=Role.TENANT, tenant="acme")
VIEWER = Principal(user="vic", role=Role.VIEWER, tenant="acme")
OPERATOR = Principal(user="olga", role=Role.OPERATOR)
NARROW = Principal(user="bot", role=Role.TENANT, tenant="acme", scopes=frozenset({Permission.IMAGES}))


def request(principal: Principal | None) -> HTTPConnection:
    """One that somebody makes."""
    scope = {"type": "http", "headers": [], "path": "/v1/usage"}
    return HTTPConnection(scope if principal is None else {**scope, "bulkhead.principal": principal})


@pytest.mark.parametrize("who", [ACME, VIEWER])
def test_a_tenants_user_is_told_of_its_own_alone(who: Principal) -> None:
    assert visible_tenant(request(who), None) == "acme"
    assert visible_tenant(request(who), "acme") == "acme"
    for other in ("beta", "default", ""):
        with pytest.raises(NotFound):
            visible_tenant(request(who), other)


def test_operators_are_told_of_whom_they_ask_for() -> None:
    for who in (ROOT, OPERATOR):
        assert visible_tenant(request(who), None) is None
        assert visible_tenant(request(who), "beta") == "beta"


@pytest.mark.parametrize(("who", "error"), [(None, Unauthorized), (NARROW, Forbidden)])
def test_nobody_else_is_told_anything(who: Principal | None, error: type[BulkheadError]) -> None:
    with pytest.raises(error):
        visible_tenant(request(who), None)
