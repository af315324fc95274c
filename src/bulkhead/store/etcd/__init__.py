"""The store's protocol with etcd (3.4) behind it, by its JSON gateway."""

from __future__ import annotations

from bulkhead.store.etcd.gateway import TLS
from bulkhead.store.etcd.store import SERVER_FLAGS, EtcdStore

__all__ = ["SERVER_FLAGS", "TLS", "EtcdStore"]
