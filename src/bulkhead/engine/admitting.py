"""From a request to what can be made of it on this host, or everything that stands in the way."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.engine import attaching, cloning, inits, inside, machines, secrets, selling
from bulkhead.engine.admission import decide_level, network_of, request_problems, resolve_spec
from bulkhead.engine.context import Context
from bulkhead.engine.fleet import surviving
from bulkhead.engine.fleet.places import placed
from bulkhead.engine.images import ImageCatalog
from bulkhead.engine.plans import Plans
from bulkhead.engine.snapshots import SnapshotCatalog
from bulkhead.engine.volumes import DEFAULT_SIZE
from bulkhead.errors import BulkheadError, NoRoom, Problem, Refused
from bulkhead.images import Image
from bulkhead.model import DEFAULT_TENANT, CreateRequest, Instance, Isolation, Plan, Snapshot, Spec
from bulkhead.tenancy.names import qualified


@dataclass(frozen=True, slots=True)
class Admitted:
    """An instance that can be made."""

    spec: Spec
    image: Image
    source: Snapshot | None
    """Where its disk comes from; None: a blank one."""
    resumes: bool
    """It goes on with that snapshot's memory."""
    machine: Spec | None = None
    """A VM that is to be made for it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Judges requests by what the catalogs have and the host can do."""

    context: Context
    plans: Plans
    images: ImageCatalog
    snapshots: SnapshotCatalog

    def admit(self, asked: CreateRequest, *, room: bool = False) -> Admitted:
        """The spec with everything resolved. Raises Refused with every problem; nothing is changed.

        `room`: it belongs to a request.
        """
        context = self.context
        source = self.snapshots.find(asked.snapshot, tenant=asked.tenant) if asked.snapshot else None
        tenant = asked.tenant or (source.spec.tenant if source else DEFAULT_TENANT)
        asked = asked.model_copy(update={"tenant": tenant})
        request = cloning.complete(asked, source) if source else asked
        image = self._find_image(request.image)
        level, choice = decide_level(request, image if isinstance(image, Image) else None)
        problems = self._request_problems(request, level, tenant)
        if request.inside:
            machine, wrong = inside.find(context, request, level)
            problems += wrong
        else:
            machine = None
        plan, wrong = self._plan(request, source, machine)
        problems += wrong
        if not request.inside:
            problems += self.plans.problems(plan, isolation=level, network=network_of(request, level))
            problems += inits.problems(request, level, context.layout)
        elif machine:
            problems += inside.plan_problems(context, machine, plan)
        problems += context.networks.check_ports(request.ports)
        problems += secrets.problems(context, request, tenant)
        problems += context.places.problems(request.where) + attaching.problems(context, request, level, room=room)
        if source:
            disk, foreign = self.snapshots.disk(source)
            problems += cloning.problems(asked, source, level, plan, disk=disk, foreign=foreign)
        if isinstance(image, BulkheadError):
            # A missing image alone stays what it is: not found.
            raise Refused([*problems, *image.problems]) if problems else image
        full: list[Problem] = []
        try:
            names = [one.spec.name for one in context.state.instances() if one.spec.tenant == tenant]
            spec = resolve_spec(request, image, plan, taken_names=names, level=level, choice=choice)
            if source:
                spec = cloning.name_origin(spec, asked, source)
            made = None
            if request.inside and level in inside.LEVELS:
                spec, made = self._placed(spec, request, image, machine)
                problems += self._made_problems(made) if made else []
                home = made or (machine.spec if machine else None)
                problems += inside.layer_problems(home, image) if home else []
            problems += context.fleet_networks.problems(spec, placed=placed(spec))
            problems += surviving.problems(spec, copied=source is not None) + self._spec_problems(spec, image)
            full = self._room_problems(spec, made)
        except Refused as error:
            problems += error.problems
        _check(problems, full)
        return Admitted(spec, image, source, source is not None and cloning.resumes(asked, source), made)

    def _request_problems(self, request: CreateRequest, level: Isolation, tenant: str) -> list[Problem]:
        context = self.context
        context.fleet_networks.find(qualified(tenant, network_of(request, level)))  # another host may have made it
        networks = {network.name: network for network in context.state.networks(tenant)}
        return request_problems(request, level, networks=networks, drivers=tuple(context.drivers))

    def _plan(
        self, request: CreateRequest, source: Snapshot | None, machine: Instance | None
    ) -> tuple[Plan, list[Problem]]:
        if machine:
            return inside.plan_of(self.context, request.plan, machine, self.plans.default())
        return self.plans.resolve(request.plan, base=source.spec.plan if source else None)

    def _placed(
        self, spec: Spec, request: CreateRequest, image: Image, machine: Instance | None
    ) -> tuple[Spec, Spec | None]:
        """The spec within its VM, and the VM where one is to be made for it."""
        made = inside.made_for(spec, request, image) if request.inside == inside.NEW else None
        home = made or (machine.spec if machine else spec)
        network = home.network if request.network is None and spec.isolation is Isolation.CONTAINER else spec.network
        return spec.model_copy(update={"inside": home.id, "network": network}), made

    def _spec_problems(self, spec: Spec, image: Image) -> list[Problem]:
        """What its level cannot do of it."""
        problems: list[Problem] = []
        if spec.isolation in self.context.drivers:
            problems += self.context.driver_of(spec).check(spec)
        if machines.is_machine(spec) and not spec.powered:
            problems += machines.problems(self.context, spec, image)
        return problems

    def _made_problems(self, made: Spec) -> list[Problem]:
        """What stands in the way of the VM that is to be made."""
        problems = self.plans.problems(made.plan, isolation=made.isolation, network=made.network)
        problems += self.context.driver_of(made).check(made)
        return problems + machines.kernel_problems(self.context, made)

    def _room_problems(self, spec: Spec, made: Spec | None) -> list[Problem]:
        """Why this host has no room for it, its machine and its volumes; judged again where they are recorded."""
        context = self.context
        known = {volume.key for volume in context.state.volumes()} if spec.volumes else set()
        new = set(spec.volumes) - known
        wanted = selling.to_be_made(context, [spec, *([made] if made else [])], volumes=len(new) * DEFAULT_SIZE)
        return selling.problems(context, wanted)

    def _find_image(self, reference: str) -> Image | BulkheadError:
        try:
            return self.images.resolve(reference)
        except BulkheadError as error:
            return error


def _check(problems: list[Problem], full: list[Problem]) -> None:
    """Raise Refused where anything is wrong, NoRoom where nothing is but that the host is `full`."""
    if problems:
        raise Refused([*problems, *full])
    if full:
        raise NoRoom(full)
