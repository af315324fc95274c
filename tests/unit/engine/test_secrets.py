"""Secrets as the engine keeps them: a value and its record agree whatever fails, and no words hold a value."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bulkhead.config import Config
from bulkhead.engine import secrets
from bulkhead.engine.secrets import SecretCatalog
from bulkhead.errors import Conflict, NotFound, Refused
from bulkhead.model import CreateRequest, Instance, Mount
from bulkhead.secret import MOST_SIZE, SecretUse
from bulkhead.storage.secrets import SecretFiles
from bulkhead.store import open_state
from tests.unit.store.test_state import instance

VALUE = b"hunter2-hunter2"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Any]:
    """The parts that secrets need."""
    state = open_state(Config(state_dir=tmp_path))
    yield SimpleNamespace(state=state, secrets=SecretFiles(tmp_path / "secrets"))
    state.close()


@pytest.fixture
def catalog(context: Any) -> SecretCatalog:
    """The secrets."""
    return SecretCatalog(context)


def files(tmp_path: Path) -> set[str]:
    """Ids of the values that are there."""
    return {each.name for each in (tmp_path / "secrets").iterdir()}


def user_of(*names: str) -> Instance:
    """An instance that has secrets."""
    made = instance(1, "web")
    uses = tuple(SecretUse(source=name) for name in names)
    return made.model_copy(update={"spec": made.spec.model_copy(update={"secrets": uses})})


def test_kept_replaced_and_removed(catalog: SecretCatalog, context: Any, tmp_path: Path) -> None:
    first = catalog.create("key", VALUE, labels={"of": "web"})
    assert context.secrets.read(first.id) == VALUE and files(tmp_path) == {first.id}
    assert catalog.list() == [first] and catalog.get("key") == first and first.size == len(VALUE)
    second = catalog.create("key", b"another", labels={}, replace=True)
    assert second.id != first.id and second.created == first.created and second.updated >= first.updated
    assert files(tmp_path) == {second.id} == secrets.known(context)
    catalog.remove("key")
    assert files(tmp_path) == set() and catalog.list() == []
    with pytest.raises(NotFound, match="no such secret: key"):
        catalog.remove("key")


def test_the_very_same_value_is_left_as_it_is(catalog: SecretCatalog, tmp_path: Path) -> None:
    first = catalog.create("key", VALUE, labels={"of": "web"})
    assert catalog.create("key", VALUE, labels={"of": "web"}, replace=True) == first
    assert files(tmp_path) == {first.id}
    assert catalog.create("key", VALUE, labels={"of": "db"}, replace=True).id != first.id


def test_a_value_that_was_lost_is_made_anew(catalog: SecretCatalog, context: Any, tmp_path: Path) -> None:
    first = catalog.create("key", VALUE, labels={})
    context.secrets.delete(first.id)
    with pytest.raises(NotFound, match="the value of secret key is not there") as caught:
        secrets.given(context, user_of("key").spec)
    assert "secret create --replace key" in caught.value.hint
    second = catalog.create("key", VALUE, labels={}, replace=True)
    assert files(tmp_path) == {second.id} and second.id != first.id


def test_refused_with_every_reason_and_nothing_is_left(catalog: SecretCatalog, tmp_path: Path) -> None:
    kept = catalog.create("key", VALUE, labels={})
    with pytest.raises(Refused) as caught:
        catalog.create("other", b"", labels={"x": "y" * secrets.MOST_LABELS})
    assert [problem.what for problem in caught.value.problems] == [
        "a secret of no bytes",
        "the labels of a secret are too long",
    ]
    with pytest.raises(Refused, match=f"{MOST_SIZE + 1} bytes are more"):
        catalog.create("other", bytes(MOST_SIZE + 1), labels={})
    with pytest.raises(Conflict, match="secret key exists"):
        catalog.create("key", b"another", labels={})
    assert files(tmp_path) == {kept.id} and catalog.list() == [kept]


def test_no_more_than_fit_of_each_tenant(
    catalog: SecretCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "MOST", 2)
    kept = {catalog.create(name, VALUE, labels={}).id for name in ("one", "two")}
    with pytest.raises(Refused, match="all that fit"):
        catalog.create("three", VALUE, labels={})
    kept.add(catalog.create("three", VALUE, labels={}, tenant="acme").id)
    kept.add(catalog.create("one", b"new", labels={}, replace=True).id)
    assert files(tmp_path) == kept & files(tmp_path) and len(files(tmp_path)) == 3


def test_a_record_that_cannot_be_written_leaves_no_value(
    catalog: SecretCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = catalog.create("key", VALUE, labels={})

    def broken(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(catalog._records, "save", broken)
    for replace in (True, False):
        with pytest.raises(OSError, match="Input/output"):
            catalog.create("key" if replace else "other", b"another", labels={}, replace=replace)
    assert files(tmp_path) == {kept.id}


def test_what_is_in_use_stays(catalog: SecretCatalog, context: Any) -> None:
    catalog.create("key", VALUE, labels={})
    catalog.create("key", VALUE, labels={}, tenant="acme")
    context.state.reserve_instance(user_of("key"))
    with pytest.raises(Conflict, match="secret key is used by web"):
        catalog.remove("key")
    catalog.remove("key", tenant="acme")
    assert secrets.given(context, user_of("key").spec)[0].value == VALUE


def test_values_are_given_as_they_are_now_and_shown_by_nothing(catalog: SecretCatalog, context: Any) -> None:
    catalog.create("key", VALUE, labels={})
    spec = user_of("key").spec
    for found in (secrets.given(context, spec), secrets.explained(context, spec)):
        assert VALUE.decode() not in f"{found!r} {found} {found[0].value!s} {found[0].value.decode()}"
        assert f"<secret key, {len(VALUE)} bytes>" in repr(found)
    assert bytes(secrets.explained(context, spec)[0].value) == bytes(len(VALUE)), "a dry run reads no value"
    catalog.create("key", b"newer", labels={}, replace=True)
    assert secrets.given(context, spec)[0].value == b"newer"
    with pytest.raises(NotFound, match="no such secret: kez"):
        secrets.admit(context, user_of("kez").spec)


def test_together_they_fit_a_start(catalog: SecretCatalog, context: Any) -> None:
    catalog.create("one", bytes(300_000), labels={})
    catalog.create("two", bytes(212_000), labels={})
    assert len(secrets.given(context, user_of("one", "two").spec)) == 2
    catalog.create("two", bytes(212_001), labels={}, replace=True)
    with pytest.raises(Refused, match="these have 512001"):
        secrets.given(context, user_of("one", "two").spec)


def test_problems_of_a_request_are_told_at_once(catalog: SecretCatalog, context: Any) -> None:
    catalog.create("key", bytes(300_000), labels={})
    request = CreateRequest(
        image="app",
        mounts=(Mount(kind="volume", source="data", target="/data/"),),
        secrets=(
            SecretUse(source="key"),
            SecretUse(source="key", target="/run/secrets/key/"),
            SecretUse(source="key", target="/data"),
            SecretUse(source="nope"),
        ),
    )
    found = [problem.what for problem in secrets.problems(context, request, "default")]
    assert found == [
        "something else is at /run/secrets/key/ already",
        "something else is at /data already",
        "no such secret: nope",
        "the secrets of an instance have at most 512000 bytes together, these have 900000",
    ]
    assert secrets.problems(context, request.model_copy(update={"secrets": ()}), "default") == []


def test_a_reader_beside_replacements_gets_one_value_or_the_other(catalog: SecretCatalog, context: Any) -> None:
    catalog.create("key", b"0" * 1000, labels={})
    spec, over = user_of("key").spec, threading.Event()
    seen: set[bytes] = set()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not over.is_set():
                seen.add(bytes(secrets.given(context, spec)[0].value))
        except BaseException as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 40):
            catalog.create("key", f"{number % 10}".encode() * 1000, labels={}, replace=True)
    finally:
        over.set()
        reader.join(60)
    assert not failed
    assert seen <= {f"{number}".encode() * 1000 for number in range(10)}
