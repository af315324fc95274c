"""Bridges, addresses, ports, names and shaping: what instances reach, and what reaches them."""

from bulkhead.network.networks import Networks
from bulkhead.network.recovery import Running
from bulkhead.network.wiring import Connection

__all__ = ["Connection", "Networks", "Running"]
