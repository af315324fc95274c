"""Opening the store that a fleet shares."""

from __future__ import annotations

from pathlib import Path

from bulkhead.engine.fleet.identity import Coordinates
from bulkhead.host import private
from bulkhead.store.base import Store
from bulkhead.store.etcd import TLS, EtcdStore

DIRECTORY = "fleet"


def open_shared(run_dir: Path, coordinates: Coordinates) -> Store:
    """etcd, where the coordinates say. Connects to nothing yet. Raises Refused, HostError."""
    tls = None
    if coordinates.authority and coordinates.certificate and coordinates.key:
        directory = run_dir / DIRECTORY
        directory.mkdir(mode=0o700, exist_ok=True)
        tls = TLS(
            _kept(directory / "etcd-ca.pem", coordinates.authority),
            _kept(directory / "etcd.pem", coordinates.certificate),
            _kept(directory / "etcd.key", coordinates.key),
        )
    return EtcdStore(coordinates.endpoints, cluster=coordinates.prefix, tls=tls)


def _kept(path: Path, text: str) -> Path:
    """A file for the library that reads certificates from files alone."""
    private.write(path, text.encode())
    return path
