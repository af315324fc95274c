"""What the engine tells about instances without changing any: inspect, stats, dry runs."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

from bulkhead import limits
from bulkhead.advise import RULES
from bulkhead.engine import bundles, inside, machines, secrets, unikernels, unmodified
from bulkhead.engine.context import Context
from bulkhead.errors import Refused
from bulkhead.images import Image
from bulkhead.isolation.base import Bundle, Explains
from bulkhead.limits import Enforced
from bulkhead.model import Instance, Isolation, Plan, Spec


@dataclass(frozen=True, slots=True)
class Usage:
    """What an instance uses now. Bytes and seconds; counters run since its start."""

    id: str
    name: str
    when: float
    memory: int
    memory_limit: int
    cpu_seconds: float
    cpus: float
    pids: int
    pids_limit: int
    disk_used: int
    disk_size: int
    disk_read: int
    disk_written: int
    disk_reads: int | None
    """Operations, as the disk's limits count them; None where nobody counts."""
    disk_writes: int | None
    received: int
    sent: int


class Reporter:
    """Reads the store, the cgroups and the disks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def describe(self, instance: Instance) -> dict[str, object]:
        """One element of the array that `inspect` prints."""
        context, spec = self._context, instance.spec
        directory = context.bundle_dir(instance)
        described = instance.model_dump(mode="json", exclude={"spec"})
        described["exit"] = instance.exit.model_dump(mode="json") if instance.exit else None
        return {
            "id": spec.id,
            "name": spec.name,
            **described,
            "image": spec.image,
            "image_digest": spec.image_digest,
            "isolation": spec.isolation,
            "not_isolated": list(context.driver(instance).not_isolated(spec)),
            "plan": spec.plan.model_dump(mode="json"),
            "plan_name": spec.plan_name,
            "limits": [asdict(row) for row in self.limits(instance)],
            "config": spec.model_dump(
                mode="json", exclude={"id", "name", "image", "image_digest", "isolation", "plan", "plan_name"}
            ),
            "kernel": machines.kernel_report(context, instance),
            "layers": bundles.read_layers(directory),
            "holds": [within.spec.name for within in inside.held(context, spec)],
            "snapshots": [
                snapshot.model_dump(mode="json", include={"name", "created", "size", "memory"})
                for snapshot in context.state.snapshots(spec.id)
                if snapshot.state == "ready"
            ],
            "bundle": str(directory),
            "log": str(directory / "log"),
        }

    def walls(self) -> dict[str, object]:
        """Every level with what its probe found, and the rules of `--isolation auto`."""
        probes = {level: driver.probe() for level, driver in self._context.drivers.items()}
        levels = [
            {
                "level": level,
                "works": probe.works,
                "reason": probe.reason,
                "hint": probe.hint,
                "not_isolated": list(probe.not_isolated),
            }
            for level, probe in probes.items()
        ]
        rules = [
            {"number": rule.number, "when": rule.when, "level": rule.level, "because": rule.because} for rule in RULES
        ]
        return {"levels": levels, "rules": rules}

    def limits(self, instance: Instance) -> list[Enforced]:
        """What of the plan is enforced, and by what."""
        context, spec = self._context, instance.spec
        machine = inside.machine_of(context, spec) if spec.inside else None
        if machine:
            kept = inside.speed(context, machine.spec.plan)
            return limits.inner_enforced(spec.plan, machine=kept, isolation=spec.isolation, network=spec.network)
        return limits.enforced(
            spec.plan,
            facts=context.facts,
            layout=context.layout,
            isolation=spec.isolation,
            network=spec.network,
            cpuset=instance.cpuset,
        )

    def usage(self, instance: Instance) -> Usage:
        """What it uses now; zeros where it does not run."""
        context, spec = self._context, instance.spec
        within = inside.usage(context, instance) if spec.inside else None
        used = within.usage if within else limits.read_usage(context.layout, context.config.cgroup, spec.id)
        received, sent = (within.received, within.sent) if within else self._traffic(instance)
        plan, (disk_used, disk_size), (read, written) = self._held(instance)
        if within:
            read, written = within.read, within.written
        reads, writes = self._operations(instance)
        return Usage(
            id=spec.id,
            name=spec.name,
            when=time.time(),
            memory=used.memory,
            memory_limit=plan.memory,
            cpu_seconds=used.cpu_seconds,
            cpus=spec.plan.cpus,
            pids=used.pids,
            pids_limit=plan.pids,
            disk_used=disk_used,
            disk_size=disk_size,
            disk_read=read,
            disk_written=written,
            disk_reads=reads,
            disk_writes=writes,
            received=received,
            sent=sent,
        )

    def _traffic(self, instance: Instance) -> tuple[int, int]:
        link = bundles.read_link(self._context.bundle_dir(instance))
        return self._context.networks.traffic(link) if link and instance.pid else (0, 0)

    def _held(self, instance: Instance) -> tuple[Plan, tuple[int, int], tuple[int, int]]:
        """What the host holds it to; bytes used of its disk and in all; bytes read and written."""
        context, spec = self._context, instance.spec
        if machines.is_machine(spec):
            plan = machines.hypervisor_plan(context, spec.plan)
            return plan, machines.disk_usage(context, instance), machines.transferred(instance)
        if spec.inside:
            return spec.plan, machines.disk_usage(context, instance), (0, 0)
        if not instance.pid:
            return spec.plan, (0, spec.plan.disk), (0, 0)
        return spec.plan, context.disks.usage(spec.id), context.disks.transferred(spec.id)

    def _operations(self, instance: Instance) -> tuple[int | None, int | None]:
        """Reads and writes of its disk; None where that is not known."""
        context, spec = self._context, instance.spec
        if spec.inside or not instance.pid:
            return None, None
        if machines.is_machine(spec):
            counted = limits.read_counted(context.layout, context.config.cgroup, spec.id)
            return counted.reads, counted.writes
        moved = context.disks.counted(spec.id)
        return (moved.reads, moved.writes) if moved else (None, None)

    def layers_in_use(self, running: Collection[Instance]) -> set[str]:
        """Digests of the layers that running instances are made of."""
        return {digest for i in running for digest in bundles.read_layers(self._context.bundle_dir(i))}

    def host(self) -> dict[str, object]:
        """What is known of this host, and where things are."""
        context = self._context
        return {
            "host": asdict(context.facts),
            "cgroups": str(context.layout.kind),
            "isolation": list(context.drivers),
            "config": context.config.model_dump(mode="json"),
            "instances": len(context.state.instances()),
        }

    def dry_run(self, spec: Spec, image: Image, made: Spec | None = None) -> str:
        """What a start of such an instance would do, step by step, in words. Paths are those it would have.

        `made`: the VM that would be made for it.
        """
        context, run_dir = self._context, self._context.config.run_dir
        driver = context.driver_of(spec)
        if not isinstance(driver, Explains):
            raise Refused(f"a start of a {spec.isolation} cannot be explained", hint="leave out --dry-run")
        if spec.inside:
            home = made or context.state.get(spec.inside).spec
            layers = [(layer.diff_id, layer.erofs) for layer in image.layers]
            return driver.explain(self._with_secrets(inside.explained(context, spec, home.plan, home.inner, layers)))
        machine = machines.is_machine(spec)
        program = limits.program(
            machines.hypervisor_plan(context, spec.plan) if machine else spec.plan,
            cgroup=context.config.cgroup,
            instance_id=spec.id,
            layout=context.layout,
            facts=context.facts,
            cpuset=limits.choose_cpuset(spec.plan, context.facts, []),
            device=None,
            delegate=context.config.uid_base if spec.init == "system" and not machine else None,
        )
        bundle = Bundle(
            directory=context.config.instances_dir / spec.id,
            spec=spec,
            limits=program,
            layers=tuple(run_dir / "layers" / layer.diff_id.removeprefix("sha256:") for layer in image.layers),
            disk=run_dir / "disks" / spec.id,
            uid_start=context.config.uid_base if spec.isolation is Isolation.CONTAINER else None,
        )
        if spec.system:
            uid_start, system = context.config.uid_base, unmodified.explained(context, spec, bundle.directory)
            bundle = replace(bundle, uid_start=uid_start, system=system)
        elif spec.program:
            uid_start, boots = context.config.uid_base, unikernels.explained(context, spec, bundle.directory)
            bundle = replace(bundle, uid_start=uid_start, program=boots)
        elif machine:
            bundle = machines.explained(context, spec, image, bundle)
        return driver.explain(self._with_secrets(bundle))

    def _with_secrets(self, bundle: Bundle) -> Bundle:
        return replace(bundle, secrets=secrets.explained(self._context, bundle.spec))
