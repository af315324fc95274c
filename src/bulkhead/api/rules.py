"""Who may use which route: one permission for each. A route without a rule is nobody's, and a test finds it.

What a route shows is not said here: it is handed the engine as whoever asks sees it (`service_of`).
"""

from __future__ import annotations

from collections.abc import Mapping

from bulkhead.tenancy.roles import Permission

_R, _I, _E, _G = Permission.READ, Permission.INSTANCES, Permission.EXEC, Permission.IMAGES
_H, _T, _K = Permission.HOST, Permission.TENANTS, Permission.TOKENS

RULES: Mapping[str, Permission] = {
    # the daemon
    "GET /v1/ping": _R,
    "GET /v1/info": _R,
    "GET /v1/isolation": _R,
    "GET /v1/events": _R,
    "GET /v1/doctor": _H,
    "GET /v1/host": _H,
    "GET /v1/whoami": _R,
    "GET /v1/operations": _R,
    "GET /v1/operations/{operation}": _R,
    "GET /v1/operations/{operation}/events": _R,
    "DELETE /v1/operations/{operation}": _I,
    # instances
    "GET /v1/instances": _R,
    "GET /v1/instances/{ref}": _R,
    "GET /v1/instances/{ref}/describe": _R,
    "GET /v1/instances/{ref}/wait": _R,
    "GET /v1/instances/{ref}/logs": _R,
    "GET /v1/instances/{ref}/changes": _R,
    "GET /v1/stats": _R,
    "GET /v1/usage": _R,
    "GET /metrics": _R,
    "GET /v1/prices": _R,
    "POST /v1/prices": _H,
    "DELETE /v1/prices/{number}": _H,
    "GET /v1/invoices": _R,
    "GET /v1/invoices/month/{month}": _R,
    "GET /v1/invoices/{number}": _R,
    "POST /v1/invoices": _H,
    "POST /v1/instances": _I,
    "POST /v1/dry-run": _H,
    "POST /v1/run": _I,
    "POST /v1/rooms": _I,
    "POST /v1/instances/{ref}/start": _I,
    "POST /v1/instances/{ref}/stop": _I,
    "POST /v1/instances/{ref}/restart": _I,
    "POST /v1/instances/{ref}/kill": _I,
    "POST /v1/instances/{ref}/pause": _I,
    "POST /v1/instances/{ref}/unpause": _I,
    "POST /v1/instances/{ref}/move": _I,
    "PATCH /v1/instances/{ref}": _I,
    "DELETE /v1/instances/{ref}": _I,
    "POST /v1/instances/{ref}/run": _E,
    "POST /v1/instances/{ref}/attach": _E,
    "POST /v1/instances/{ref}/exec": _E,
    "GET /v1/instances/{ref}/attach": _E,
    "GET /v1/instances/{ref}/exec": _E,
    "GET /v1/instances/{ref}/files": _E,
    "PUT /v1/instances/{ref}/files": _E,
    "GET /v1/instances/{ref}/changes/layer": _E,
    "GET /v1/instances/{ref}/watch": _E,
    "DELETE /v1/instances/{ref}/watch": _E,
    # audits: reports name the host's paths, and addresses of other tenants
    "POST /v1/audit": _H,
    "POST /v1/instances/{ref}/audit": _H,
    # snapshots
    "GET /v1/snapshots": _R,
    "GET /v1/instances/{ref}/snapshots/{name}": _R,
    "POST /v1/instances/{ref}/snapshots": _I,
    "POST /v1/instances/{ref}/snapshots/{name}/restore": _I,
    "DELETE /v1/instances/{ref}/snapshots/{name}": _I,
    # images
    "GET /v1/images": _R,
    "GET /v1/images/inspect": _R,
    "GET /v1/images/public": _R,
    "GET /v1/images/save": _G,
    "GET /v1/registries/sources": _G,
    "POST /v1/registries/tags": _G,
    "POST /v1/registries/referrers": _G,
    "POST /v1/registries/login": _G,
    "POST /v1/images/pull": _G,
    "POST /v1/images/push": _G,
    "POST /v1/images/tag": _G,
    "POST /v1/images/import": _G,
    "POST /v1/images/load": _G,
    "POST /v1/images/temporary": _G,
    "POST /v1/images/remove": _G,
    "POST /v1/build": _G,
    "POST /v1/images/prune": _H,
    "POST /v1/images/public": _H,
    "POST /v1/images/bootstrap": _H,
    "POST /v1/images/disk": _H,
    "POST /v1/images/kernel": _H,
    "POST /v1/images/rescue": _H,
    "POST /v1/images/unikernel": _H,
    # plans, networks, volumes, secrets
    "GET /v1/plans": _R,
    "GET /v1/plans/{name}": _R,
    "POST /v1/plans": _H,
    "DELETE /v1/plans/{name}": _H,
    "GET /v1/networks": _R,
    "GET /v1/networks/{name}": _R,
    "POST /v1/networks": Permission.NETWORKS,
    "DELETE /v1/networks/{name}": Permission.NETWORKS,
    "GET /v1/volumes": _R,
    "GET /v1/volumes/{name}": _R,
    "POST /v1/volumes": Permission.VOLUMES,
    "DELETE /v1/volumes/{name}": Permission.VOLUMES,
    "GET /v1/secrets": _R,
    "GET /v1/secrets/{name}": _R,
    "POST /v1/secrets": Permission.SECRETS,
    "DELETE /v1/secrets/{name}": Permission.SECRETS,
    # tenants, users, tokens, the trail
    "GET /v1/tenants": _R,
    "GET /v1/tenants/{name}": _R,
    "POST /v1/tenants": _T,
    "PATCH /v1/tenants/{name}": _T,
    "DELETE /v1/tenants/{name}": _T,
    "GET /v1/users": _R,
    "POST /v1/users": _T,
    "DELETE /v1/users/{name}": _T,
    "GET /v1/tokens": _K,
    "POST /v1/tokens": _K,
    "DELETE /v1/tokens/{identifier}": _K,
    "GET /v1/trail": _R,
    # the fleet and its hosts. Who may ask for the two that join is said by the door of the hosts alone.
    "GET /v1/fleet": _H,
    "POST /v1/fleet": _T,
    "PATCH /v1/fleet": _T,
    "POST /v1/fleet/explain": _H,
    "POST /v1/fleet/rebalance": _H,
    "GET /v1/fleet/loads": _H,
    "GET /v1/fleet/replicas": _H,
    "POST /v1/fleet/membership": _T,
    "DELETE /v1/fleet/membership": _T,
    "POST /v1/fleet/invitations": _T,
    "GET /v1/fleet/authority": _R,
    "POST /v1/fleet/join": _R,
    # by hosts alone, which the routes see to themselves
    "POST /v1/fleet/arrivals": _T,
    "PUT /v1/fleet/arrivals/{instance}": _T,
    "POST /v1/fleet/arrivals/{instance}/stream": _T,
    "PUT /v1/fleet/arrivals/{instance}/rest": _T,
    "POST /v1/fleet/arrivals/{instance}/settle": _T,
    "POST /v1/fleet/replicas/{instance}/digests": _T,
    "PUT /v1/fleet/replicas/{instance}": _T,
    "GET /v1/hosts": _H,
    "GET /v1/hosts/{ref}": _H,
    "PATCH /v1/hosts/{ref}": _H,
    "DELETE /v1/hosts/{ref}": _T,
    "POST /v1/hosts/{ref}/drain": _H,
}

PUBLIC = frozenset({"GET /", "GET /favicon.ico", "GET /web/{digest}/{name:path}"})
"""The page's files, which hold nothing of anybody's: whoever is to sign in needs them first."""
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
NO_CHANGE = frozenset(
    {
        "POST /v1/dry-run",
        "POST /v1/fleet/explain",
        "POST /v1/registries/tags",
        "POST /v1/registries/referrers",
        "POST /v1/registries/login",
    }
)
"""Routes that change nothing though their method says so."""


def changes(key: str) -> bool:
    """Whether the route `key` (method and path) changes something, so that the trail has to tell of it."""
    return key.partition(" ")[0] not in LOOKING and key not in NO_CHANGE
