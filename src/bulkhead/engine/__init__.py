"""The engine: the lifecycle of instances, and nothing else that changes them."""

from __future__ import annotations

from functools import partial

from bulkhead import limits
from bulkhead.config import Config
from bulkhead.engine.context import Context
from bulkhead.engine.engine import Engine
from bulkhead.engine.hypervisor import Hypervisor
from bulkhead.engine.journal import Journal
from bulkhead.host import cgroups, facts
from bulkhead.host.lxcfs import Lxcfs
from bulkhead.images import ImageStore
from bulkhead.isolation.base import Driver
from bulkhead.isolation.chroot import ChrootDriver
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.vm import VmDriver
from bulkhead.model import Isolation
from bulkhead.network import Networks
from bulkhead.storage.disks import Disks
from bulkhead.storage.layers import Layers
from bulkhead.storage.volumes import Volumes
from bulkhead.store import open_state

__all__ = ["Engine", "build_engine"]


def build_engine(config: Config) -> Engine:
    """Make the parts and join them. Nothing is changed on the host before `Engine.recover`."""
    for directory in (config.state_dir, config.run_dir, config.instances_dir):
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
    drivers: dict[Isolation, Driver] = {
        Isolation.CHROOT: ChrootDriver(config, outside),
        Isolation.CONTAINER: ContainerDriver(config, outside, lxcfs=lxcfs.mounted),
        Isolation.VM: VmDriver(config, outside, ability=hypervisor.probe),
    }
    state = open_state(config)
    context = Context(
        config=config,
        facts=facts.facts(config),
        layout=layout,
        state=state,
        images=ImageStore(config.images_dir, config.cache_dir),
        disks=Disks(config),
        layers=layers,
        volumes=Volumes(config),
        networks=Networks(config),
        lxcfs=lxcfs,
        hypervisor=hypervisor,
        drivers=drivers,
        journal=Journal(state),
    )
    return Engine(context)


def _freeze(layout: cgroups.Layout, cgroup: str, instance_id: str, frozen: bool) -> None:
    (cgroups.freeze if frozen else cgroups.thaw)(layout, f"{cgroup}/{instance_id}")
