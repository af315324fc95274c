"""Networks of a fleet: what its hosts have to agree upon, so that an instance is reached wherever it runs."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from bulkhead.modelling import Model

MOST_HOSTS = 8190
"""Hosts that have a number: those of a /19, without its first and its last."""
VXLAN4, VXLAN6, WIREGUARD4, WIREGUARD6 = 50, 70, 60, 80
"""Bytes that a packet grows by, over IPv4 and over IPv6. Within WireGuard hosts have IPv6 addresses."""


class Overlay(Model):
    """What makes a network one of the fleet's. The same on every host, for as long as there is the network."""

    vni: int = Field(ge=4096, lt=1 << 24, description="its number in VXLAN")
    mtu: int = Field(ge=1280, le=65535, description="bytes of the largest packet that fits between any two hosts")
    encrypted: bool = Field(description="packets between hosts go through WireGuard")


class Endpoint(Model):
    """Where a host takes the packets of the fleet's networks, and what it has of its own that they must not hide."""

    host: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    number: int = Field(ge=1, le=MOST_HOSTS)
    """No other host has it; its addresses on the links between hosts follow from it."""
    address: str
    """IP address, on a link of its own."""
    mtu: int = Field(ge=576, le=65535)
    """Of that link."""
    taken: dict[str, str] = Field(default={}, max_length=4096)
    """Subnets of its own networks and routes, with whose they are in words."""
    networks: tuple[str, ...] = Field(default=(), max_length=4096)
    """Keys of its own networks."""
    key: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9+/]{43}=)?$")] = ""
    """Its public key for WireGuard; "" where it has none."""
    problem: str = Field(default="", max_length=500)
    """Why it has none."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        ipaddress.ip_address(value)
        return value

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address."""
        return ipaddress.ip_address(self.address)

    @property
    def sealed_mtu(self) -> int:
        """Of its link within WireGuard."""
        return self.mtu - (WIREGUARD4 if self.ip.version == 4 else WIREGUARD6)

    def room(self, *, encrypted: bool) -> int:
        """Bytes of the largest packet of an instance that goes to other hosts in one piece."""
        if encrypted:
            return self.sealed_mtu - VXLAN6
        return self.mtu - (VXLAN4 if self.ip.version == 4 else VXLAN6)
