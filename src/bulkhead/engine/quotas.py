"""Whether a tenant may have more. Asked in the transaction that records what it is about, beside the host's own room.

While an instance changes, its tenant has what it is about to have and what it may go back to: a claim, which is in the
store until the change is through.
"""

from __future__ import annotations

from bulkhead.engine.context import Context
from bulkhead.errors import Refused
from bulkhead.images import ImageStore
from bulkhead.model import DEFAULT_TENANT, Instance, Plan, Spec, State
from bulkhead.store.access import Access
from bulkhead.tenancy import quotas
from bulkhead.tenancy.quotas import Quota, Used


def used(context: Context, tenant: str, *, images: bool = True) -> Used:
    """What a tenant has of everything that a quota can limit; the space of its images where it is asked for."""
    state, access = context.state, Access(context.state)
    snapshots = [one for one in state.snapshots() if one.spec.tenant == tenant]
    more = Used(
        networks=len(state.networks(tenant)),
        disk=sum(snapshot.size for snapshot in snapshots),
        images=image_space(context, tenant) if images else 0,
    )
    claims = access.claims()
    instances = [_claiming(one, claims.get(one.spec.id)) for one in state.instances() if one.spec.tenant == tenant]
    return quotas.total(instances, state.volumes(tenant), more=more)


def image_space(context: Context, tenant: str) -> int:
    """Bytes of the images that a tenant has names of: each as if it were alone, whoever else has its layers."""
    if tenant == DEFAULT_TENANT:
        return sum(image.size for image in context.all_images.list())
    return own_space(context.seen_by(tenant).images)


def own_space(images: ImageStore) -> int:
    """The same of a tenant's store."""
    named = images.own_names()
    return sum({image.digest: image.size for image in images.list() if set(image.references) & named}.values())


def images_left(context: Context, tenant: str, images: ImageStore) -> int | None:
    """Bytes that the tenant's images may grow by; below 0 where its quota has been lowered, None: no limit."""
    most = Access(context.state).tenant(tenant).quota.images
    return None if most is None else most - own_space(images)


def admit(context: Context, tenant: str, more: Used) -> None:
    """Raise Refused where a tenant would have more than its quota."""
    quota = Access(context.state).tenant(tenant).quota
    if quota == Quota():
        return
    if found := quotas.problems(tenant, quota, used(context, tenant, images=more.images > 0), more):
        raise Refused(found)


def admit_instance(context: Context, spec: Spec) -> None:
    """The same for a new instance."""
    admit(context, spec.tenant, quotas.of_instance(Instance(spec=spec, state=State.CREATING)))


def claim(context: Context, instance: Instance, plan: Plan) -> None:
    """The same for another plan of an instance, which is counted from here on beside the one that it has."""
    before, after = quotas.of_instance(instance), quotas.of_instance(instance, plan)
    grows = {name: getattr(after, name) - getattr(before, name) for name in ("memory", "cpus", "disk")}
    admit(context, instance.spec.tenant, Used(**grows))
    Access(context.state).claim(instance.spec.id, plan)


def drop_claim(context: Context, instance_id: str) -> None:
    """The change is through. Idempotent."""
    Access(context.state).drop_claim(instance_id)


def _claiming(instance: Instance, claimed: Plan | None) -> Instance:
    if claimed is None:
        return instance
    plan = instance.spec.plan
    larger = {name: max(getattr(plan, name), getattr(claimed, name)) for name in ("memory", "swap", "cpus", "disk")}
    spec = instance.spec.model_copy(update={"plan": plan.model_copy(update=larger)})
    return instance.model_copy(update={"spec": spec})
