"""A store as one tenant sees it: its own names and those that are public, and no image that neither leads to.

What is on disk is shared by all. A tenant's names are kept in the index as TENANT@NAME, and it sees them without that.
Nothing of an image that it cannot see is believed to be there: who knows a digest has not got what it stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.images.layout import Draft, Index, Layout
from bulkhead.tenancy.names import SEPARATOR, qualified

Public = Callable[[], Collection[str]]
"""Names of the default tenant's images that everybody may see, now."""


class ScopedLayout(Layout):
    """The layout `base` as `tenant` sees it."""

    def __init__(self, base: Layout, tenant: str, public: Public) -> None:
        super().__init__(base.root, base.bounds)
        self._base, self._tenant, self._public = base, tenant, public
        self.tenant, self.shares = tenant, base.shares
        # What has come of a blob whose rest a registry of the tenant's own choice would send.
        self.partial: Path = base.partial.with_name(f"{base.partial.name}{SEPARATOR}{tenant}")
        self.partial.mkdir(mode=0o700, exist_ok=True)
        self._shown: tuple[Index, frozenset[str], Index] | None = None

    def index(self) -> Index:
        """What is visible."""
        whole, public = self._base.index(), frozenset(self._public())
        shown = self._shown
        if shown is None or shown[0] is not whole or shown[1] != public:
            names = visible(whole.names, self._tenant, public)
            there = set(names.values())
            images = {digest: entry for digest, entry in whole.images.items() if digest in there}
            self._shown = shown = (whole, public, Index(images, names))
        return shown[2]

    def own_names(self) -> set[str]:
        """The tenant's own."""
        return set(own(self._base.index().names, self._tenant))

    @contextmanager
    def held(self) -> Iterator[Draft]:
        """All images, and the tenant's own names as it says them: what it takes away is a name."""
        with self._base.held() as draft:
            yield Draft(draft.images, own(draft.names, self._tenant))

    def write(self, draft: Draft) -> None:
        """Put its names in the place of those that it had. No image goes: others may have it too."""
        before = self._base.index()
        mine = {key for key in before.names if _is_own(key, self._tenant)}
        names = {name: digest for name, digest in before.names.items() if name not in mine}
        names.update({qualified(self._tenant, name): digest for name, digest in draft.names.items()})
        draft.images.update({digest: entry for digest, entry in before.images.items() if digest not in draft.images})
        self._base.write(Draft(draft.images, names))

    def may_reuse(self, path: Path, *, size: int | None = None) -> bool:
        """Whether what an image of somebody's choice names is there, and is this tenant's to have."""
        return path in self._files() and self.is_sound(path, size=size)

    def step(self, step: str) -> str:
        """What a step of a build is known by: what another tenant's has come to is not this one's."""
        return "sha256:" + hashlib.sha256(f"{self._tenant}{SEPARATOR}{step}".encode()).hexdigest()

    def _files(self) -> set[Path]:
        found: set[Path] = set()
        for digest in self.index().images:
            try:
                manifest, _ = self.documents(digest)
            except ImageError:
                continue
            blobs = (manifest.config, *manifest.layers)
            found |= {self.blob_path(digest), *(self.blob_path(blob.digest) for blob in blobs)}
        return found


def own(names: Mapping[str, str], tenant: str) -> dict[str, str]:
    """The tenant's names as it says them, with their digests."""
    return {_said(key): digest for key, digest in names.items() if _is_own(key, tenant)}


def visible(names: Mapping[str, str], tenant: str, public: Collection[str]) -> dict[str, str]:
    """The names that a tenant sees; its own go before public ones."""
    shared = {name: digest for name, digest in names.items() if SEPARATOR not in name and name in public}
    return {**shared, **own(names, tenant)}


def _is_own(key: str, tenant: str) -> bool:
    return qualified(tenant, _said(key)) == key


def _said(key: str) -> str:
    return key.partition(SEPARATOR)[2] or key
