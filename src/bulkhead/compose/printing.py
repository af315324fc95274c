"""A tree as text again: merged, extended, with variables put in."""

from __future__ import annotations

from typing import Any

import yaml

from bulkhead.compose import nodes
from bulkhead.compose.nodes import Node, Scalar


def as_value(node: Node) -> Any:
    """A tree as what JSON and YAML know."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, nodes.Sequence):
        return [as_value(each) for each in node.items]
    assert isinstance(node, nodes.Mapping)
    return {key: as_value(each) for key, each in node.items.items()}


def as_yaml(name: str, tree: nodes.Mapping) -> str:
    """A project's file."""
    value = {"name": name, **{key: each for key, each in as_value(tree).items() if key != "name"}}
    return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=False, allow_unicode=True)
