"""Walls by the rules of `run --isolation auto`, told what prices know; the model of expected loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bulkhead.advise import Workload, choose, recommending, risk, sizing
from bulkhead.advise.estate import Load
from bulkhead.advise.prices import Prices
from bulkhead.advise.recommending import Beside, Recommended
from bulkhead.errors import Refused
from bulkhead.model import Isolation
from tests.unit.advise.estates import estate, load, server

PRICES = Prices()
AROUND = Beside(10.0, 30_000.0, 2000.0, server("a").capacity)


def recommend(workload: Workload, around: Beside = AROUND, prices: Prices = PRICES) -> Recommended:
    whole = estate([server("a")], [load("w", "a", [1.0] * 24, workload=workload)])
    sized = sizing.size(whole.loads[0], None, 2.0, sizing.slots(whole), prices)
    return recommending.recommend(whole.loads[0], sized, around, prices)


@pytest.mark.parametrize(
    "workload",
    [
        Workload(trust, hostile, kernel, system)
        for trust in ("own", "partner", "public")
        for hostile in (False, True)
        for kernel in (False, True)
        for system in (False, True)
    ],
)  # type: ignore[arg-type]
def test_it_is_never_weaker_than_what_run_would_choose(workload: Workload) -> None:
    found = recommend(workload)
    order = recommending.WALLS
    assert order.index(found.level) >= order.index(choose(workload).level)
    assert found.rule == choose(replace(workload, worth_a_kernel=found.rule.number == 5))
    assert all(
        option.allowed == (order.index(option.level) >= order.index(choose(workload).level)) for option in found.options
    )
    assert found.next_best is None or (found.next_best.allowed and found.next_best.level is not found.level)


def test_a_kernel_is_recommended_where_it_spares_more_than_it_costs() -> None:
    listens = Workload("own", hostile_input=True)
    cheap = recommend(listens, replace(AROUND, breach=1000.0))
    assert cheap.level is Isolation.CONTAINER and cheap.next_best is not None and cheap.next_best.level is Isolation.VM
    dear = recommend(listens, replace(AROUND, breach=500_000.0))
    assert dear.level is Isolation.VM and dear.rule.number == 5 and "(rule 5:" in dear.reason
    # By the figures that are shown.
    options = {option.level: option for option in dear.options}
    assert options[Isolation.VM].total < options[Isolation.CONTAINER].total
    assert dear.next_best is not None and dear.next_best.level is Isolation.CONTAINER
    never = PRICES.changed([("care_vm", 1e6, "test")])
    assert recommend(listens, replace(AROUND, breach=500_000.0), never).level is Isolation.CONTAINER


def test_what_has_to_be_a_machine_has_no_next_best_but_its_own_server() -> None:
    assert recommend(Workload("own", system=True)).next_best is None


def test_the_loss_is_the_sum_that_is_written_down() -> None:
    shop: Load = load("shop", "a", [1.0] * 24, workload=Workload("own", hostile_input=True), data="personal")
    wiki: Load = load("wiki", "a", [1.0] * 24, data="internal", outage_hour=10.0)
    found = risk.of_host([(shop, Isolation.CONTAINER), (wiki, Isolation.VM)], PRICES)
    assert found.own == pytest.approx(0.006 * 300_000 + 0.001 * 20_000)
    assert found.neighbour == pytest.approx(0.006 * 0.05 * 20_000 + 0.001 * 0.005 * 300_000)
    assert found.outage == pytest.approx(0.08 * 8 * (100 + 10))
    alone = risk.of_host([(shop, None)], PRICES)
    assert alone.neighbour == 0.0 and found.total == pytest.approx(found.own + found.neighbour + found.outage)


# --- prices


def test_every_default_says_where_it_comes_from() -> None:
    for price in PRICES.values():
        assert len(price.source) > 10 and price.least <= price.value <= price.most, price.name


def test_own_prices_say_where_they_were_given(tmp_path: object) -> None:
    from bulkhead.advise import prices

    given = [*prices.parse_file('# ours\nkwh = 0.31\n"pue" = 1.2\n', "ours.toml"), prices.parse("staff=50")]
    changed = PRICES.changed(given)
    assert (
        changed.of("kwh") == 0.31 and changed["kwh"].source == "ours.toml:2" and changed["pue"].source == "ours.toml:3"
    )
    assert changed["staff"].source == "--price staff=50" and changed["rack"].source == PRICES["rack"].source


def test_prices_that_are_wrong_are_told_all_at_once() -> None:
    with pytest.raises(Refused) as caught:
        PRICES.changed([("kwhh", 1, "a"), ("pue", 0.5, "b"), ("kwh", float("nan"), "c")])
    told = [(problem.what, problem.hint) for problem in caught.value.problems]
    assert (
        told[0] == ("a: there is no price 'kwhh'", "did you mean kwh?") and "1 to 10" in told[1][0] and len(told) == 3
    )
    with pytest.raises(Refused, match="less than idle_watts"):
        PRICES.changed([("peak_watts", 50, "a")])
    from bulkhead.advise import prices

    for text in ("kwh", "kwh=much"):
        with pytest.raises(ValueError, match="is not"):
            prices.parse(text)
    with pytest.raises(Refused, match="kwh is not a number"):
        prices.parse_file('kwh = "x"', "p.toml")
    with pytest.raises(Refused, match=r"p\.toml"):
        prices.parse_file("kwh = ", "p.toml")
