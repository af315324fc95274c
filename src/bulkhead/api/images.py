"""Routes of images. Imports and bootstraps answer with NDJSON: `{"step": ...}` lines, then a result or a problem."""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path
from typing import Annotated, BinaryIO, cast

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bulkhead.api.progress import answered, with_progress
from bulkhead.api.responses import TAR, Pipe, ThreadResponse, Upload, json_response
from bulkhead.api.service import service_of
from bulkhead.engine.unikernel_builds import Order
from bulkhead.errors import Refused
from bulkhead.events import Progress
from bulkhead.images import ImageConfig
from bulkhead.images.changes import changed
from bulkhead.model import KernelType, Model

MAX_BODY = 1 << 20

router = APIRouter(prefix="/v1", tags=["images"], max_body_size=MAX_BODY)
uploads = APIRouter(prefix="/v1", tags=["images"])
"""An archive that is uploaded is as large as it is; the importer has bounds of its own."""


class ImageConfigRequest(Model):
    """What is put into the image's configuration."""

    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    workdir: str | None = Field(default=None, pattern=r"^/.*")
    user: str | None = None
    labels: dict[str, str] = {}
    ports: tuple[str, ...] = Field(default=(), description="such as 80/tcp; for information only")
    stop_signal: str | None = None


class BootstrapRequest(Model):
    """An image made from a distribution's packages."""

    release: str = Field(min_length=1, max_length=128, description="such as debian:bookworm")
    packages: tuple[str, ...] = ()
    name: str | None = Field(default=None, max_length=256)
    architecture: str | None = Field(default=None, description="such as amd64 or i386; None: the host's")
    mirrors: tuple[str, ...] = Field(default=(), description="URLs or lines of a sources.list, not the host's own")
    config: ImageConfigRequest = ImageConfigRequest()


class DiskRequest(Model):
    """The disk of a machine that boots by itself, made from a distribution's packages."""

    release: str = Field(min_length=1, max_length=128, description="such as debian:bookworm")
    packages: tuple[str, ...] = Field(default=(), description="besides those that make it boot and be reached")
    name: str | None = Field(default=None, max_length=256)
    size: int | None = Field(default=None, gt=0, description="bytes; an instance's copy is grown to its plan")
    firmware: str | None = Field(default=None, max_length=16, description="bios or uefi")


class KernelRequest(Model):
    """A kernel for virtual machines, made from a distribution's package."""

    distribution: str = Field(default="debian", min_length=1, max_length=64, description="debian")
    trim: bool = Field(default=False, description="built from the source package, trimmed to what guests need")
    version: str | None = Field(default=None, max_length=128, description="of the package; None: the newest")
    name: str | None = Field(default=None, max_length=256)


class UnikernelRequest(Model):
    """A unikernel, made of an image or of a static program."""

    source: str = Field(min_length=1, max_length=4096, description="an image, or a program's absolute path")
    program: bool = Field(default=False, description="source is the path of a static program on the host")
    name: str = Field(min_length=1, max_length=256)
    command: tuple[str, ...] = Field(default=(), description="in the place of the image's; a program's arguments")
    keep: tuple[Annotated[str, Field(pattern=r"^/.*", max_length=4096)], ...] = Field(
        default=(), description="files and directories of the image besides what the program is linked with"
    )
    env: tuple[str, ...] = ()
    user: str | None = None
    workdir: str | None = Field(default=None, pattern=r"^/.*")
    kernel: str | None = Field(default=None, max_length=512, description="a kernel image; None: trimmed, else Debian's")


class RemoveRequest(Model):
    """Which image to remove."""

    reference: str = Field(min_length=1, max_length=512)
    force: bool = False


class PublicRequest(Model):
    """Which image of the operator's every tenant may see, or no longer."""

    reference: str = Field(min_length=1, max_length=512)
    public: bool = True


class PruneRequest(Model):
    """What may go: images without a name, or all that no instance uses."""

    everything: bool = False


@router.get("/images")
async def list_images(request: Request) -> Response:
    """Every image."""
    service = service_of(request)
    return json_response(await service.call(service.engine.images.list))


@router.get("/images/inspect")
async def inspect_image(request: Request, reference: str) -> Response:
    """One image with its configuration and layers."""
    service = service_of(request)
    return json_response(await service.call(service.engine.images.inspect, reference))


@router.get("/images/save")
async def save_images(
    request: Request, reference: Annotated[list[str], Query(min_length=1)], format: str = "docker-archive"
) -> Response:
    """Images as one archive: docker-archive, which is an OCI layout as well, or oci-archive."""
    service = service_of(request)

    def produce(pipe: Pipe) -> None:
        for chunk in service.engine.images.save(reference, form=format):
            pipe.write(chunk)

    return ThreadResponse(service, produce, media_type=TAR)


@router.post("/images/remove")
async def remove_image(request: Request, body: RemoveRequest) -> Response:
    """Drop a name, and the image with its last name."""
    service = service_of(request)
    return json_response(await service.call(service.engine.images.remove, body.reference, force=body.force))


@router.get("/images/public")
async def list_public_images(request: Request) -> Response:
    """Names of images that every tenant sees."""
    service = service_of(request)
    return json_response(await service.call(service.engine.images.published))


@router.post("/images/public")
async def publish_image(request: Request, body: PublicRequest) -> Response:
    """Let every tenant see an image, or no longer: `{"name", "public"}`. What runs of it goes on."""
    service = service_of(request)
    name = await service.call(service.engine.images.publish, body.reference, public=body.public)
    return json_response({"name": name, "public": body.public})


@router.post("/images/prune")
async def prune_images(request: Request, body: PruneRequest | None = None) -> Response:
    """Drop what nothing needs."""
    images, wanted = service_of(request).engine.images, body or PruneRequest()
    return await answered(request, lambda: images.prune(everything=wanted.everything))


@router.post("/images/bootstrap")
async def bootstrap_image(request: Request, body: BootstrapRequest) -> Response:
    """Make an image from packages; progress and result as NDJSON."""
    images = service_of(request).engine.images

    def work(progress: Progress) -> object:
        return images.bootstrap(
            body.release,
            packages=body.packages,
            name=body.name,
            architecture=body.architecture,
            mirrors=body.mirrors,
            config=body.config.model_dump(exclude_defaults=True),
            progress=progress,
        )

    return with_progress(request, work, target=body.name or body.release)


@router.post("/images/disk")
async def bootstrap_disk(request: Request, body: DiskRequest) -> Response:
    """Make a machine's disk from packages; progress and result as NDJSON."""
    images = service_of(request).engine.images

    def work(progress: Progress) -> object:
        return images.bootstrap_disk(
            body.release,
            packages=body.packages,
            name=body.name,
            size=body.size,
            firmware=body.firmware,
            progress=progress,
        )

    return with_progress(request, work, target=body.name or body.release)


@router.post("/images/kernel")
async def make_kernel(request: Request, body: KernelRequest) -> Response:
    """Make a kernel image from a package or its source; progress and result as NDJSON."""
    images = service_of(request).engine.images

    def work(progress: Progress) -> object:
        return images.make_kernel(
            body.distribution, trim=body.trim, version=body.version, name=body.name, progress=progress
        )

    return with_progress(request, work, target=body.name or body.distribution)


@router.post("/images/rescue")
async def prepare_rescue(request: Request) -> Response:
    """Have the image that a helper machine for broken disks runs; progress and result as NDJSON."""
    images = service_of(request).engine.images
    return with_progress(request, images.prepare_rescue)


@router.post("/images/unikernel")
async def build_unikernel(request: Request, body: UnikernelRequest) -> Response:
    """Make a unikernel of an image or a program; progress and result as NDJSON."""
    images = service_of(request).engine.images
    if body.program and not Path(body.source).is_absolute():
        raise Refused(f"path {body.source!r} is not absolute", hint="the daemon has a working directory of its own")
    order = Order(**body.model_dump())

    def work(progress: Progress) -> object:
        return images.build_unikernel(order, progress)

    return with_progress(request, work, target=body.name)


@uploads.post("/images/load")
async def load_images(request: Request, *, path: str | None = None, all_platforms: bool = False) -> Response:
    """Take in every image of an archive: a file of the host (`path`, absolute) or the request's body; NDJSON.

    The result has `images`, a list of `{"image", "names"}`, its names in the archive. `all_platforms`: of a list every
    image, not this host's alone; the others' names end in `-ARCHITECTURE`.
    """
    images = service_of(request).engine.images
    if path is not None and not Path(path).is_absolute():
        raise Refused(f"path {path!r} is not absolute", hint="the daemon has a working directory of its own")
    upload = None if path is not None else Upload(request)

    def work(progress: Progress) -> object:
        source = Path(path) if path is not None else cast(BinaryIO, BufferedReader(cast(Upload, upload), 1 << 18))
        return {"images": images.load(source, all_platforms=all_platforms, progress=progress)}

    return with_progress(request, work, upload=upload, target=path or "")


@uploads.post("/images/import")
async def import_image(
    request: Request,
    *,
    path: str | None = None,
    name: str | None = None,
    change: Annotated[list[str] | None, Query()] = None,
    base: str | None = None,
    unikernel: KernelType | None = None,
    cmdline: str | None = None,
) -> Response:
    """Read an archive or a machine's disk: a file of the host (`path`, absolute) or the request's body; NDJSON.

    `change`: instructions such as "CMD nginx", for the tar of a root file system. `unikernel`: the file is a kernel
    with its application in it, whose command line is written so; `cmdline`: what stands on that. `base`: the body is
    a layer, the tar of what is different from this image; the new image has both.
    """
    images = service_of(request).engine.images
    if path is not None and not Path(path).is_absolute():
        raise Refused(f"path {path!r} is not absolute", hint="the daemon has a working directory of its own")
    if unikernel is not None and change:
        raise Refused("changes apply to a root file system only, and this is to be a unikernel")
    if unikernel is None and cmdline is not None:
        raise Refused("a command line is a unikernel's", hint="give unikernel too (--unikernel)")
    if base is not None and (path is not None or unikernel is not None):
        raise Refused("a layer onto a base comes as the request's body, and is no unikernel")
    changed(ImageConfig(), change or ())  # what is wrong with them is told before anything is read
    upload = None if path is not None else Upload(request)

    def work(progress: Progress) -> object:
        source = Path(path) if path is not None else cast(BinaryIO, BufferedReader(cast(Upload, upload), 1 << 18))
        if base is not None:
            layer = cast(BinaryIO, source)
            return images.import_onto(base, layer, name=name, changes=change or (), progress=progress)
        if unikernel is not None:
            return images.import_unikernel(source, name=name, cmdline=cmdline or "", kind=unikernel, progress=progress)
        return images.import_file(source, name=name, changes=change or (), progress=progress)

    return with_progress(request, work, upload=upload, target=name or path or "")
