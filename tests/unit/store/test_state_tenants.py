"""One host, several tenants: the same names, and nobody finds what is another's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.errors import Conflict, NotFound
from bulkhead.model import Instance, Network, Spec, Volume
from bulkhead.store import SQLiteStore, State
from tests.unit.store.test_state import instance


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """An empty state."""
    opened = State(SQLiteStore(tmp_path / "state.db"), uid_base=1_000_000_000)
    yield opened
    opened.close()


def of(number: int, name: str, tenant: str) -> Instance:
    """An instance of a tenant."""
    made = instance(number, name)
    return made.model_copy(update={"spec": Spec.model_validate({**made.spec.model_dump(), "tenant": tenant})})


def test_each_tenant_has_its_own_names(state: State) -> None:
    ours = state.reserve_instance(of(0xABCD << 112, "web", "default"))
    acme = state.reserve_instance(of((0xABCD << 112) + 1, "web", "acme"))
    beta = state.reserve_instance(of((0xABCD << 112) + 2, "web", "beta"))
    with pytest.raises(Conflict, match="the name web is taken"):
        state.reserve_instance(of(9, "web", "acme"))
    assert state.find("web", tenant="acme") == acme
    assert state.find("web", tenant="beta") == beta
    assert state.find("web") == ours, "without a tenant it is the operator's own"
    assert state.find("acme@web") == acme, "the operator names a tenant's so"
    assert state.find("acme@web", tenant="acme") == acme
    state.remove(acme.spec.id)
    assert state.find("web", tenant="beta") == beta
    state.reserve_instance(of(9, "web", "acme"))


@pytest.mark.parametrize("tenant", ["acme", "default"])
def test_nobody_finds_what_is_anothers(state: State, tenant: str) -> None:
    beta = state.reserve_instance(of(0xABCD << 112, "secretive", "beta"))
    shown = []
    tries = (beta.spec.id, beta.spec.id[:12], "abcd", "secretive", "beta@secretive", f"{tenant}@beta@secretive")
    for reference in (*tries, "secretiv"):
        with pytest.raises(NotFound) as caught:
            state.find(reference, tenant=tenant)
        shown.append(caught.value.hint)
    assert set(shown) == {"see: bulkhead ps -a"}, "a hint tells of nothing that is another's"


def test_a_beginning_is_unique_among_ones_own(state: State) -> None:
    mine = state.reserve_instance(of(0xABCD << 112, "a", "acme"))
    state.reserve_instance(of((0xABCD << 112) + 1, "b", "beta"))
    assert state.find("abcd", tenant="acme") == mine
    with pytest.raises(Conflict):
        state.find("abcd")


def test_networks_and_volumes_are_each_tenants_own(state: State) -> None:
    for tenant in ("default", "acme"):
        number = "1" if tenant == "acme" else "2"
        state.create_network(
            Network(name="blue", tenant=tenant, id=number * 8, subnet4="10.0.0.0/24", subnet6="fd42::/64")
        )
        state.create_volume(Volume(name="data", tenant=tenant, size=1 << 30))
    with pytest.raises(Conflict):
        state.create_volume(Volume(name="data", tenant="acme", size=1 << 30))
    assert state.network("blue").tenant == "default" and state.network("blue", tenant="acme").tenant == "acme"
    assert [volume.key for volume in state.volumes()] == ["acme@data", "data"]
    assert [volume.key for volume in state.volumes("acme")] == ["acme@data"]
    for name in ("dat", "acme@data", "beta@acme@data"):
        with pytest.raises(NotFound) as caught:
            state.volume(name, tenant="beta")
        assert caught.value.hint == "see: bulkhead volume ls"
    assert state.delete_volume("acme@data")
    assert state.volume("data").tenant == "default"


def test_records_of_before_there_were_tenants_are_the_operators(state: State) -> None:
    old = instance(1, "web").model_dump(mode="json")
    del old["spec"]["tenant"]
    assert Instance.model_validate(old).spec.tenant == "default"
    assert Instance.model_validate(old).spec.key == "web"
