"""Several files as one, and services that extend others: by the rules of the Compose specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bulkhead.compose import nodes
from bulkhead.compose.nodes import Mapping, Node, Place, Scalar, Sequence, Troubles

RESET, OVERRIDE = "!reset", "!override"
_REPLACED = ("command", "entrypoint", "test")
"""Lists that are one thing: a later one takes the place of the earlier."""
_PAIRS = ("environment", "labels", "args", "extra_hosts", "sysctls", "annotations")
"""K=V, in either form: merged by K."""
_NAMES = ("depends_on", "networks")
"""A list of names stands for a mapping of them to nothing."""
_NOT_EXTENDED = ("depends_on", "links", "volumes_from")
Load = Callable[[str, Place], Mapping]
"""Another file's tree, by its path as it was written, and where it was written."""


def merge(base: Node, over: Node, key: str = "") -> Node:
    """`over` on top of `base`: mappings by key, lists one after the other, anything else replaced."""
    if over.tag == OVERRIDE or base.tag == RESET:
        return replace(over, tag="")
    if over.tag == RESET:
        return over
    if key in _PAIRS:
        base, over = _as_mapping(base), _as_mapping(over)
    elif key in _NAMES and not (isinstance(base, Sequence) and isinstance(over, Sequence)):
        base, over = _as_names(base, key), _as_names(over, key)
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        items = dict(base.items)
        for name, node in over.items.items():
            items[name] = merge(items[name], node, name) if name in items else node
        return replace(over, items=items, keys={**base.keys, **over.keys})
    if isinstance(base, Sequence) and isinstance(over, Sequence) and key not in _REPLACED:
        return replace(over, items=_joined(base, over, key))
    if key == "env_file":
        return Sequence(over.place, items=(*_listed(base), *_listed(over)))
    nothing = isinstance(over, Scalar) and over.value is None
    return base if nothing and isinstance(base, Mapping) else over


def without_reset(node: Node) -> Node:
    """The tree without what was taken out."""
    if isinstance(node, Mapping):
        kept = {name: without_reset(each) for name, each in node.items.items() if each.tag != RESET}
        return replace(node, items=kept)
    if isinstance(node, Sequence):
        return replace(node, items=tuple(without_reset(each) for each in node.items if each.tag != RESET))
    return node


def extend(root: Mapping, load: Load, troubles: Troubles) -> Mapping:
    """The services with what they extend below them."""
    services = root.items.get("services")
    if not isinstance(services, Mapping):
        return root
    made = {name: _extended(name, services, load, troubles, ()) for name in services.items}
    return nodes.with_items(root, {**root.items, "services": replace(services, items=made)})


def _extended(name: str, services: Mapping, load: Load, troubles: Troubles, path: tuple[str, ...]) -> Node:
    service = services.items[name]
    if not isinstance(service, Mapping) or "extends" not in service.items:
        return service
    asked = service.items["extends"]
    where = f"services.{name}.extends"
    file, base_name = "", ""
    if isinstance(asked, Scalar):
        base_name = asked.text
    elif isinstance(asked, Mapping):
        base_name = _text(asked.items.get("service"))
        file = _text(asked.items.get("file"))
        for key in asked.items:
            if key not in ("service", "file"):
                troubles.add(asked.keys.get(key, asked.place), f"{where}.{key}", "this key is not known")
    rest = replace(service, items={key: node for key, node in service.items.items() if key != "extends"})
    step = f"{file or service.place.file}:{base_name}"
    if step in path:
        troubles.add(asked.place, where, f"services extend one another in a circle: {' -> '.join((*path, step))}")
        return rest
    others: Node | None = services
    if file:
        others = load(file, asked.place).items.get("services")
    if not isinstance(others, Mapping) or base_name not in others.items:
        troubles.add(asked.place, where, f"there is no service {base_name!r} in {file or 'this file'}")
        return rest
    base = _extended(base_name, others, load, troubles, (*path, step))
    if not isinstance(base, Mapping):
        return rest
    for key in _NOT_EXTENDED:
        if file and key in base.items and key not in rest.items:
            what = f"{base_name} of {file} has {key}, which is not taken over from another file"
            troubles.add(asked.place, where, what, f"say {key} in this file as well")
    base = replace(base, items={key: node for key, node in base.items.items() if not (file and key in _NOT_EXTENDED)})
    return merge(base, rest)


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _listed(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Sequence) else (node,)


def _as_mapping(node: Node) -> Node:
    """K=V of a list as a mapping; what is no K=V is left for the reader to tell."""
    if not isinstance(node, Sequence) or not all(isinstance(each, Scalar) for each in node.items):
        return node
    items: dict[str, Node] = {}
    keys: dict[str, Place] = {}
    for each in node.items:
        assert isinstance(each, Scalar)
        name, equals, value = each.text.partition("=")
        items[name] = replace(each, text=value, plain=not equals)
        keys[name] = each.place
    return Mapping(node.place, node.tag, items=items, keys=keys)


def _as_names(node: Node, key: str) -> Node:
    if not isinstance(node, Sequence) or not all(isinstance(each, Scalar) for each in node.items):
        return node
    items: dict[str, Node] = {}
    keys: dict[str, Place] = {}
    for each in node.items:
        assert isinstance(each, Scalar)
        started = Scalar(each.place, text="service_started")
        inner = {"condition": started} if key == "depends_on" else {}
        items[each.text] = Mapping(each.place, items=dict(inner), keys=dict.fromkeys(inner, each.place))
        keys[each.text] = each.place
    return Mapping(node.place, node.tag, items=items, keys=keys)


def _joined(base: Sequence, over: Sequence, key: str) -> tuple[Node, ...]:
    """One list after the other; of volumes, configs and secrets a later one for the same target replaces."""
    if key not in ("volumes", "configs", "secrets", "ports", "expose", "profiles"):
        return (*base.items, *over.items)
    kept: dict[str, Node] = {}
    for each in (*base.items, *over.items):
        kept[_identity(each, key)] = each
    return tuple(kept.values())


def _identity(node: Node, key: str) -> str:
    if isinstance(node, Scalar):
        parts = node.text.split(":")
        return parts[1] if key == "volumes" and len(parts) > 1 else node.text
    if isinstance(node, Mapping):
        names = ("target",) if key == "volumes" else ("target", "source", "published", "protocol", "host_ip")
        return " ".join(_text(node.items.get(name)) for name in names).strip()
    return repr(node)
