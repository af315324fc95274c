"""Whether an instance of another host could be here: this host's own admission, without changing anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from bulkhead.engine import inits, machines, selling
from bulkhead.engine.admission import SHARED_NETWORKS
from bulkhead.engine.context import Context
from bulkhead.engine.fleet.expecting import Expected, has_kernel
from bulkhead.engine.fleet.images import Fetcher
from bulkhead.engine.images import ImageCatalog
from bulkhead.engine.plans import Plans
from bulkhead.errors import BulkheadError, NoImage, NotFound, Problem, Refused
from bulkhead.images import Image
from bulkhead.model import DEFAULT_TENANT, Instance, Isolation, Spec
from bulkhead.moves import Inquiry, Judgement, Objection
from bulkhead.quantities import format_size
from bulkhead.store.access import Access


@dataclass(frozen=True, slots=True)
class Judge:
    """Says what stands in the way, and gets what can be got."""

    context: Context
    plans: Plans
    fetcher: Fetcher
    expected: Expected

    def judge(self, inquiry: Inquiry, *, seconds: float) -> Judgement:
        """Everything at once; with `fetch` the image is here afterwards, or Refused is raised."""
        spec = inquiry.spec
        if inquiry.fetch:
            self.bring(spec)
            self.bring_kernel(inquiry)
        problems = self._problems(spec, inquiry.size, kernel=not inquiry.kernels or inquiry.fetch)
        if inquiry.fetch and problems:
            raise Refused(problems)
        return Judgement(
            objections=tuple(Objection(what=each.what, hint=each.hint) for each in problems),
            live=tuple(Objection(what=each.what, hint=each.hint) for each in self._live(inquiry)),
            amounts=self.context.scales.weigh(spec).as_dict(),
            seconds=seconds,
        )

    def bring(self, spec: Spec) -> None:
        """Have its image, from whichever host has it. Raises NoImage.

        An unmodified system needs none any more: its disk is a copy.
        """
        if spec.system or self._image(spec) is not None:
            return
        tenant = spec.tenant
        context = self.context if tenant == DEFAULT_TENANT else self.context.seen_by(tenant)
        for reference in (spec.image, spec.image_digest):
            # What the name means by now may be another image.
            if reference and self.fetcher.bring(reference, ImageCatalog(context), tenant) and self._image(spec):
                return
        what = f"image {spec.image} ({spec.image_digest}) of {spec.name} does not come from any host"
        raise NoImage(what, hint="is its host alive? see: bulkhead cluster status")

    def bring_kernel(self, inquiry: Inquiry) -> None:
        """Have the kernel of a machine, from whichever host has it: of one that is to run on the very same. Raises
        NoImage.
        """
        wanted = inquiry.machine.kernel if inquiry.machine else inquiry.spec.kernel
        if not inquiry.kernels or has_kernel(self.context, wanted):
            return
        for reference in inquiry.kernels:
            fetched = self.fetcher.bring(reference, ImageCatalog(self.context), None)
            if fetched and has_kernel(self.context, wanted):
                return
        what = f"kernel {inquiry.kernels[0]}, which it runs, is on no host that sends it"
        raise NoImage(what, hint="is its host alive? see: bulkhead cluster status")

    def _live(self, inquiry: Inquiry) -> list[Problem]:
        """Why it cannot go on running here, aside from all else."""
        return self.expected.problems(inquiry.spec, inquiry.machine) if inquiry.machine else []

    def _image(self, spec: Spec) -> Image | None:
        try:
            return self.context.images.resolve(spec.image_digest)
        except NotFound:
            return None

    def _problems(self, spec: Spec, size: int, *, kernel: bool) -> list[Problem]:
        """`kernel`: whether one has to be here already."""
        context = self.context
        if spec.isolation not in context.drivers:
            return [Problem(f"this host has no {spec.isolation}", "choose another --host")]
        found = self._names(spec) + self._network(spec)
        found += context.driver_of(spec).check(spec)
        found += self.plans.problems(spec.plan, isolation=spec.isolation, network=spec.network)
        found += machines.processor_problems(context, spec)
        found += inits.problems(spec, spec.isolation, context.layout)
        found += context.networks.check_ports(spec.ports, of=spec.id)
        if machines.is_machine(spec) and not spec.powered and kernel:
            image = self._image(spec)
            found += machines.problems(context, spec, image) if image else machines.kernel_problems(context, spec)
        found += self._room(spec, size)
        return list(dict.fromkeys(found))

    def _names(self, spec: Spec) -> list[Problem]:
        state = self.context.state
        with suppress(NotFound):
            state.get(spec.id)
            return [Problem(f"{spec.name} is on this host already", "try again in a moment")]
        with suppress(BulkheadError):
            other: Instance = state.find(spec.name, tenant=spec.tenant)
            if other.spec.name == spec.name:
                return [Problem(f"the name {spec.name} is taken by another instance there", "rename one of them")]
        return _told(lambda: Access(state).tenant(spec.tenant))

    def _network(self, spec: Spec) -> list[Problem]:
        if spec.network in SHARED_NETWORKS or spec.isolation is Isolation.CHROOT:
            return []
        fleet = self.context.fleet_networks  # which learns it, where it is the fleet's
        shared = fleet.problems(spec, placed=True) or fleet.hidden(spec)
        if spec.network in {one.name for one in self.context.state.networks(spec.tenant)}:
            return shared
        hint = f"bulkhead network create {spec.network}, there"
        return [Problem(f"network {spec.network!r} does not exist on that host", hint)]

    def _room(self, spec: Spec, size: int) -> list[Problem]:
        status = os.statvfs(self.context.config.state_dir)
        left = status.f_bavail * status.f_frsize
        found = []
        if size > left:
            found.append(
                Problem(f"its disk holds {format_size(size)}, that host's file system has {format_size(left)}")
            )

        def admit() -> None:
            with self.context.state.atomic():
                selling.admit(self.context, spec)

        return found + _told(admit)


def _told(judge: Callable[[], object]) -> list[Problem]:
    """What a judgement that raises objects to."""
    try:
        judge()
    except BulkheadError as error:
        return list(error.problems)
    return []
