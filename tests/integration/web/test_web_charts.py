"""Charts show what was before the page was opened, and what nobody has measured as a gap."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.harness.daemon import Daemon
from tests.integration.lives import until
from tests.integration.web.pages import run

DAY = 86_400
NOON = 1_796_040_000 // DAY * DAY + DAY // 2


def row(begin: int, length: int, uptime: float, **used: float) -> dict[str, float]:
    """A row of the meter's, of an instance with a disk of 1 GiB that has used half of it."""
    sold = length / 3600
    zero = dict.fromkeys(("received", "sent", "disk_read", "disk_written", "disk_reads", "disk_writes"), 0)
    rest = {"cpu_seconds": 0.0, "memory_gib_hours_used": 0.0, "disk_gib_hours_sold": sold}
    times = {"from": begin, "to": begin + length, "uptime_seconds": uptime}
    return {**zero, **rest, "disk_gib_hours_used": sold / 2, **times, **used}


def in_page(page: Page, module: str, words: str, *given: Any) -> Any:
    """What an expression over a module of the page's says."""
    return page.evaluate(
        f"""async (given) => {{
            const root = new URL(document.querySelector("script").src);
            const it = await import(new URL("{module}.js", root).href);
            return {words};
        }}""",
        list(given),
    )


def lines(page: Page, rows: list[dict[str, float]], live: list[dict[str, float]]) -> list[list[list[float]]]:
    """Parts of the line of cpu: [[[when, cores], ...], ...]."""
    words = (
        "it.joined(it.bins(given[0], given[2], 2 ** 30), given[1], (point) => point.cpu !== null)"
        ".map((line) => line.map(([when, point]) => [when - given[2], point.cpu]))"
    )
    found: list[list[list[float]]] = in_page(page, "history", words, rows, live, NOON)
    return found


def test_a_page_that_is_opened_shows_the_past_at_once(fresh: Page, browsing: tuple[Any, str], bulkhead: Daemon) -> None:
    run(bulkhead, "worker", script="while :; do :; done")
    instance = bulkhead.api("GET", "/v1/instances/worker").body

    def used() -> float:
        path = f"/v1/usage?ref={instance['spec']['id']}&from={int(instance['started']) - 60}"
        return float(bulkhead.api("GET", path).body["rows"][0]["uptime_seconds"])

    until("it has run for a while", lambda: used() > 8)
    asked: list[str] = []
    fresh.on("request", lambda request: asked.append(request.url))
    fresh.goto(f"{browsing[1]}#/instances/worker")
    plot = fresh.locator(".chart", has_text="CPU").get_by_role("img")
    expect(plot).to_have_attribute("aria-label", re.compile(r"^CPU over the last ten minutes, known for "))
    known = re.findall(r"known for (?:(\d+) min )?(\d+) s", plot.get_attribute("aria-label") or "")[0]
    since = fresh.evaluate("performance.now()") / 1000
    assert int(known[0] or 0) * 60 + int(known[1]) > since, "it knows only what it has seen itself"
    expect(plot).to_have_attribute("aria-label", re.compile(r"now [\d.]+ cores of 1 core$"))
    assert len([url for url in asked if "/v1/usage" in url]) == 1
    for name, words in (("Day", "the last day"), ("Month", "the last 30 days")):
        fresh.get_by_role("radio", name=name).check()
        expect(plot).to_have_attribute("aria-label", re.compile(f"^CPU over {words}, known for "))
    expect(plot.locator("canvas")).to_be_visible()
    fresh.get_by_role("radio", name="10 minutes").check()
    bulkhead.cli("stop", "-t", "0", "worker")
    expect(fresh.get_by_text("It was ended by signal")).to_be_visible()
    fresh.reload()  # what it used is known after it has ended, too
    expect(plot).to_have_attribute("aria-label", re.compile(r"^CPU over the last ten minutes, known for .*now \u2013"))


def test_a_minute_without_use_is_a_gap(page: Page) -> None:
    rows = [row(NOON, 60, 60, cpu_seconds=30), row(NOON + 60, 60, 0), row(NOON + 120, 60, 60, cpu_seconds=60)]
    assert lines(page, rows, []) == [[[0, 0.5], [60, 0.5]], [[120, 1], [180, 1]]]
    # A bin that is missing is no other than one that is empty.
    assert lines(page, [rows[0], rows[2]], []) == lines(page, rows, [])


def test_live_figures_take_the_place_of_bins_and_join_them(page: Page) -> None:
    rows = [row(NOON, 60, 60, cpu_seconds=60), row(NOON + 60, 60, 30, cpu_seconds=15)]
    live = [{"when": NOON + second, "cpu": 0.25} for second in range(80, 94, 2)]
    (joined,) = lines(page, rows, live)
    assert joined[:4] == [[0, 1], [60, 1], [60, 0.5], [80, 0.5]]
    assert joined[4:] == [[second, 0.25] for second in range(80, 94, 2)]
    # A page that nobody looked at for a while has bins of that while, once they are asked for.
    later = [*live, *({"when": NOON + 150 + second, "cpu": 0.75} for second in range(0, 6, 2))]
    rows[1:] = [row(NOON + 60, 60, 60, cpu_seconds=30), row(NOON + 120, 60, 36, cpu_seconds=18)]
    (joined,) = lines(page, rows, later)
    assert [92, 0.5] in joined and [150, 0.5] in joined and [152, 0.75] in joined
    assert [when for when, _ in joined] == sorted(when for when, _ in joined)
    # Without them it is a gap, and no line that nobody has measured.
    assert len(lines(page, [], later)) == 2


def test_where_a_run_lies_in_its_bin(page: Page) -> None:
    """A row tells for how long it ran: it began in the first, and has come so far in the last."""
    begun = [row(NOON, 60, 20, cpu_seconds=20), row(NOON + 60, 60, 45, cpu_seconds=45)]
    assert lines(page, begun, []) == [[[40, 1], [60, 1], [60, 1], [105, 1]]]
    half = in_page(page, "history", "it.bins(given[0], given[1], 2 ** 30).map((bin) => bin.disk)", begun, NOON)
    assert half == [2**29, 2**29]
