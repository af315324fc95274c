"""The engine: the lifecycle of instances, and nothing else that changes them."""

from __future__ import annotations

from bulkhead import host, limits
from bulkhead.config import Config
from bulkhead.engine.engine import Engine

__all__ = ["Engine", "build_engine"]
