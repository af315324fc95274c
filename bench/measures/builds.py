"""Ten steps built from nothing and built again; twenty steps of which nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.contest import Cast, Sizes, compete
from bench.figures import Figure
from bench.peers.base import IMAGE, ImageBuilder
from bench.peers.buildah import Buildah
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker

LIMIT = 1.0
"""Of the faster of the two others' time."""
FILES = 20
NOTHING = 1000.0
"""Milliseconds that twenty steps without a change may take."""
CONTAINERFILE = f"""FROM {IMAGE}
ENV MODE=bench
WORKDIR /srv/app
COPY tree /srv/app/tree
RUN mkdir -p /var/lib/app && echo one > /var/lib/app/one
RUN cat /srv/app/tree/0 > /var/lib/app/two
COPY settings /etc/app.conf
RUN rm /var/lib/app/one
RUN cp -r /srv/app/tree /srv/app/copy
CMD ["cat", "/etc/app.conf"]
"""

LONG = f"""FROM {IMAGE}
ARG MODE=bench
ENV MODE=$MODE
WORKDIR /srv/app
COPY settings /etc/app.conf
{"".join(f"RUN mkdir -p /var/lib/app && echo {number} > /var/lib/app/{number}{chr(10)}" for number in range(7))}\
COPY tree /srv/app/tree
{"".join(f"RUN cat /srv/app/tree/{number} > /var/lib/app/tree-{number}{chr(10)}" for number in range(5))}\
LABEL made-by=bench
CMD ["cat", "/etc/app.conf"]
"""
"""Twenty instructions, of which twelve are RUN."""


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """The three builders in turns, each with its default network."""
    figure = Figure(
        "build",
        "Building a ten-step Containerfile",
        "The whole command: four RUN steps, two COPY steps of 21 files, the rest is configuration. Cold: "
        "--no-cache. Warm: nothing has changed since the last build.",
    )
    context = _context(cast.scene.directory("build-context"), CONTAINERFILE)
    contenders = []
    for kind in (Bulkhead, Buildah, Docker):
        contenders += cast.contend(figure, kind, f"{kind.name}, cold", _builds(context, cache=False))
        contenders += cast.contend(figure, kind, f"{kind.name}, warm", _builds(context, cache=True))
    compete(figure, contenders, sizes.builds)
    for state in ("cold", "warm"):
        for other in (Buildah, Docker):
            if f"{other.name}, {state}" in {series.label for series in figure.series}:
                what = f"{state} build / {other.name}'s"
                figure.want_ratio(what, f"bulkhead, {state}", f"{other.name}, {state}", LIMIT)
    return figure


def measure_again(cast: Cast, sizes: Sizes) -> Figure:
    """The same three with a file of twenty steps, of which all are cached."""
    figure = Figure(
        "rebuild",
        "Building twenty steps of which nothing has changed",
        "The whole command, after a build of the same context that does not count: twelve RUN steps, two COPY steps "
        "of 21 files, the rest is configuration.",
    )
    context = _context(cast.scene.directory("rebuild-context"), LONG)
    contenders = []
    for kind in (Bulkhead, Buildah, Docker):
        contenders += cast.contend(figure, kind, kind.name, _builds(context, cache=True))
    compete(figure, contenders, sizes.builds)
    ours = figure.find(Bulkhead.name)
    figure.want("no-op rebuild of 20 steps", NOTHING, "ms", ours.summary.median if ours else None)
    for other in (Buildah, Docker):
        if figure.find(other.name):
            figure.want_ratio(f"no-op rebuild / {other.name}'s", Bulkhead.name, other.name, LIMIT)
    return figure


def _context(directory: Path, text: str) -> Path:
    (directory / "tree").mkdir(exist_ok=True)
    for number in range(FILES):
        (directory / "tree" / str(number)).write_text(f"file {number}\n" * 100)
    (directory / "settings").write_text("mode = bench\n")
    (directory / "Containerfile").write_text(text)
    (directory / "Dockerfile").write_text(text)
    return directory


def _builds(context: Path, *, cache: bool) -> Callable[[ImageBuilder], float]:
    return lambda builder: builder.build(context, image="bench-built", cache=cache)
