"""The judge of histories tells those that can have been from those that cannot: it can fail."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from tests.harness.histories import Operation, Outcome, Verb, impossible, is_possible, smallest, told

A, B = "a" * 32, "b" * 32


class Story:
    """Operations, one a second, each lasting half of it unless said otherwise."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(self, verb: str, outcome: str = "ok", **fields: Any) -> Story:
        number = len(self.operations)
        ended = math.inf if outcome == "unknown" else number + 0.5
        usual: dict[str, Any] = {"client": "c", "name": "web", "began": float(number), "ended": ended}
        self.operations.append(
            Operation(number=number, verb=Verb(verb), outcome=Outcome(outcome), **{**usual, **fields})
        )
        return self

    @property
    def possible(self) -> bool:
        return is_possible(self.operations)


def created(**fields: Any) -> Story:
    return Story().add("create", id=A, host="alpha", **fields)


def test_a_life() -> None:
    story = created().add("look", id=A, state="running").add("find", id=A, host="alpha")
    story.add("create", "taken").add("stop", id=A).add("look", id=A, state="exited").add("start", id=A)
    story.add("move", id=A, host="beta", state="running").add("find", id=A, host="beta")
    story.add("look", id=A, state="running").add("delete", id=A).add("look", "missing").add("find", "missing")
    story.add("create", id=B, host="beta").add("look", id=B, state="running")
    assert story.possible


@pytest.mark.parametrize(
    ("verb", "outcome", "fields"),
    [
        ("look", "missing", {}),
        ("find", "missing", {}),
        ("look", "ok", {"id": B, "state": "running"}),
        ("look", "ok", {"id": A, "state": "exited"}),
        ("find", "ok", {"id": A, "host": "beta"}),
        ("create", "ok", {"id": B, "host": "beta"}),
        ("start", "ok", {"id": A}),
        ("stop", "missing", {}),
        ("delete", "missing", {}),
        ("delete", "ok", {"id": B}),
        ("move", "ok", {"id": A, "host": "alpha"}),
        ("move", "missing", {"host": "beta"}),
    ],
)
def test_what_cannot_be_after_a_create(verb: str, outcome: str, fields: dict[str, Any]) -> None:
    assert created().possible
    assert not created().add(verb, outcome, **fields).possible


def test_a_name_is_free_only_once_it_was_given_back() -> None:
    assert created().add("delete", id=A).add("create", "taken").possible, "it may be given back a little later"
    assert not created().add("delete", id=A).add("create", id=B).add("look", id=A, state="running").possible
    assert not Story().add("create", "taken").possible


def test_while_it_is_made_the_name_is_taken_and_nothing_is_there() -> None:
    story = created(ended=10.0).add("create", "taken").add("look", "missing").add("look", id=A, state="creating")
    assert story.possible
    story.add("look", id=A, state="running")
    assert story.possible
    assert not story.add("look", "missing").possible


def test_two_deletes_of_the_same_are_both_right_where_both_have_seen_it() -> None:
    story = created().add("delete", id=A, ended=10.0).add("delete", id=A)
    assert story.possible
    assert not created().add("delete", id=A).add("delete", id=A).possible


def test_a_delete_that_was_told_and_did_nothing() -> None:
    """As where the instance had moved away meanwhile."""
    story = created().add("move", id=A, host="beta", state="running", ended=5.0).add("delete", id=A, ended=6.0)
    assert story.possible
    assert not story.add("look", id=A, state="running", began=7.0, ended=8.0).possible


def test_while_it_moves_it_is_somewhere() -> None:
    story = created().add("move", id=A, host="beta", state="running", ended=9.0)
    story.add("look", id=A, state="exited").add("find", id=A, host="alpha").add("find", id=A, host="beta")
    assert story.possible
    assert not story.add("look", "missing").possible


def test_it_does_not_go_back_by_itself() -> None:
    story = created().add("move", "unknown", host="beta").add("find", id=A, host="alpha").add("find", id=A, host="beta")
    assert story.possible
    assert not story.add("find", id=A, host="alpha").possible


def test_a_move_that_has_failed_has_moved_nothing() -> None:
    assert created().add("move", "failed", host="beta").add("find", id=A, host="alpha").possible
    assert not created().add("move", "failed", host="beta").add("find", id=A, host="beta").possible


def test_what_was_moved_stopped_does_not_run() -> None:
    story = created().add("stop", id=A).add("move", id=A, host="beta", state="exited")
    assert story.possible
    assert not story.add("look", id=A, state="running").possible


@pytest.mark.parametrize("after", ["free", "made", "claimed for a while"])
def test_nobody_knows_what_became_of_a_create(after: str) -> None:
    story = Story().add("create", "unknown", host="alpha")
    if after == "free":
        story.add("look", "missing").add("create", id=B, host="beta")
    elif after == "made":
        story.add("look", id=A, state="running").add("create", "taken").add("look", id=A, state="running")
    else:
        story.add("create", "taken").add("look", "missing").add("create", id=B, host="beta")
    assert story.possible
    assert not story.add("look", id="c" * 32, state="running").possible


def test_an_unknown_delete_may_be_at_any_time_and_is_once() -> None:
    story = created().add("delete", "unknown").add("look", id=A, state="running").add("look", "missing")
    assert story.possible
    assert not story.add("look", id=A, state="running").possible


def test_the_fewest_that_are_impossible_are_told() -> None:
    story, dice = created(), random.Random(1)
    for _ in range(60):
        story.add(dice.choice(("look", "find")), id=A, state="running")
        if dice.random() < 0.3:
            story.add("create", "taken")
    story.add("stop", id=A)
    for _ in range(10):
        story.add("look", id=A, state="exited")
    story.add("look", id=A, state="running")
    for _ in range(30):
        story.add("look", id=A, state="exited")
    found = impossible(story.operations)
    assert len(found) == 1
    assert len(found[0]) <= 4, told(found, 1)
    assert [each.state for each in found[0] if each.verb is Verb.LOOK] == ["exited", "running"]
    assert not is_possible(found[0])
    words = told(found, 7)
    assert "seed 7" in words and "look web: ok" in words


def fenced(verb: str, outcome: str = "ok", **fields: Any) -> Story:
    """One that is made anew elsewhere by itself, and what is told of it next."""
    return created(name="r-web").add(verb, outcome, name="r-web", **fields)


def test_what_is_begun_elsewhere_by_itself_may_be_anywhere_in_any_state_but_is_there() -> None:
    for state in ("exited", "running", "recovering", "starting"):
        assert fenced("look", id=A, state=state).possible
    assert fenced("find", id=A, host="beta").possible
    assert fenced("start", id=A).possible
    assert fenced("move", id=A, host="alpha", state="running").possible
    assert not fenced("look", id=B, state="running").possible
    assert not fenced("look", "missing").possible
    assert not fenced("find", "missing").possible
    assert not fenced("create", id=B, host="beta").possible


def test_of_what_does_not_answer_nothing_is_said_but_that_it_is_there() -> None:
    for state in ("unheard", "lost"):
        assert created().add("look", id=A, state=state).possible
        assert not created().add("look", id=B, state=state).possible
    assert not created().add("delete", id=A).add("find", "missing").add("look", id=A, state="unheard").possible


def test_names_are_judged_each_by_itself() -> None:
    one, other = created(), Story().add("look", id=B, state="running", name="db")
    (found,) = impossible([*one.operations, *other.operations])
    assert [each.name for each in found] == ["db"]
    assert smallest(other.operations) == other.operations


def simulated(dice: random.Random, *, broken: bool) -> list[Operation]:
    """What clients of one instance's name see of a thing that does right, or, now and then, answers as it was before.

    Every operation takes effect at one moment within its time.
    """
    operations: list[Operation] = []
    present, host, runs, number, clock = "", "", False, 0, 0.0
    width = 0.3 if broken else 3.0  # what overlaps with everything is explained by anything
    before = ("", "", False)
    for number in range(40):
        clock += dice.random()
        began, ended = clock - dice.random() * width, clock + dice.random() * width
        verb = dice.choice(list(Verb))
        fields: dict[str, Any] = {"outcome": Outcome.OK, "id": present}
        seen = (present, host, runs)
        if verb is Verb.CREATE:
            if present:
                fields["outcome"] = Outcome.TAKEN
            else:
                present, host, runs = f"{number:032x}", dice.choice(("alpha", "beta")), True
                fields |= {"id": present, "host": host}
        elif not present:
            fields["outcome"] = Outcome.MISSING
        elif verb is Verb.DELETE:
            present, host, runs = "", "", False
        elif verb is Verb.MOVE:
            host = "beta" if host == "alpha" else "alpha"
            fields |= {"host": host, "state": "running" if runs else "exited"}
        elif verb is Verb.START and runs:
            fields["outcome"] = Outcome.FAILED
        elif verb in (Verb.START, Verb.STOP):
            runs = verb is Verb.START
        else:
            shown, at, running = before if broken else (present, host, runs)
            fields |= {"id": shown, "outcome": Outcome.OK if shown else Outcome.MISSING}
            fields |= {"host": at} if verb is Verb.FIND else {"state": "running" if running else "exited"}
        before = seen if seen != (present, host, runs) else before
        if dice.random() < 0.1:
            fields, ended = {**fields, "outcome": Outcome.UNKNOWN, "id": "", "state": ""}, math.inf
            if verb is Verb.CREATE:
                fields["host"] = ""
        operations.append(
            Operation(number=number, client="c", verb=verb, name="web", began=began, ended=ended, **fields)
        )
    return operations


def test_what_comes_of_a_thing_that_does_right_is_possible() -> None:
    for seed in range(150):
        operations = simulated(random.Random(seed), broken=False)
        assert is_possible(operations), told([smallest(operations)], seed)


def test_of_a_thing_that_answers_as_it_was_before_it_is_noticed() -> None:
    noticed = sum(not is_possible(simulated(random.Random(seed), broken=True)) for seed in range(60))
    assert noticed > 45, noticed
