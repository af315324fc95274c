"""What each route answers with: the part of the API's description that its code does not say by itself.

The routes serialize straight from the engine's records, without a model in between; so this table says what comes, and
a test asks the API for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bulkhead.api.billing import Summary
from bulkhead.api.fleet import AuthorityShown, Explained, InvitationShown
from bulkhead.api.responses import NDJSON, TAR
from bulkhead.api.rooms import LAYER
from bulkhead.api.sse import EVENT_STREAM
from bulkhead.engine.fleet.membership import Welcome
from bulkhead.engine.reports import Usage
from bulkhead.events import Event
from bulkhead.fleet import FleetView, Host, HostLine, Load, ReplicaLine
from bulkhead.images import Image, Pruned
from bulkhead.images.pushing import Pushed
from bulkhead.isolation.base import Ability
from bulkhead.metering.invoices import Invoice
from bulkhead.metering.prices import Price
from bulkhead.model import Exit, Instance, Isolation, NamedPlan, Network, Snapshot, Volume
from bulkhead.moves import Drained, Held, Judgement, Moved, Rebalanced, Receipt, Settled
from bulkhead.operation import Operation
from bulkhead.secret import Secret
from bulkhead.storage.changes import Changes
from bulkhead.tenancy.roles import Permission, Role

FRAMES = "application/vnd.bulkhead.frames"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Ping:
    """The daemon answers."""

    pid: int


@dataclass(frozen=True, slots=True)
class WhoAmI:
    """Who asks."""

    user: str
    role: Role
    tenant: str | None
    permissions: list[Permission]


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed."""

    id: str


@dataclass(frozen=True, slots=True)
class Words:
    """Something in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Level:
    """A level of isolation as it is on this host."""

    level: Isolation
    works: bool
    reason: str
    hint: str
    not_isolated: list[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of `--isolation auto`."""

    number: int
    when: str
    level: Isolation
    because: str


@dataclass(frozen=True, slots=True)
class Walls:
    """The levels, and the rules by which one is chosen."""

    levels: list[Level]
    rules: list[Rule]


@dataclass(frozen=True, slots=True)
class Source:
    """A registry that an image may come from or go to."""

    registry: str
    repository: str
    name: str
    mirror: bool


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image of an archive."""

    image: Image
    names: list[str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an archive held."""

    images: list[LoadedImage]


@dataclass(frozen=True, slots=True)
class Published:
    """Whether every tenant sees an image."""

    name: str
    public: bool


@dataclass(frozen=True, slots=True)
class Tried:
    """A login that is good."""

    registry: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A route's good answer. `type` is what the JSON is; of NDJSON, of its last line's `result`; None: no JSON."""

    type: Any = None
    status: int = 200
    media: str = JSON
    also: tuple[int, ...] = ()
    """Other statuses that are good, without a body."""
    lasts: bool = False
    """It can be detached, and is an operation then: 202."""
    forms: tuple[str, ...] = ()
    """Other media types in which it can be asked for."""
    stream: str = ""
    """What NDJSON of another kind, frames and archives hold, in words."""


def _long(result: Any) -> Answer:
    return Answer(result, media=NDJSON, lasts=True)


_DONE = Answer(status=204)
_MAPPING = Answer(dict[str, Any])
_MAPPINGS = Answer(list[dict[str, Any]])
_STREAM = Answer(media=FRAMES, stream="frames, see docs/reference/http-api.md")
_INSTANCE = Answer(Instance)
_CHANGED = Answer(Instance, lasts=True)

ANSWERS: dict[str, Answer] = {
    "ping": Answer(Ping),
    "whoami": Answer(WhoAmI),
    "info": _MAPPING,
    "host": _MAPPING,
    "doctor": Answer(list[Ability]),
    "isolation": Answer(Walls),
    "events": Answer(Event, media=NDJSON, stream="an event on each line"),
    "list_instances": Answer(list[Instance]),
    "create_instance": Answer(Instance, status=201, lasts=True),
    "dry_run": Answer(Words),
    "get_instance": _INSTANCE,
    "delete_instance": Answer(Removed, lasts=True),
    "update_instance": _INSTANCE,
    "describe_instance": _MAPPING,
    "start_instance": _CHANGED,
    "stop_instance": _CHANGED,
    "restart_instance": _CHANGED,
    "kill_instance": _INSTANCE,
    "pause_instance": _INSTANCE,
    "unpause_instance": _INSTANCE,
    "move_instance": _long(Moved),
    "judge_arrival": Answer(Judgement),
    "receive_arrival": Answer(Receipt, status=201),
    "carry_arrival": Answer(media="application/octet-stream"),
    "complete_arrival": Answer(Receipt),
    "settle_arrival": Answer(Settled),
    "ask_replica": Answer(Held),
    "receive_replica": Answer(Receipt, status=201),
    "wait_instance": Answer(Exit, also=(204,)),
    "stats": Answer(list[Usage]),
    "logs": Answer(media=NDJSON, stream="an entry of the log on each line: when, stream, text, partial"),
    "copy_out": Answer(media=TAR, stream="a tar archive"),
    "copy_in": _DONE,
    "run": _STREAM,
    "run_instance": _STREAM,
    "attach": _STREAM,
    "exec_command": _STREAM,
    "list_images": Answer(list[Image]),
    "inspect_image": _MAPPING,
    "list_public_images": Answer(list[str]),
    "publish_image": Answer(Published),
    "save_images": Answer(media=TAR, stream="an archive of images"),
    "remove_image": Answer(list[str]),
    "prune_images": Answer(Pruned, lasts=True),
    "bootstrap_image": _long(Image),
    "bootstrap_disk": _long(Image),
    "make_kernel": _long(Image),
    "prepare_rescue": _long(Image),
    "build_unikernel": _long(Image),
    "load_images": _long(Loaded),
    "import_image": _long(Image),
    "build": _long(Image),
    "list_sources": Answer(list[Source]),
    "pull_image": _long(Image),
    "push_image": _long(Pushed),
    "tag_image": Answer(list[str]),
    "list_tags": Answer(list[str]),
    "list_referrers": Answer(list[dict[str, Any]]),
    "try_login": Answer(Tried),
    "list_plans": Answer(list[NamedPlan]),
    "create_plan": Answer(NamedPlan, status=201),
    "get_plan": Answer(NamedPlan),
    "remove_plan": _DONE,
    "list_networks": Answer(list[Network]),
    "create_network": Answer(Network, status=201),
    "get_network": Answer(Network),
    "remove_network": _DONE,
    "list_volumes": Answer(list[Volume]),
    "create_volume": Answer(Volume, status=201),
    "get_volume": Answer(Volume),
    "remove_volume": _DONE,
    "list_secrets": Answer(list[Secret]),
    "create_secret": Answer(Secret, status=201),
    "get_secret": Answer(Secret),
    "remove_secret": _DONE,
    "list_snapshots": Answer(list[Snapshot]),
    "create_snapshot": _long(Snapshot),
    "get_snapshot": Answer(Snapshot),
    "remove_snapshot": _DONE,
    "restore_snapshot": _long(Instance),
    "hold_name": Answer(media=NDJSON, stream="a name for an image; the answer stays open as long as it is wanted"),
    "open_room": Answer(media=NDJSON, stream="the room's record; the answer stays open as long as the room is wanted"),
    "get_changes": Answer(Changes),
    "get_layer": Answer(media=LAYER, stream="an OCI layer"),
    "watch": Answer(media=NDJSON, stream="an execution or an opened file on each line"),
    "end_watch": _DONE,
    "list_operations": Answer(list[Operation]),
    "get_operation": Answer(Operation),
    "cancel_operation": Answer(Operation, status=202, also=(204,)),
    "follow_operation": Answer(media=NDJSON, stream="progress on each line, at last the operation"),
    "usage": _MAPPING,
    "list_prices": Answer(list[Price]),
    "set_price": Answer(Price, status=201),
    "remove_price": _DONE,
    "list_invoices": Answer(list[Summary]),
    "issue_invoice": Answer(Invoice, status=201),
    "invoice_of_month": Answer(Invoice, forms=("text/html", "application/pdf")),
    "invoice": Answer(Invoice, forms=("text/html", "application/pdf")),
    "audit_instance": _long(dict[str, Any]),
    "audit_level": _long(dict[str, Any]),
    "list_tenants": _MAPPINGS,
    "get_tenant": _MAPPING,
    "create_tenant": Answer(dict[str, Any], status=201),
    "update_tenant": _MAPPING,
    "remove_tenant": _DONE,
    "list_users": _MAPPINGS,
    "create_user": Answer(dict[str, Any], status=201),
    "remove_user": _DONE,
    "list_tokens": _MAPPINGS,
    "create_token": Answer(dict[str, Any], status=201),
    "remove_token": _DONE,
    "get_trail": _MAPPINGS,
    "get_fleet": Answer(FleetView),
    "init_fleet": Answer(FleetView, status=201),
    "change_fleet": Answer(FleetView),
    "explain_place": Answer(Explained),
    "list_replicas": Answer(list[ReplicaLine]),
    "join_fleet": Answer(FleetView, status=201),
    "leave_fleet": _DONE,
    "invite_host": Answer(InvitationShown, status=201),
    "get_authority": Answer(AuthorityShown),
    "admit_host": Answer(Welcome, status=201),
    "list_hosts": Answer(list[HostLine]),
    "get_host_of_fleet": Answer(HostLine),
    "change_host": Answer(Host),
    "remove_host": _DONE,
    "drain_host": _long(Drained),
    "rebalance_fleet": _long(Rebalanced),
    "list_loads": Answer(list[Load]),
}
"""By the name of the route's function, which is its operationId and the kind of its operations."""
EVENT_STREAMS = ("events", "follow_operation")
"""Those that answer with server-sent events where the client accepts them."""
STREAMED = {EVENT_STREAM, NDJSON, FRAMES, TAR, LAYER}
