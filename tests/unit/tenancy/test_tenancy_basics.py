"""Names, roles, tokens and quotas: what needs no daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.errors import Forbidden
from bulkhead.model import Plan
from bulkhead.tenancy import quotas, tokens
from bulkhead.tenancy.names import DEFAULT, qualified, split
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.quotas import Quota, Used
from bulkhead.tenancy.roles import PERMISSIONS, Permission, Role, table


def test_names_of_the_default_tenant_are_as_they_are() -> None:
    assert qualified(DEFAULT, "web") == "web"
    assert qualified("acme", "web") == "acme@web"
    assert split("acme@web") == ("acme", "web")
    assert split("web") == (DEFAULT, "web")


@pytest.mark.parametrize("role", Role)
def test_a_scope_only_takes_away(role: Role) -> None:
    whole = Principal("ann", role).permissions
    for permission in Permission:
        limited = Principal("ann", role, scopes=frozenset({permission}))
        assert limited.permissions == whole & {permission}


def test_only_an_admin_manages_tenants_and_only_who_runs_the_host_touches_it() -> None:
    assert {role for role in Role if Permission.TENANTS in PERMISSIONS[role]} == {Role.ADMIN}
    assert {role for role in Role if Permission.HOST in PERMISSIONS[role]} == {Role.ADMIN, Role.OPERATOR}


def test_a_refusal_says_whether_the_role_or_the_token_lacks_it() -> None:
    with pytest.raises(Forbidden, match="role viewer has no instances"):
        Principal("ann", Role.VIEWER, "acme").require(Permission.INSTANCES)
    with pytest.raises(Forbidden, match="no scope exec"):
        Principal("ann", Role.TENANT, "acme", scopes=frozenset({Permission.READ})).require(Permission.EXEC)


def test_a_token_is_found_again_and_its_secret_is_not_kept() -> None:
    identifier, text, kept = tokens.make()
    presented = tokens.parse(text)
    assert presented and presented.id == identifier
    assert tokens.matches(presented, kept)
    assert presented.secret not in kept and presented.secret not in repr(presented)
    other = tokens.parse(tokens.make()[1])
    assert other and not tokens.matches(other, kept)
    assert not tokens.matches(presented, tokens.NOTHING)


@given(st.text(max_size=200))
def test_what_is_no_token_is_none(text: str) -> None:
    assert tokens.parse(text) is None or text.startswith("bhd_")


def test_a_quota_names_everything_that_would_be_too_much() -> None:
    quota = Quota(instances=2, memory=1 << 30, cpus=2.0)
    plan = Plan(memory=1 << 29, cpus=0.1, disk=1 << 30)
    more = quotas.of_plan(plan, outside=True, addresses=1, ports=0)
    assert quotas.problems("acme", quota, Used(instances=1, memory=1 << 29, cpus=1.9), more) == []
    found = quotas.problems("acme", quota, Used(instances=2, memory=1 << 30, cpus=1.95), more)
    assert [problem.what.split(" of ")[1].split(",")[0] for problem in found] == ["instances", "memory", "cpus"]


def test_a_smaller_plan_is_no_question_of_the_quota() -> None:
    shrunk = Used(memory=-(1 << 29))
    assert quotas.problems("acme", Quota(memory=1), Used(memory=1 << 30), shrunk) == []


def test_what_is_within_a_vm_is_paid_for_with_the_vm() -> None:
    plan = Plan(memory=1 << 29, cpus=1.0, disk=1 << 30)
    inner = quotas.of_plan(plan, outside=False, addresses=1, ports=0)
    assert (inner.memory, inner.cpus, inner.disk, inner.instances) == (0, 0.0, 1 << 30, 1)


def test_the_documented_table_is_the_one_that_holds() -> None:
    text = (Path(__file__).parents[3] / "docs/reference/access.md").read_text()
    documented = text.partition("a test compares the two -->\n")[2].partition("<!-- end -->")[0]
    assert documented == table()
