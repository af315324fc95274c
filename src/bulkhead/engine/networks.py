"""Networks as records; their bridges appear with the first instance and go with the network."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence

from bulkhead.engine import quotas
from bulkhead.engine.admission import SHARED_NETWORKS
from bulkhead.engine.context import Context
from bulkhead.errors import Conflict, Refused
from bulkhead.model import DEFAULT_TENANT, Network, State
from bulkhead.tenancy import acting
from bulkhead.tenancy.names import qualified
from bulkhead.tenancy.quotas import Used

log = logging.getLogger(__name__)
DEFAULT = "default"


class NetworkCatalog:
    """The networks that have a name."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def prepare(self) -> None:
        """Make the default network where there is none."""
        if DEFAULT not in {network.key for network in self.list()}:
            self.create(DEFAULT, subnet4=None, subnet6=None)

    def tell_hurdles(self) -> None:
        """Log what of this host stands in the networks' way."""
        for hurdle in self._context.networks.hurdles():
            log.warning("%s (%s)", hurdle.what, hurdle.hint)

    def list(self, *, tenant: str | None = None) -> Sequence[Network]:
        """Every network, or those of a tenant."""
        return self._context.state.networks(tenant)

    def get(self, name: str, *, tenant: str | None = None) -> Network:
        """One network: of a tenant by its name, else by `Network.key`. Raises NotFound."""
        return self._context.state.network(name, tenant=tenant)

    def create(
        self,
        name: str,
        *,
        subnet4: str | None,
        subnet6: str | None,
        tenant: str | None = None,
        fleet: bool = False,
        unencrypted: bool = False,
    ) -> Network:
        """Record a network; subnets that are not given come from the pool. Raises NotFound for a strange tenant.

        `fleet`: it is one network on all hosts of the fleet, between which what is sent can be read by whoever is on
        the way where it is `unencrypted`.
        """
        context, tenant = self._context, tenant or DEFAULT_TENANT
        if name in (*SHARED_NETWORKS, DEFAULT) and (fleet or name != DEFAULT):
            raise Conflict(f"{name!r} is the name of a built-in network", hint="choose another name")
        if unencrypted and not fleet:
            raise Refused("--unencrypted says nothing of a network that is on one host", hint="leave it out")
        if fleet:
            quotas.admit(context, tenant, Used(networks=1))
            acting.touched("network", qualified(tenant, name))
            subnets = {"subnet4": subnet4, "subnet6": subnet6}
            return context.fleet_networks.create(name, tenant=tenant, encrypted=not unencrypted, **subnets)
        chosen4, chosen6 = context.networks.choose_subnets(self.list(), subnet4, subnet6)
        network = Network(
            name=name,
            tenant=tenant,
            id=secrets.token_hex(4),
            subnet4=chosen4,
            subnet6=chosen6,
            created=time.time(),
        )
        acting.touched("network", network.key)
        with context.state.atomic():
            quotas.admit(context, tenant, Used(networks=1))
            context.state.create_network(network)
        return network

    def remove(self, name: str, *, tenant: str | None = None) -> None:
        """Remove a network that no instance names."""
        context, network = self._context, self.get(name, tenant=tenant)
        if network.name == DEFAULT:
            raise Conflict("the network default cannot be removed", hint="instances can be run with --network none")
        there = [one for one in context.state.instances() if one.state != State.DELETING]
        users = [one.spec.name for one in there if one.spec.network_key == network.key]
        if users:
            raise Conflict(f"network {name} is used by {', '.join(users)}", hint="remove these instances first")
        if network.overlay:
            context.fleet_networks.remove(network)
            return
        context.warm.forget_network(network.key)
        context.networks.down(network)
        context.state.delete_network(network.key)
