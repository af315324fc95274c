"""The engine: the lifecycle of instances, and nothing else that changes them."""

from __future__ import annotations

from functools import partial

from bulkhead import limits
from bulkhead.config import Config
from bulkhead.engine import selling
from bulkhead.engine.context import Context
from bulkhead.engine.engine import Engine
from bulkhead.engine.fleet.overlays import FleetNetworks
from bulkhead.engine.fleet.places import Places
from bulkhead.engine.hypervisor import Hypervisor
from bulkhead.engine.journal import Journal
from bulkhead.engine.machines import DEVICES
from bulkhead.engine.scales import Scales
from bulkhead.engine.templating import MachineTemplates
from bulkhead.engine.warming import WarmGuests
from bulkhead.host import cgroups, facts
from bulkhead.host.lxcfs import Lxcfs
from bulkhead.images import ImageStore
from bulkhead.isolation.base import Driver
from bulkhead.isolation.chroot import ChrootDriver
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.inner import InnerDriver
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.system import SystemDriver
from bulkhead.isolation.unikernel import UnikernelDriver
from bulkhead.isolation.vm import VmDriver
from bulkhead.metering.ledger import Ledger, Retention
from bulkhead.model import Isolation, Plan
from bulkhead.network import Networks
from bulkhead.storage.disks import Disks
from bulkhead.storage.layers import Layers
from bulkhead.storage.secrets import SecretFiles
from bulkhead.storage.volumes import Volumes
from bulkhead.store import open_state

__all__ = ["Engine", "build_engine"]


def build_engine(config: Config) -> Engine:
    """Make the parts and join them. Nothing is changed on the host before `Engine.recover`."""
    for directory in (config.state_dir, config.run_dir, config.instances_dir, config.snapshots_dir):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout = cgroups.detect()
    outside = Outside(
        remove_cgroups=partial(cgroups.kill_and_remove, layout, config.cgroup),
        was_oom=lambda reports: limits.interpret_reports(reports).oom,
        freeze=partial(_freeze, layout, config.cgroup),
    )
    lxcfs = Lxcfs(config.run_dir)
    layers = Layers(config)
    hypervisor = Hypervisor(config, layers.mount_layer)
    machines = VmDriver(config, outside, ability=hypervisor.probe)
    programs = UnikernelDriver(config, outside, ability=machines.probe)
    drivers: dict[Isolation, Driver] = {
        Isolation.CHROOT: ChrootDriver(config, outside),
        Isolation.CONTAINER: ContainerDriver(config, outside, lxcfs=lxcfs.mounted),
        Isolation.VM: machines,
        Isolation.UNIKERNEL: programs,
    }
    host_facts = facts.facts(config)
    scales = Scales(host_facts, hypervisor)
    state = open_state(config, scale=scales.weigh)

    hypervisor_limits = partial(
        _hypervisor_limits, cgroup=config.cgroup, hypervisor=hypervisor, layout=layout, host=host_facts
    )
    templates = MachineTemplates(config, hypervisor, machines=machines, programs=programs, limits=hypervisor_limits)
    networks, disks = Networks(config), Disks(config)
    fleet_networks, places = FleetNetworks(config, state, networks), Places(scales.weigh)
    places.claims, places.address = fleet_networks.claims_of, fleet_networks.address
    context = Context(
        config=config,
        facts=host_facts,
        layout=layout,
        state=state,
        scales=scales,
        images=ImageStore(config.images_dir, config.cache_dir),
        disks=disks,
        layers=layers,
        volumes=Volumes(config),
        secrets=SecretFiles(config.secrets_dir),
        networks=networks,
        lxcfs=lxcfs,
        hypervisor=hypervisor,
        templates=templates,
        warm=WarmGuests(
            config,
            hypervisor=hypervisor,
            templates=templates,
            driver=machines,
            hold=hypervisor_limits,
            networks=networks,
            disks=disks,
            state=state,
        ),
        drivers=drivers,
        systems=SystemDriver(config, outside, ability=machines.probe),
        inner={
            level.isolation: InnerDriver(config, outside, level=level, machines=machines.probe)
            for level in (ChrootDriver(config, outside), ContainerDriver(config, outside))
        },
        journal=Journal(state),
        ledger=Ledger(config.ledger_file, _retention(config)),
        places=places,
        fleet_networks=fleet_networks,
    )
    fleet_networks.forget_network = context.warm.forget_network
    context.images.layout.shares.judge = lambda size: selling.judge_import(context, size)
    return Engine(context)


def _hypervisor_limits(
    plan: Plan, instance_id: str, *, cgroup: str, hypervisor: Hypervisor, layout: cgroups.Layout, host: facts.HostFacts
) -> limits.LimitProgram:
    """What holds a hypervisor without an instance: a template's, a warm guest's."""
    return limits.program(
        limits.vmm_plan(plan, hypervisor.accelerator()),
        cgroup=cgroup,
        instance_id=instance_id,
        layout=layout,
        facts=host,
        cpuset=(),
        device=None,
        devices=DEVICES,
    )


def _retention(config: Config) -> Retention:
    return Retention(
        minutes=config.metering_minutes,
        hours=config.metering_hours,
        days=config.metering_days,
        removed=config.metering_removed,
    )


def _freeze(layout: cgroups.Layout, cgroup: str, instance_id: str, frozen: bool) -> None:
    (cgroups.freeze if frozen else cgroups.thaw)(layout, f"{cgroup}/{instance_id}")
