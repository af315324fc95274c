"""The nouns: what is accepted, what is refused, and that nothing is lost on the way through JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bulkhead.model import CreateRequest, Exit, Isolation, Mount, Plan, PlanRequest, Spec

plans = st.builds(
    Plan,
    memory=st.integers(6 << 20, 1 << 50),
    swap=st.integers(0, 1 << 50),
    cpus=st.floats(0, 4096, exclude_min=True),
    ghz=st.none() | st.floats(0, 100, exclude_min=True),
    disk=st.integers(16 << 20, 1 << 50),
    iops=st.none() | st.integers(10, 10**9),
    disk_bps=st.none() | st.integers(1 << 16, 1 << 50),
    bandwidth=st.none() | st.integers(100_000, 10**13),
    pids=st.integers(1, 4_194_304),
)
SPEC = {
    "id": "0" * 32,
    "name": "web",
    "image": "nginx",
    "image_digest": "sha256:00",
    "isolation": "container",
    "plan": {"memory": 512 << 20, "cpus": 1, "disk": 5 << 30},
    "argv": ["nginx"],
    "hostname": "web",
    "network": "default",
    "created": 1.5,
}


@given(plans)
def test_plans_survive_json(plan: Plan) -> None:
    """To the last bit of a float."""
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@given(plans, st.sampled_from(sorted(Plan.model_fields)))
def test_plans_cannot_be_changed(plan: Plan, field: str) -> None:
    """A limit that is in force is what the record says."""
    with pytest.raises(ValidationError, match="frozen"):
        setattr(plan, field, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory", 0),
        ("memory", (6 << 20) - 1),
        ("memory", "lots"),
        ("swap", -1),
        ("cpus", 0),
        ("cpus", float("nan")),
        ("cpus", float("inf")),
        ("ghz", 0),
        ("ghz", -2.0),
        ("disk", 1),
        ("iops", 0),
        ("iops", 9),
        ("disk_bps", 1),
        ("bandwidth", 99_999),
        ("pids", 0),
        ("pids", 1.5),
        ("colour", "blue"),
    ],
)
def test_what_is_no_plan_is_refused_by_field(field: str, value: object) -> None:
    """Nothing is rounded, capped or ignored."""
    good = {"memory": 512 << 20, "cpus": 1, "disk": 5 << 30}
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate({**good, field: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


def test_all_that_is_wrong_is_told_at_once() -> None:
    """One error per field."""
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate({"memory": 1, "cpus": -1, "disk": 1, "x": 1})
    assert caught.value.error_count() == 4


@given(st.fixed_dictionaries({}, optional={name: st.integers(1, 100) for name in PlanRequest.model_fields}))
def test_plan_requests_keep_what_was_asked_for(fields: dict[str, int]) -> None:
    """And nothing that was not."""
    asked = {key: str(value) if key == "name" else value for key, value in fields.items()}
    assert PlanRequest.model_validate(asked).model_dump(exclude_none=True) == asked


def test_specs() -> None:
    """A whole one goes through JSON; ids, names and argv are checked."""
    spec = Spec.model_validate(SPEC)
    assert spec.isolation is Isolation.CONTAINER
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    wrong: list[dict[str, object]] = [
        {"id": "xyz"},
        {"name": "../etc"},
        {"argv": []},
        {"plan": None},
        {"isolation": "none"},
    ]
    for change in wrong:
        with pytest.raises(ValidationError):
            Spec.model_validate({**SPEC, **change})


@given(st.text(max_size=70))
def test_names_never_lead_out_of_a_directory(text: str) -> None:
    """They become parts of paths."""
    try:
        name = CreateRequest(image="x", name=text).name
    except ValidationError:
        return
    assert name and "/" not in name and name not in (".", "..") and "\0" not in name and "\n" not in name


@pytest.mark.parametrize("target", ["data", "", "./x"])
def test_mount_targets_are_absolute(target: str) -> None:
    """Inside the instance."""
    with pytest.raises(ValidationError):
        Mount(kind="volume", source="x", target=target)


def test_exits_are_plain_by_default() -> None:
    """No signal, no OOM, no error."""
    assert Exit(code=3).model_dump(exclude_defaults=True) == {"code": 3}
    assert not Exit(code=3).oom
