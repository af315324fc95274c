"""Who may say by which proxy the daemon goes to registries: where that connects to is a matter of the host."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from bulkhead.api import auth
from bulkhead.api.registries import Asked
from bulkhead.errors import Forbidden
from bulkhead.images.registry.proxies import Proxies
from bulkhead.tenancy.principal import ROOT, Principal
from bulkhead.tenancy.roles import Role

INSIDE = {"https_proxy": "http://169.254.169.254:80"}


def request_of(principal: Principal) -> Request:
    return Request({"type": "http", auth.KEY: principal})


def test_a_tenants_proxies_are_refused() -> None:
    tenant = request_of(Principal(user="eve", role=Role.TENANT, tenant="eve"))
    with pytest.raises(Forbidden):
        Asked.model_validate({"proxies": INSIDE}).access(tenant)
    assert Asked().access(tenant).proxies == Proxies()


def test_the_administrators_are_used_and_hidden() -> None:
    asked = Asked.model_validate({"proxies": {"http_proxy": "http://me:secret@p.test", "no_proxy": "x.test"}})
    assert asked.access(request_of(ROOT)).proxies == Proxies(http="http://me:secret@p.test", without="x.test")
    assert "secret" not in repr(asked)
