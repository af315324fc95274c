"""What is to be done, as data."""

from __future__ import annotations

from dataclasses import replace

from bulkhead.compose import steps
from bulkhead.compose.project import Project, chosen
from bulkhead.compose.steps import Existing, How, World
from tests.unit.compose.projects import project

TEXT = """
services:
  web: {image: w, depends_on: {app: {condition: service_healthy}}}
  app: {image: a, depends_on: [db], healthcheck: {test: x}, environment: {COLOUR: blue}}
  db: {image: d, volumes: ["data:/data"]}
volumes: {data: {}}
"""
IMAGES = {"web": "sha256:w", "app": "sha256:a", "db": "sha256:d"}


def running(made: Project, **changes: object) -> World:
    """Everything is there and runs."""
    found = []
    for name in made.services:
        for number in range(1, made.services[name].replicas + 1):
            request = steps.request_of(made, made.services[name], number, {})
            labels = request["labels"]
            assert isinstance(labels, dict)
            record = {
                "spec": {
                    "id": f"id-{name}-{number}",
                    "name": request["name"],
                    "labels": labels,
                    "image_digest": IMAGES[name],
                },
                "state": "running",
            }
            each = steps.existing(record, made.name)
            assert each
            found.append(each)
    world = World(tuple(found), frozenset({"shop_default"}), frozenset({"shop_data"}), IMAGES)
    return replace(world, **changes)  # type: ignore[arg-type]


def up(made: Project, world: World, **how: object) -> list[str]:
    """Keys of the steps."""
    return [step.key for step in steps.up(made, chosen(made, (), ()), world, How(**how))]  # type: ignore[arg-type]


def test_from_nothing() -> None:
    made = project(TEXT)
    todo = steps.up(made, chosen(made, (), ()), World(), How())
    by_key = {step.key: step.after for step in todo}
    shared = ("network shop_default", "volume shop_data")
    assert by_key == {
        "network shop_default": (),
        "volume shop_data": (),
        "create shop-db-1": shared,
        "create shop-app-1": shared,
        "create shop-web-1": shared,
        "start shop-db-1": ("create shop-db-1",),
        "start shop-app-1": ("create shop-app-1", "start shop-db-1"),
        "healthy app": ("start shop-app-1",),
        "start shop-web-1": ("create shop-web-1", "healthy app"),
    }
    assert [step.key for step in steps.images(made, chosen(made, (), ()), World(), How())] == [
        *("pull d", "pull a", "pull w"),
    ]


def test_what_is_as_it_should_be_is_left_alone() -> None:
    made = project(TEXT)
    assert up(made, running(made)) == []
    assert steps.images(made, ["web", "app", "db"], running(made), How()) == []
    assert sorted(up(made, running(made), wait=True)) == ["healthy app", "running db", "running web"]


def test_only_what_has_changed_is_made_anew() -> None:
    before, after = project(TEXT), project(TEXT.replace("blue", "red"))
    assert up(after, running(before)) == [
        "stop shop-app-1",
        "remove shop-app-1",
        "create shop-app-1",
        "start shop-app-1",
    ]
    assert up(after, running(before), recreate=False) == []
    world = running(before, images={**IMAGES, "db": "sha256:new"})
    assert up(before, world) == ["stop shop-db-1", "remove shop-db-1", "create shop-db-1", "start shop-db-1"]
    assert len([key for key in up(before, running(before), force=True) if not key.startswith("healthy")]) == 12
    linked = project(TEXT.replace("[db]", "{db: {condition: service_started, restart: true}}"))
    made_anew = up(linked, replace(running(linked), images={**IMAGES, "db": "sha256:new"}))
    assert [key for key in made_anew if key.startswith("create")] == ["create shop-db-1", "create shop-app-1"]


def test_a_changed_config_counts() -> None:
    text = "services: {web: {image: w, configs: [c]}}\nconfigs: {c: {file: c}}"
    made = project(text)
    hashes = set()
    for digest in ("1", "2"):
        labels = steps.request_of(made, made.services["web"], 1, {"config/c": digest})["labels"]
        assert isinstance(labels, dict)
        hashes.add(labels[steps.HASH])
    assert len(hashes) == 2


def test_a_broken_off_up_is_gone_on_with() -> None:
    made = project(TEXT)
    world = running(made)
    states = {"shop-web-1": "created", "shop-app-1": "deleting", "shop-db-1": "exited"}
    half = replace(world, instances=tuple(replace(each, state=states[each.name]) for each in world.instances))
    assert up(made, half) == [
        "start shop-db-1",
        "remove shop-app-1",
        "create shop-app-1",
        "start shop-app-1",
        "start shop-web-1",
        "healthy app",
    ]
    gone = replace(world, instances=world.instances[1:], networks=frozenset())
    assert up(made, gone) == ["network shop_default", "create shop-web-1", "start shop-web-1", "healthy app"]


def test_replicas_and_orphans() -> None:
    text = "services: {web: {image: w, deploy: {replicas: 3}}}"
    made = project(text)
    assert [key for key in up(made, World(images=IMAGES)) if key.startswith("create")] == [
        f"create shop-web-{number}" for number in (1, 2, 3)
    ]
    three = running(made, networks=frozenset({"shop_default"}))
    fewer = project(text.replace("3", "1"))
    assert up(fewer, three) == ["stop shop-web-2", "remove shop-web-2", "stop shop-web-3", "remove shop-web-3"]
    assert up(made, three, scale={"web": 1}) == up(fewer, three)
    other = project("services: {web: {image: w, deploy: {replicas: 3}}, db: {image: d}}")
    with_orphan = running(other)
    assert up(made, with_orphan) == []
    assert [each.name for each in steps.orphans(made, with_orphan)] == ["shop-db-1"]
    assert up(made, with_orphan, remove_orphans=True) == ["stop shop-db-1", "remove shop-db-1"]


def test_down_is_the_other_way_round() -> None:
    made = project(TEXT)
    todo = steps.down(running(made), ["shop_default", "shop_default", "gone"], ["shop_data"])
    by_key = {step.key: step.after for step in todo}
    assert by_key["stop shop-db-1"] == ("stop shop-app-1",)
    assert by_key["stop shop-app-1"] == ("stop shop-web-1",)
    removed = ("remove shop-web-1", "remove shop-app-1", "remove shop-db-1")
    assert by_key["drop-network shop_default"] == by_key["drop-volume shop_data"] == removed
    assert "drop-network gone" not in by_key
    assert all(steps.words(step) for step in todo)


def test_clones_and_others_are_not_the_projects() -> None:
    made = project(TEXT)
    labels = steps.request_of(made, made.services["db"], 1, {})["labels"]

    def found(name: str, project: str = "shop") -> Existing | None:
        spec = {"id": "1", "name": name, "labels": labels, "image_digest": "d"}
        return steps.existing({"spec": spec, "state": "running"}, project)

    assert found("shop-db-1")
    assert found("a-clone") is None
    assert found("shop-db-1", "other") is None


def test_a_dependency_that_need_not_come_true() -> None:
    text = TEXT.replace("{condition: service_healthy}", "{condition: service_healthy, required: false}")
    made = project(text)
    [gate] = [step for step in steps.up(made, chosen(made, (), ()), World(), How()) if step.verb == "healthy"]
    assert gate.tolerated
    assert gate.key == "healthy app?"
