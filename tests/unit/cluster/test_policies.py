"""What each policy prefers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from bulkhead.cluster.placing import place
from bulkhead.cluster.policies import BONUS, POLICIES, score
from bulkhead.cluster.snapshot import Term
from tests.unit.cluster.fleets import GIB, fleet, host, onto, placed, wanted


def test_pack_wakes_no_host_while_one_that_is_awake_has_room() -> None:
    views = fleet(host(1), host(2, placed("a")), host(3, placed("b", memory=32 * GIB)))
    ranking = place(views, wanted(), "pack").ranking
    assert [each.name for each in ranking] == ["h3", "h2", "h1"]


def test_spread_takes_the_host_whose_scarcest_resource_is_used_least() -> None:
    views = fleet(host(1, placed("a", memory=32 * GIB, cpu=0, disk=0)), host(2, placed("b", cpu=20_000_000)), host(3))
    assert [each.name for each in place(views, wanted(), "spread").ranking] == ["h3", "h2", "h1"]


def test_balance_puts_what_takes_memory_where_memory_is_left_over() -> None:
    of_cpu = host(1, placed("a", memory=GIB, cpu=24_000_000, disk=500 * GIB))
    of_memory = host(2, placed("b", memory=32 * GIB, cpu=1_000_000, disk=500 * GIB))
    hungry = wanted(memory=16 * GIB, cpu=500_000)
    assert place(fleet(of_cpu, of_memory), hungry, "balance").require().name == "h1"
    assert place(fleet(of_cpu, of_memory), wanted(memory=GIB, cpu=12_000_000), "balance").require().name == "h2"


def test_an_image_that_is_there_decides_between_like_hosts() -> None:
    it = wanted(image="sha256:1")
    for policy in POLICIES:
        views = fleet(host(1), host(2, images=frozenset({"sha256:1"})))
        assert place(views, it, policy).require().name == "h2"
        assert score(views.hosts[1], it, policy) - score(views.hosts[0], it, policy) == BONUS


def test_soft_terms_move_the_choice_by_their_weight() -> None:
    views = fleet(host(1, placed("db", memory=8 * GIB)), host(2))
    assert place(views, wanted(), "spread").require().name == "h2"
    near = Term("db", hard=False)
    assert place(views, wanted(terms=(near,)), "spread").require().name == "h1"
    assert place(views, wanted(terms=(replace(near, weight=1),)), "spread").require().name == "h2"
    assert place(views, wanted(terms=(replace(near, away=True),)), "pack").require().name == "h1", "no host is woken"


def test_many_who_decide_at_once_do_not_all_choose_the_same_of_like_hosts() -> None:
    views = fleet(*(host(number) for number in range(1, 9)))
    chosen = Counter(place(views, wanted(f"n{number}"), "spread").require().name for number in range(64))
    assert len(chosen) == 8


def test_no_host_is_over_its_capacity_when_nothing_more_fits() -> None:
    for policy in POLICIES:
        views, count = fleet(host(1), host(2)), 0
        while (decision := place(views, wanted(f"n{count}", memory=5 * GIB), policy)).chosen:
            views, count = views.having(onto(views.host(decision.chosen.id), decision.wanted)), count + 1
        assert count == 24
        assert all(min(view.free.as_dict().values()) >= 0 for view in views.hosts)
