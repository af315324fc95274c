"""Images that another host of the fleet has: they are fetched from there before any registry is asked."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import urlencode

from bulkhead.errors import BulkheadError, NoImage
from bulkhead.events import Progress, quiet
from bulkhead.fleet import Host
from bulkhead.host import peers
from bulkhead.model import CreateRequest
from bulkhead.tenancy.names import DEFAULT
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.roles import Role

log = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS = 600.0
"""Within which a host goes on sending."""


class Loads(Protocol):
    """What takes images in."""

    def load(self, source: BinaryIO, *, all_platforms: bool, progress: Progress) -> object:
        """Every image of an archive."""


class Fetcher:
    """Looks for images at the other hosts."""

    def __init__(self, *, others: Callable[[], list[Host]], tls: Callable[[], ssl.SSLContext]) -> None:
        self._others, self._tls = others, tls

    def having(self, request: CreateRequest, work: Callable[[], T], images: Loads) -> T:
        """What `work` makes; where the request's image is missing for it and another host has it, with that."""
        try:
            return work()
        except NoImage:
            if not request.image or not self.bring(request.image, images, request.tenant):
                raise
        return work()

    def bring(self, reference: str, images: Loads, tenant: str | None) -> bool:
        """Fetch an image from whoever has it; False where nobody does."""
        query = urlencode({"reference": reference})
        # A tenant finds there what it would find there by itself.
        headers = {} if tenant in (None, DEFAULT) else {HEADER: encode(Principal("fetcher", Role.TENANT, tenant))}
        for host in self._others():
            try:
                context = self._tls()
                peers.call(host.address, "GET", f"/v1/images/inspect?{query}", context=context, headers=headers)
                path = f"/v1/images/save?{query}&format=oci-archive"  # which holds kernels as well
                with peers.stream(host.address, path, context=context, headers=headers, timeout=SECONDS) as body:
                    images.load(body, all_platforms=False, progress=quiet)
            except BulkheadError as error:
                log.info("image %s does not come from host %s: %s", reference, host.name, error.what)
                continue
            log.info("image %s has come from host %s", reference, host.name)
            return True
        return False
