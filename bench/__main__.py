"""The bench's command line: `bench/run --help`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from bench import archives, host, namespaces
from bench.compare import compare
from bench.contest import PEERS, QUICK, Cast, Sizes, say
from bench.figures import Figure, Results, dump, load
from bench.measures import (
    applications,
    builds,
    burst,
    commands,
    density,
    execs,
    fleet,
    fleet_live,
    fleet_losses,
    imports,
    machines,
    memory,
    packing,
    placement,
    plans,
    pulls,
    rogues,
    starts,
)
from bench.peers.base import Scene
from bench.report import markdown, terminal
from tests.harness import trimmed
from tests.harness.images import rootfs_tar
from tests.harness.kernels import kernel_layout
from tests.harness.rogues import ROGUES

CHECKOUT = Path(__file__).resolve().parent.parent
FIGURES: dict[str, Callable[[Cast, Sizes], Figure]] = {
    "starts": starts.measure,
    "cli": commands.measure,
    "exec": execs.measure,
    "burst": burst.measure,
    "memory": memory.measure,
    "import": imports.measure,
    "pull": pulls.measure,
    "build": builds.measure,
    "rebuild": builds.measure_again,
    "vm": machines.measure,
    "unikernel": applications.measure,
    "plans": plans.measure,
    "rogues": rogues.measure,
    "rogues-vm": rogues.measure_machines,
    "rogues-inside": rogues.measure_inside,
    "rogues-chroot": rogues.measure_chroots,
    "density": density.measure,
    "placement": placement.measure,
    "packing": lambda cast, sizes: packing.measure(sizes, cast.scene.output or Path("bench-results")),
    "fleet": fleet.measure,
    "fleet-live": fleet_live.measure,
    "fleet-losses": fleet_losses.measure,
}

WALLS = ("chroot", "container", "vm", "inside", "unikernel", "podman")
UNUSUAL = ("plans", "density", "placement", "packing", "fleet", "fleet-live", "fleet-losses")
USUAL = [name for name in FIGURES if name not in UNUSUAL and not name.startswith("rogues")]


def main() -> int:
    """Start the bench, first outside of its namespaces, then inside."""
    options = _arguments()
    if options.only == ["packing"]:
        return _pack(options)
    if os.geteuid() != 0:
        sys.exit("bench: must run as root")
    inside = os.environ.get(namespaces.INSIDE)
    if not inside:
        return namespaces.run_inside(sys.argv[1:], partial(_prepare, options))
    try:
        results = _measure(options, Path(inside))
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    _write(results, options.output)
    if options.compare:
        print("\n".join(compare(load(options.compare), results)))
    missed = sum(goal.met is False for figure in results.figures for goal in figure.goals)
    say(f"done: {options.output}; goals missed: {missed}")
    return 0


def _pack(options: argparse.Namespace) -> int:
    """What needs no root, no namespaces and no peers."""
    sizes = _sizes(options)
    results = Results(time.time(), host.facts(options.output.absolute().parent), _told(sizes, packing.OPTIONS))
    try:
        results.figures.append(packing.measure(sizes, options.output))
    except (ValueError, OSError) as error:
        sys.exit(f"bench: {error}")
    results.host["load after"] = f"{os.getloadavg()[0]:.2f}"
    _write(results, options.output)
    for line in terminal(results.figures[0]):
        say(line)
    return 0


def _prepare(options: argparse.Namespace, scratch: Path) -> list[str]:
    """What needs the host's network: options that name it."""
    machines = {"vm", "unikernel", "density", "rogues-vm", "rogues-inside", "plans", "fleet-live"} & set(options.only)
    kernel = ["--kernel", str(kernel_layout())] if machines and not options.kernel else []
    if "unikernel" in options.only and not options.trimmed and (built := trimmed.built()):
        kernel += ["--trimmed", str(built)]
    stock = ["--stock", str(rootfs_tar("stock"))] if "vm" in options.only and not options.stock else []
    if {"density", "fleet-live"} & set(options.only) and not options.servers:
        stock += ["--servers", str(rootfs_tar("servers"))]
    return ["--root", str(archives.root_archive(options.root, scratch)), *kernel, *stock]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measure Bulkhead beside its peers in namespaces of the bench's own; needs root. "
        "Writes results.json, results.md and plot.svg.",
    )
    parser.add_argument(
        "--only", type=_list(FIGURES), default=USUAL, help=f"of {','.join(FIGURES)} (default: the first {len(USUAL)})"
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", type=_list(names), default=names, help=f"of {','.join(names)}")
    parser.add_argument("--runs", type=int, help=f"runs of each contender (default {Sizes().runs})")
    parser.add_argument("--walls", type=_list(WALLS), help=f"of plans and density these alone: {','.join(WALLS)}")
    parser.add_argument("--density-seconds", type=float, help=f"of each wall (default {Sizes().density_seconds:g})")
    parser.add_argument("--quick", action="store_true", help="a few runs of everything, to see that it works")
    rogue = "seconds beside each rogue (default 10)"
    parser.add_argument("--rogue-seconds", type=float, metavar="SECONDS", help=rogue)
    names = [rogue.name for rogue in ROGUES]
    chosen = f"of {','.join(names)}; one named twice is measured twice (default: each once)"
    parser.add_argument("--rogues", type=_list(names), default=[], metavar="ROGUES", help=chosen)
    instances = "directory with instances of vector bin packing"
    parser.add_argument("--vbp", type=Path, metavar="DIR", help=f"{instances} (default: the public ones)")
    parser.add_argument("--packing-seconds", type=float, metavar="SECONDS", help="for each instance (default 10)")
    parser.add_argument("--packing-every", type=int, metavar="N", help="take every Nth instance (default 1)")
    chosen = "of these collections or classes alone: panigrahy,new/class1"
    parser.add_argument("--packing-classes", type=lambda text: text.split(","), default=[], help=chosen)
    parser.add_argument("--packing-known", action="store_true", help="instances whose optimum is known alone")
    parser.add_argument("--packing-made", action="store_true", help="instances by chance, of many kinds, instead")
    parser.add_argument("--packing-cpu", action="store_true", help="its seconds are the processor's, not the clock's")
    parser.add_argument("--output", type=Path, default=Path("bench-results"), help="directory for the results")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="results of an earlier run to compare with")
    parser.add_argument("--root", type=Path, metavar="TAR", help="root file system (default: a minimal Debian)")
    parser.add_argument("--kernel", type=Path, metavar="LAYOUT", help="kernel of virtual machines (default: Debian's)")
    parser.add_argument("--trimmed", type=Path, metavar="LAYOUT", help="the trimmed kernel (default: if it is built)")
    parser.add_argument(
        "--stock", type=Path, metavar="TAR", help="root with a kernel and its initramfs (default: Debian's)"
    )
    parser.add_argument("--servers", type=Path, metavar="TAR", help="root with nginx (default: Debian's)")
    parser.add_argument("--bulkhead", type=Path, default=CHECKOUT / ".venv/bin/bulkhead", help="the program")
    floor = CHECKOUT.parent / "shared/floor/container_floor.py"
    parser.add_argument("--floor", type=Path, default=floor, help="the sketch that measures the floor")
    return parser.parse_args()


def _list(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        wanted = text.split(",")
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not one of {', '.join(known)}")
        return wanted

    return parse


def _sizes(options: argparse.Namespace) -> Sizes:
    """How much is measured, as the options say."""
    sizes = QUICK if options.quick else Sizes()
    if options.runs:
        sizes = replace(sizes, runs=options.runs)
    if options.rogues:
        sizes = replace(sizes, rogues=tuple(options.rogues))
    if options.rogue_seconds:
        sizes = replace(sizes, rogue_seconds=options.rogue_seconds)
    if options.walls:
        sizes = replace(sizes, walls=tuple(options.walls))
    if options.density_seconds:
        sizes = replace(sizes, density_seconds=options.density_seconds)
    packs = {"vbp": options.vbp, "packing_seconds": options.packing_seconds, "packing_every": options.packing_every}
    sizes = replace(sizes, **{name: value for name, value in packs.items() if value is not None})
    kinds = {"packing_known": options.packing_known, "packing_made": options.packing_made}
    return replace(sizes, packing_classes=tuple(options.packing_classes), packing_cpu=options.packing_cpu, **kinds)


def _told(sizes: Sizes, names: Collection[str] = ()) -> dict[str, str]:
    """The sizes for the report, of these names or all: without a place of this machine."""
    chosen = {key: value for key, value in asdict(sizes).items() if not names or key in names}
    return {key: str(value.name if isinstance(value, Path) else value) for key, value in chosen.items()}


def _measure(options: argparse.Namespace, scratch: Path) -> Results:
    """Everything inside the namespaces; what the peers made is put away at the end."""
    name = namespaces.enter(scratch)
    sizes = _sizes(options)
    results = Results(time.time(), host.facts(scratch), _told(sizes))
    scene = Scene(
        name=name,
        scratch=scratch,
        checkout=CHECKOUT,
        archive=options.root,
        root=scratch / "root",
        bulkhead=options.bulkhead.absolute(),
        floor=options.floor,
        kernel=options.kernel,
        trimmed=options.trimmed,
        stock=options.stock,
        output=options.output.absolute(),
        servers=options.servers,
    )
    archives.unpack(scene.archive, scene.root)
    if namespaces.hide_unified():
        results.host["cgroups"] = "hybrid; the v2 tree is hidden from all contenders, since crun refuses to share"
    with ExitStack() as stack:
        cast = Cast(scene, stack, frozenset(options.peers))
        for key in options.only:
            say(f"measuring {key}")
            figure = FIGURES[key](cast, sizes)
            results.figures.append(figure)
            _write(results, options.output)  # what is found is kept, whatever comes of the rest
            for line in terminal(figure):
                say(line)
        results.peers = dict(cast.versions)
        results.host["load after"] = f"{os.getloadavg()[0]:.2f}"
        say("putting everything away")
    return results


def _write(results: Results, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(dump(results))
    (directory / "results.md").write_text(markdown(results))
    try:
        from bench.plot import draw
    except ImportError as error:
        say(f"no plot: {error} (a development dependency)")
    else:
        draw(results, directory / "plot.svg")


if __name__ == "__main__":
    sys.exit(main())
