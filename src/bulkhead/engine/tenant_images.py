"""Images as a tenant sees them: its own and public ones, made of what comes with the request alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar

from bulkhead.engine.context import Context
from bulkhead.engine.images import ImageCatalog
from bulkhead.engine.quotas import admit, image_space, images_left
from bulkhead.engine.registries import Access as Credentials
from bulkhead.engine.registries import RegistryCatalog
from bulkhead.engine.unikernel_builds import Order
from bulkhead.errors import Forbidden, Problem, Refused
from bulkhead.events import Progress
from bulkhead.images import Image
from bulkhead.images.loading import Loaded
from bulkhead.quantities import format_size
from bulkhead.store.access import Access
from bulkhead.tenancy import acting
from bulkhead.tenancy.quotas import Used

UNNAMED = "a tenant's image needs a name"
SEND = "send the file in the request's body: bulkhead does so where --url is given"
Made = TypeVar("Made", Image, Loaded)


class TenantImages:
    """What ImageCatalog does for everybody, for one tenant."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._catalog = ImageCatalog(context)
        context.images.layout.left = lambda: images_left(context, context.tenant, context.images)

    def within_quota(self, make: Callable[[], Image]) -> Image:
        """Make an image; where the tenant's images then take more than they may, its names go, and it is refused."""
        return self.all_within_quota(lambda: [make()])[0]

    def all_within_quota(self, make: Callable[[], Sequence[Made]]) -> Sequence[Made]:
        """The same for several."""
        context, tenant = self._context, self._context.tenant
        admit(context, tenant, Used(images=1))
        made = make()
        most = Access(context.state).tenant(tenant).quota.images
        names = [name for each in made for name in context.images.resolve(_image(each).digest).references]
        with context.locks.hold(f"images-{tenant}"):
            if most is not None and (has := image_space(context, tenant)) > most:
                for name in context.images.own_names() & set(names):
                    self._catalog.remove(name, force=False)
                what = f"the images of tenant {tenant} would take {format_size(has)}, and may take {format_size(most)}"
                raise Refused([Problem(what, "remove some, or ask the operator for more")])
        for name in names:
            acting.touched("image", name)
        return made

    def list(self) -> Sequence[Image]:
        """Its own and public ones."""
        return self._catalog.list()

    def resolve(self, reference: str) -> Image:
        """The image that is meant. Raises NotFound."""
        return self._catalog.resolve(reference)

    def inspect(self, reference: str) -> Mapping[str, object]:
        """One of them."""
        return self._catalog.inspect(reference)

    def import_file(
        self, source: Path | BinaryIO, *, name: str | None, changes: Sequence[str] = (), progress: Progress
    ) -> Image:
        """Read an archive that comes with the request."""
        if isinstance(source, Path):
            raise Forbidden(f"{source} is a path of the host: it is not for tenants", hint=SEND)
        named = _named(name)
        return self.within_quota(
            lambda: self._catalog.import_file(source, name=named, changes=changes, progress=progress)
        )

    def load(self, source: Path | BinaryIO, *, all_platforms: bool, progress: Progress) -> Sequence[Loaded]:
        """Take in every image of an archive that comes with the request, under the names that it has there."""
        if isinstance(source, Path):
            raise Forbidden(f"{source} is a path of the host: it is not for tenants", hint=SEND)
        return self.all_within_quota(lambda: self._catalog.load(source, all_platforms=all_platforms, progress=progress))

    def import_onto(
        self, base: str, stream: BinaryIO, *, name: str | None, changes: Sequence[str] = (), progress: Progress
    ) -> Image:
        """Make an image of one of them and a layer on top."""
        named = _named(name)
        return self.within_quota(
            lambda: self._catalog.import_onto(base, stream, name=named, changes=changes, progress=progress)
        )

    def import_unikernel(
        self, source: Path | BinaryIO, *, name: str | None, cmdline: str, kind: str, progress: Progress
    ) -> Image:
        """Read a kernel that comes with the request, with its application in it."""
        if isinstance(source, Path):
            raise Forbidden(f"{source} is a path of the host: it is not for tenants", hint=SEND)
        named = _named(name)
        return self.within_quota(
            lambda: self._catalog.import_unikernel(source, name=named, cmdline=cmdline, kind=kind, progress=progress)
        )

    def build_unikernel(self, order: Order, progress: Progress) -> NoReturn:
        """Not for tenants: it reads programs of the host, and boots the operator's kernels."""
        raise Forbidden("unikernels are built by the operator", hint="bulkhead image import --unikernel FILE")

    def bootstrap(
        self,
        release: str,
        *,
        packages: Sequence[str],
        name: str | None,
        architecture: str | None,
        mirrors: Sequence[str],
        config: Mapping[str, object],
        progress: Progress,
    ) -> NoReturn:
        """Not for tenants: maintainer scripts run on the host."""
        raise Forbidden("images are bootstrapped by the operator", hint="pull one, import one, or build one")

    def bootstrap_disk(
        self,
        release: str,
        *,
        packages: Sequence[str],
        name: str | None,
        size: int | None,
        firmware: str | None,
        progress: Progress,
    ) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("machines' disks are made by the operator", hint="import one of your own")

    def make_kernel(
        self, distribution: str, *, trim: bool, version: str | None, name: str | None, progress: Progress
    ) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("kernels are the operator's")

    def prepare_rescue(self, progress: Progress) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("disks of the host are rescued by the operator")

    def save(self, references: Sequence[str], *, form: str) -> Iterator[bytes]:
        """Some of them as one archive."""
        return self._catalog.save(references, form=form)

    def tag(self, reference: str, targets: Sequence[str]) -> object:
        """Give one of them more names, which are the tenant's own."""
        for target in targets:
            acting.touched("image", target)
        return self._catalog.tag(reference, targets)

    def remove(self, reference: str, *, force: bool) -> object:
        """Drop a name of its own; what nobody else has or needs goes with it."""
        return self._catalog.remove(reference, force=force)

    def publish(self, reference: str, *, public: bool) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("what every tenant sees is the operator's to say")

    def published(self) -> Sequence[str]:
        """Names of images that every tenant sees."""
        return self._catalog.published()

    def prune(self, *, everything: bool) -> object:
        """Not for tenants: what nobody needs is everybody's."""
        raise Forbidden("what is not needed any more is removed by the operator", hint="bulkhead image rm NAME")


def _image(made: Image | Loaded) -> Image:
    return made.image if isinstance(made, Loaded) else made


def _named(name: str | None) -> str:
    if not name:
        raise Refused(UNNAMED, hint="give one: --name NAME")
    return name


class TenantRegistries(RegistryCatalog):
    """Registries with a tenant's images: credentials come with each request, and nobody else's are used."""

    outward = True

    def __init__(self, context: Context, images: TenantImages) -> None:
        super().__init__(context)
        self._images = images

    def pull(
        self, reference: str, *, policy: str, platform: str | None, access: Credentials, progress: Progress
    ) -> Image:
        """See RegistryCatalog.pull."""
        if access.tls_verify is False:
            raise Forbidden("registries without TLS are the operator's to allow", hint="leave out --tls-verify=false")
        pull = super().pull
        return self._images.within_quota(
            lambda: pull(reference, policy=policy, platform=platform, access=access, progress=progress)
        )

    def pull_all(self, reference: str, *, access: Credentials, progress: Progress) -> list[Image]:
        """See RegistryCatalog.pull_all."""
        if access.tls_verify is False:
            raise Forbidden("registries without TLS are the operator's to allow", hint="leave out --tls-verify=false")
        pull = super().pull_all
        return list(self._images.all_within_quota(lambda: pull(reference, access=access, progress=progress)))
