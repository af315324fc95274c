"""Builds as the engine's users see them: a Containerfile and a context in, an image out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bulkhead.containerfile import stages
from bulkhead.containerfile.instructions import Copy, Run
from bulkhead.engine.builds import configuring, mounting
from bulkhead.engine.builds.holds import Hold
from bulkhead.engine.builds.order import Alive, BuildOrder, Tell, Told
from bulkhead.engine.builds.running import Job, Runner
from bulkhead.engine.builds.shared import Build, Views, held_image
from bulkhead.engine.builds.stagework import StageWork
from bulkhead.engine.builds.state import StageState
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.engine.plans import Plans
from bulkhead.errors import ImageError, NoImage, NotFound, Problem, Refused
from bulkhead.host.workspace import abandoned, workspace
from bulkhead.images import Image, ImageConfig
from bulkhead.images.rootfs import host_architecture
from bulkhead.images.view import View
from bulkhead.images.workshop import Base, Product
from bulkhead.model import DEFAULT_TENANT, Isolation, Plan

AT_ONCE = 4
"""Stages that are worked on at the same time."""


class Builder:
    """Carries builds out. Safe for threads: several builds at the same time share nothing but the store."""

    def __init__(self, context: Context, lifecycle: Lifecycle, plans: Plans, *, host: Context | None = None) -> None:
        """`context` has the images that are built on; `host` the kernels, where these are a tenant's."""
        self._context = context
        self._plans = plans
        self._runner = Runner(host or context, lifecycle, tenant=context.tenant)

    def build(self, order: BuildOrder, files: Iterable[bytes], *, tell: Tell, alive: Alive) -> Image:
        """Build an image; `files` is the context, a tar, which is read to its end in any case.

        Raises Refused with everything that is wrong before anything is done, NotFound, BuildFailed, ImageError, and
        BrokenPipeError when nobody waits for it any more.
        """
        context, workshop = self._context, self._context.images.workshop
        names = workshop.names(order.names)
        containerfile = self._read(order)
        plan, network, epoch = self._admit(order, containerfile)
        for name in containerfile.unused:
            tell(Told("note", text=f"no ARG asks for --build-arg {name}"))
        with ExitStack() as always:
            hold = always.enter_context(context.building.hold())
            bases = self._bases(order, containerfile, hold, tell)
            view = self._context_view(files, containerfile, bases, always)
            checkpoint("build.context")
            build = Build(
                context=context,
                order=order,
                containerfile=containerfile,
                plan=plan,
                network=network,
                epoch=epoch,
                now=time.time(),
                hold=hold,
                runner=self._runner,
                bases=bases,
                views=Views(workshop, always),
                files=view,
                directory=self._directory(containerfile, bases, always),
                tell=tell,
                alive=alive,
            )
            state = _carry_out(build)
            image = self._finish(build, state, names)
            checkpoint("build.image")
            return image

    def _directory(self, containerfile: stages.Plan, bases: Mapping[str, Base], always: ExitStack) -> Path | None:
        """A directory of the build's own, where a step may need one."""
        runs = [step for stage in containerfile.stages for step in stage.steps if isinstance(step, Run)]
        if not any(run.mounts or run.heredocs for run in runs) and not any(base.onbuild for base in bases.values()):
            return None
        directory, _ = always.enter_context(workspace(self._context.config.run_dir / "builds"))
        return directory

    def recover(self) -> list[str]:
        """After a crash: remove what builds have left; in words."""
        return [
            f"removed an unfinished build ({path.name})" for path in abandoned(self._context.config.run_dir / "builds")
        ]

    def _read(self, order: BuildOrder) -> stages.Plan:
        platform = f"linux/{host_architecture()}"
        if order.platform not in ("", platform):
            raise Refused(f"--platform {order.platform}: this host builds {platform}")
        return stages.plan(
            order.containerfile.encode("utf-8", "surrogatepass"),
            given=order.arguments,
            target=order.target,
            platform=platform,
        )

    def _admit(self, order: BuildOrder, containerfile: stages.Plan) -> tuple[Plan, str, int | None]:
        """The plan, the network and the latest time. Raises Refused with everything that is wrong."""
        level = order.isolation
        network = order.network or ("host" if level is Isolation.CHROOT else "default")
        plan, problems = self._plans.resolve(order.plan)
        runs = [step for stage in containerfile.stages for step in stage.steps if isinstance(step, Run)]
        problems += mounting.problems([(run.line.number, mount) for run in runs for mount in run.mounts], level)
        for identifier in order.secrets:
            mounting.secret(order.secrets, identifier)
        wanted = {network} | {run.network for run in runs if run.network not in ("", "default")}
        tenant = self._context.tenant
        known = {each.name for each in self._context.state.networks(tenant)} | {"none"}
        known |= {"host"} if tenant == DEFAULT_TENANT else set()
        trial = Image("", (), host_architecture(), None, 0, ImageConfig(), ())
        for name in sorted(wanted if runs else ()):
            if name not in known:
                problems.append(Problem(f"network {name!r} does not exist", f"bulkhead network create {name}"))
                continue
            problems += self._plans.problems(plan, isolation=level, network=name)
            job = Job(trial, ("true",), (), "", "/", level, name, plan)
            problems += [problem for problem in self._runner.problems(job) if problem not in problems]
        try:
            epoch = configuring.epoch_of(order.arguments, order.epoch)
        except ValueError as error:
            problems.append(Problem(str(error)))
            epoch = None
        if problems:
            raise Refused(dict.fromkeys(problems))
        return plan, network, epoch

    def _bases(self, order: BuildOrder, containerfile: stages.Plan, hold: Hold, tell: Tell) -> dict[str, Base]:
        """The images that it begins with or takes files of, held.

        Raises NoImage where some are not in the store, having told which, and Refused with what is wrong with others.
        """
        found, missing, problems = dict[str, Base](), list[Problem](), list[Problem]()
        for name, line in containerfile.images.items():
            try:
                if order.pull == "always" and name not in order.pulled:
                    raise NoImage(f"image {name} is to be pulled")
                found[name] = held_image(self._context, hold, order.pulled.get(name, name))
            except NoImage as error:
                tell(Told("missing", text=name))
                missing.append(Problem(f"line {line}: {error.what}", error.hint))
            except (NotFound, Refused, ImageError) as error:
                problems += [Problem(f"line {line}: {each.what}", each.hint) for each in error.problems]
        if problems:
            raise Refused([*missing, *problems])
        if missing:
            raise NoImage("; ".join(problem.what for problem in missing), hint=missing[0].hint)
        return found

    def _context_view(
        self, files: Iterable[bytes], containerfile: stages.Plan, bases: Mapping[str, Base], always: ExitStack
    ) -> View | None:
        """The context, unpacked where a step needs it."""
        triggered = any(base.onbuild for base in bases.values())
        if not triggered and not any(_needs_context(step) for stage in containerfile.stages for step in stage.steps):
            for _ in files:
                pass
            return None
        path = always.enter_context(self._context.images.workshop.context(files))
        descriptor = always.enter_context(path.open("rb"))
        return View([descriptor.fileno()])

    def _finish(self, build: Build, state: StageState, names: list[str]) -> Image:
        labels = {**state.config.labels, **build.order.labels}
        product = Product(
            layers=state.layers,
            config=replace(state.config, labels=labels),
            onbuild=state.onbuild,
            history=state.history,
            architecture=state.architecture,
            created=build.time if build.epoch is not None else state.created or build.now,
        )
        store = self._context.images
        return build.hold.image(
            lambda: store.resolve(build.workshop.finish(product, names)), lambda image: image.digest
        )


def _needs_context(step: object) -> bool:
    if isinstance(step, Copy):
        return not step.origin and any(not source.startswith("<<") for source in step.sources)
    return isinstance(step, Run) and any(mount.kind == "bind" and not mount.origin for mount in step.mounts)


def _carry_out(build: Build) -> StageState:
    """Every stage that is needed, side by side where neither waits for the other."""
    needed = build.containerfile.stages
    if len(needed) == 1:
        return StageWork(build, needed[0]).run()
    failed = threading.Event()
    alive = build.alive
    build.alive = lambda: alive() and not failed.is_set()
    futures: dict[int, Future[StageState]] = {}

    def work(stage: stages.Stage) -> StageState:
        try:
            for number in stage.needs:
                build.results[number] = futures[number].result()
            return StageWork(build, stage).run()
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="stage") as pool:
        # In the file's order: a stage waits only for those that have a thread already, or are done.
        for stage in needed:
            futures[stage.number] = pool.submit(work, stage)
    errors = [error for future in futures.values() if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, BrokenPipeError)):
        raise error
    return futures[build.containerfile.target.number].result()
