"""The images of a host: found by name, imported, made, removed."""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from bulkhead.errors import Conflict, HostError, ImageError, NoImage, NotFound, Refused
from bulkhead.events import Progress, quiet
from bulkhead.images import bootable, bootstrap, documents, loading, reference, rootfs, steps, sweep, unikernels
from bulkhead.images.archive import open_file
from bulkhead.images.bootstrap import Recipe
from bulkhead.images.bounds import Bounds
from bulkhead.images.changes import from_fields
from bulkhead.images.config import Blob, Disk, Image, ImageConfig, Layer, read_config, read_created, read_disk
from bulkhead.images.documents import ConfigFile, Manifest
from bulkhead.images.importer import Request
from bulkhead.images.ingest import Ingest, ingest
from bulkhead.images.layout import HINT, Index, Layout
from bulkhead.images.loading import Loaded
from bulkhead.images.naming import as_name, given, repository, used
from bulkhead.images.onto import add_onto
from bulkhead.images.reader import CHUNK, file_chunks, reported, write_all
from bulkhead.images.registry import fetch
from bulkhead.images.scoped import Public, ScopedLayout
from bulkhead.images.sweep import Pruned
from bulkhead.images.workshop import Workshop
from bulkhead.tenancy.names import SEPARATOR

_HINT = "`bulkhead image ls` shows what there is; `image pull quay.io/NAME`, `image bootstrap debian:bookworm` add one"


class ImageStore:
    """An OCI image layout whose layers are kept as EROFS files. Safe for threads and for several processes."""

    def __init__(self, root: Path, cache: Path, *, bounds: Bounds | None = None, layout: Layout | None = None) -> None:
        self._layout = layout or Layout(root, bounds or Bounds())
        self.workshop = Workshop(self._layout)
        """What builds need."""
        self._cache = cache
        self._parsed: dict[str, Image] = {}
        self._known: tuple[Index, dict[str, Image]] | None = None

    @property
    def layout(self) -> Layout:
        """The store on disk."""
        return self._layout

    def seen_by(self, tenant: str, public: Public) -> ImageStore:
        """The same store as a tenant sees it."""
        layout = ScopedLayout(self._layout, tenant, public)
        return ImageStore(self._layout.root, self._cache, layout=layout)

    def own_names(self) -> set[str]:
        """Names that are the tenant's own, as it says them; of the whole store those of the default tenant."""
        return self._layout.own_names()

    def resolve(self, name: str) -> Image:
        """The image that a name, a digest or the unique beginning of one (6 hex digits) means. Raises NotFound."""
        index = self._layout.index()
        return self._image(index, self._find(index, name))

    def list(self) -> list[Image]:
        """Every image, the newest first."""
        index = self._layout.index()
        images = [self._image(index, digest) for digest in index.images]
        return sorted(images, key=lambda image: (-(image.created or 0.0), image.digest))

    def inspect(self, name: str) -> dict[str, object]:
        """One image as `docker image inspect` shows it, with its names and its manifest's digest."""
        image = self.resolve(name)
        manifest, file = self._layout.documents(image.digest)
        return {
            "Id": image.digest,
            "Kind": image.kind,
            "Config digest": manifest.config.digest,
            "RepoTags": [*image.references],
            "RepoDigests": sorted({f"{repository(name)}@{image.digest}" for name in image.references}),
            "Created": file.created,
            "Architecture": image.architecture,
            "Os": file.os or "linux",
            "Size": image.size,
            "Config": image.config.to_document(),
            "RootFS": {"Type": "layers", "Layers": [*file.rootfs.diff_ids]},
            "Blobs": [{"MediaType": blob.media_type, "Digest": blob.digest, "Size": blob.size} for blob in image.blobs],
            "Annotations": image.annotations,
        }

    def erofs_path(self, diff_id: str) -> Path:
        """Where a layer's EROFS file is. Raises NotFound where the store does not have it."""
        path = self._layout.erofs_path(diff_id)
        if not path.exists():
            raise NotFound(f"layer {diff_id} is not in the image store", hint="import or bootstrap its image again")
        return path

    def import_file(
        self, file: Path, *, name: str | None = None, changes: Sequence[str] = (), progress: Progress = quiet
    ) -> Image:
        """Import an OCI archive or directory, a docker archive, a root file system's tar, or a machine's disk (raw,
        qcow2, VMDK); compressed or not.

        `name` replaces the names that an archive holds; a root file system without one is known by its digest.
        `changes` are instructions such as "CMD nginx", for a root file system. Where an archive holds several
        images all are imported, and the first is returned. Raises ImageError for damage and attacks, Refused for
        what is asked for wrongly; nothing is left behind then.
        """
        request = Request(given(name), changes, progress, f"import of {file.name}")
        return self.take(loading.of_file(file, request), str(file))

    def import_stream(
        self, stream: BinaryIO, *, name: str | None = None, changes: Sequence[str] = (), progress: Progress = quiet
    ) -> Image:
        """As `import_file`, from something that can only be read forwards."""
        return self.take(loading.of_stream(stream, Request(given(name), changes, progress, "import")), "the stream")

    def load(
        self, source: Path | BinaryIO, *, all_platforms: bool = False, progress: Progress = quiet
    ) -> builtins.list[Loaded]:
        """Take in every image of an archive, under its names there: of a list this host's, or with `all_platforms` all.

        Raises as `import_file` does, and leaves nothing then.
        """
        request = Request((), (), progress, "load", all_platforms)
        taken: dict[str, set[str]] = {}
        work = loading.of_file(source, request) if isinstance(source, Path) else loading.of_stream(source, request)
        self.take(loading.noting(work, taken), str(source) if isinstance(source, Path) else "the stream")
        return [Loaded(self.resolve(digest), tuple(sorted(names))) for digest, names in taken.items()]

    def import_onto(
        self,
        base: str,
        stream: BinaryIO,
        *,
        name: str | None = None,
        changes: Sequence[str] = (),
        progress: Progress = quiet,
    ) -> Image:
        """Make an image of the image `base` and a layer on top: the tar of what is different, with OCI's whiteouts.

        `changes` are instructions such as "CMD nginx". Raises NotFound, ImageError, Refused and leaves
        nothing then.
        """
        index = self._layout.index()
        digest = self._find(index, base)

        def take(into: Ingest) -> str:
            chunks = reported(iter(lambda: stream.read(CHUNK), b""), progress, "receiving")
            return add_onto(
                into, index, digest, chunks, names=given(name), changes=changes, source="import", progress=progress
            )

        return self.take(take, "the layer")

    def bootstrap(
        self,
        release: str,
        *,
        packages: Sequence[str] = (),
        name: str | None = None,
        architecture: str | None = None,
        config: ImageConfig | Mapping[str, object] | None = None,
        files: Mapping[str, bytes] | None = None,
        mirrors: Sequence[str] = (),
        hooks: Sequence[str] = (),
        progress: Progress = quiet,
    ) -> Image:
        """Make an image from a Debian release's packages: `release` is "debian:bookworm", or the suite alone.

        `name`: by default the release, with the packages after a dash. `architecture`: Debian's word, such as
        i386; None is the host's. `files` are put in as well, by absolute path. `mirrors` are used instead of the
        sources of this host's own apt. `hooks`: as of `bootstrap.plan`. Takes half
        a minute; packages that were downloaded once are kept in the cache. Raises Refused, or HostError when
        mmdebstrap fails.
        """
        settings = config if isinstance(config, ImageConfig) else from_fields(config or {})
        recipe = bootstrap.plan(
            release, packages=packages, architecture=architecture, files=files or {}, mirrors=mirrors, hooks=hooks
        )
        names = given(name or recipe.default_name)
        return self.take(
            lambda into: bootstrap.run(into, recipe, self._cache, names=names, config=settings, progress=progress),
            recipe.default_name,
        )

    @contextmanager
    def bootstrapped(self, recipe: Recipe, *, epoch: int, progress: Progress = quiet) -> Iterator[Iterator[bytes]]:
        """Make the root file system of a recipe (`bootstrap.plan`) and yield its tar, which is not kept here."""
        with bootstrap.root_tar(recipe, self._cache, epoch, progress) as chunks:
            yield chunks

    def add_files(
        self,
        kind: str,
        files: Sequence[tuple[str, Path]],
        *,
        names: Sequence[str],
        architecture: str,
        annotations: Mapping[str, str],
        created: float | None = None,
        progress: Progress = quiet,
    ) -> Image:
        """Make an image that is no root file system: of files (media type, path), which are kept as they are.

        `kind` is one of documents.KINDS; `created` in seconds since the epoch, None: now. Raises Refused for names that
        are none; nothing is left behind then.
        """
        known_as = [name for text in names for name in given(text)]

        def take(into: Ingest) -> str:
            blobs = []
            for media_type, path in files:
                with ExitStack() as stack:
                    fd, size = open_file(path, stack), path.stat().st_size
                    blobs.append(into.add_blob(reported(file_chunks(fd), progress, "storing", size), media_type))
            return into.add_parts(
                kind, blobs, known_as, architecture=architecture, annotations=annotations, created=created
            )

        return self.take(take, f"the {kind}")

    def add_unikernel(
        self,
        kernel: Path,
        initrd: Path | None,
        *,
        names: Sequence[str],
        config: ImageConfig,
        annotations: Mapping[str, str],
        source: str,
        progress: Progress,
    ) -> Image:
        """Make an image of a kernel and its initrd, with what `unikernels.annotated` says of them.

        Raises ImageError where QEMU cannot boot it.
        """

        def take(into: Ingest) -> str:
            with ExitStack() as stack:
                size = kernel.stat().st_size + (initrd.stat().st_size if initrd else 0)
                chunks = reported(unikernels.archive(kernel, initrd, stack), progress, "storing", size)
                return rootfs.add_unikernel(
                    into, chunks, names=names, config=config, annotations=annotations, source=source
                )

        return self.take(take, "the unikernel")

    def import_unikernel(
        self, file: Path | BinaryIO, *, name: str | None, cmdline: str, type_: str, progress: Progress = quiet
    ) -> Image:
        """Import a kernel that is a file of its own. Raises ImageError where QEMU cannot boot it, Refused."""
        if problems := unikernels.cmdline_problems(cmdline):
            raise Refused("; ".join(problems))
        said = unikernels.annotated(cmdline, type_=type_, initrd=False)

        def take(into: Ingest) -> str:
            with ExitStack() as stack:
                if isinstance(file, Path):
                    size, chunks = file.stat().st_size, file_chunks(open_file(file, stack))
                else:
                    size, chunks = 0, iter(lambda: file.read(CHUNK), b"")
                path, fd = stack.enter_context(into.draft())
                done = 0
                for chunk in reported(chunks, progress, "reading the kernel", size):
                    done += len(chunk)
                    if done > bootable.MAX_SIZE:
                        raise ImageError(f"it has more than {bootable.MAX_SIZE} bytes: no kernel has")
                    write_all(fd, chunk)
                return rootfs.add_unikernel(
                    into,
                    unikernels.archive(path, None, stack),
                    names=given(name),
                    config=ImageConfig(),
                    annotations=said,
                    source=f"import of {file.name if isinstance(file, Path) else 'a kernel'}",
                )

        return self.take(take, str(file) if isinstance(file, Path) else "the stream")

    def remove(
        self, name: str, *, in_use: Mapping[str, Sequence[str]] | None = None, force: bool = False
    ) -> builtins.list[str]:
        """Take a name away, and the image with its last one. What was done, in words, a line each.

        By digest the image goes with all of its names (several only with `force`). Raises NotFound, and Conflict
        when the image is among `in_use` (names of the instances by their image's manifest digest).
        """
        with self._layout.held() as draft:
            index = Index(draft.images, draft.names)
            digest = self._find(self._layout.index(), name)
            names = index.names_of(digest)
            if not names and self._layout.index().names_of(digest):
                raise Refused(f"image {name} is not yours to remove", hint="it is public: whoever made it so can")
            by_name = [known for known in names if known in (name, as_name(name))]
            if not by_name and len(names) > 1 and not force:
                raise Conflict(f"image {name} has several names: {', '.join(names)}", hint="remove them, or force it")
            gone = by_name or [*names]
            last = len(gone) == len(names)
            if last and (users := (in_use or {}).get(digest)):
                raise used(name, users)
            for known in gone:
                del draft.names[known]
            if last:
                del draft.images[digest]
            self._layout.write(draft)
            sweep.collect(self._layout, draft)
        return [f"untagged: {known}" for known in gone] + ([f"deleted: {digest}"] if last else [])

    def tag(self, name: str, targets: Sequence[str]) -> builtins.list[str]:
        """Give an image more names, in their normal form, which are returned. Raises NotFound, Refused."""
        known_as = [str(reference.parse_tagged(target)) for target in targets]
        with self._layout.held() as draft:
            digest = self._find(self._layout.index(), name)
            draft.names.update(dict.fromkeys(known_as, digest))
            self._layout.write(draft)
        return known_as

    def prune(self, *, in_use: Collection[str] = (), held: Collection[str] = (), all_images: bool = False) -> Pruned:
        """Remove images that nothing in `in_use` needs: those without a name, with `all_images` the named too.

        Images that a tenant has stay. What pulls that were broken off have brought goes as well. Steps of builds go
        where no image that stays has their layer and it is not among `held` (layers' keys).
        """
        with self._layout.held() as draft:
            named = set(draft.names.values())
            kept = {*in_use, *(digest for known, digest in draft.names.items() if SEPARATOR in known)}
            gone = [digest for digest in draft.images if digest not in kept and (all_images or digest not in named)]
            for digest in gone:
                del draft.images[digest]
            draft.names = {known: digest for known, digest in draft.names.items() if digest in draft.images}
            self._layout.write(draft)
            steps.drop(self._layout, draft, held)
            freed = sweep.collect(self._layout, draft) + sum(map(fetch.forget, self._layout.partials()))
            return Pruned(tuple(gone), freed)

    def forget_partial(self) -> None:
        """Drop what this tenant's pulls that were broken off have brought."""
        fetch.forget(self._layout.partial)

    def recover(self) -> builtins.list[str]:
        """Make the store whole after a crash: drop what imports left, make lost EROFS files again from their blobs.

        What was done, in words, a line each. Imports and bootstraps of other processes that still run are left alone.
        """
        return [*bootstrap.recover(self._cache), *sweep.recover(self._layout)]

    def take(self, work: Callable[[Ingest], str], what: str) -> Image:
        """Let `work` fill an ingest, commit it, and return the image whose digest `work` returned."""
        try:
            with ingest(self._layout) as into:
                digest = work(into)
                into.commit()
        except ImageError as error:
            raise ImageError(f"{what}: {error.what}", hint=error.hint) from error
        except OSError as error:
            raise HostError(f"{what} could not be stored: {error.strerror or error}") from error
        return self.resolve(digest)

    def _find(self, index: Index, name: str) -> str:
        digest = index.names.get(name) or index.names.get(f"{name}:{reference.DEFAULT_TAG}")
        if digest:
            return digest
        if prefix := reference.digest_prefix(name):
            found = [digest for digest in index.images if digest.startswith(f"sha256:{prefix}")]
            if len(found) == 1:
                return found[0]
            if found:
                raise Refused(f"{name!r} is the beginning of {len(found)} images' digests", hint="give more of it")
        wanted = reference.parse(name)
        digest = wanted.digest if wanted.digest in index.images else index.names.get(str(wanted))
        if wanted.digest and wanted.name and digest:
            parsed = [reference.parse(known) for known in index.names_of(digest) if SEPARATOR not in known]
            digest = digest if any(known.name == wanted.name for known in parsed) else None
        if digest:
            return digest
        close = difflib.get_close_matches(str(wanted), index.names, 1)
        raise NoImage(f"no image {name!r}", hint=f"did you mean {close[0]}?" if close else _HINT)

    def _image(self, index: Index, digest: str) -> Image:
        known = self._known
        if known is None or known[0] is not index:
            self._parsed = {key: image for key, image in self._parsed.items() if key in index.images}
            self._known = known = (index, {})
        image = known[1].get(digest)
        if image is None:
            parsed = self._parsed.get(digest) or self._parse(index, digest)
            self._parsed[digest] = parsed
            image = known[1][digest] = replace(parsed, references=index.names_of(digest))
        return image

    def _parse(self, index: Index, digest: str) -> Image:
        manifest, file = self._layout.documents(digest)
        what = f"image {digest}"
        layers = self._layers(index, digest, file) if manifest.kind == documents.ROOTFS else ()
        unikernel = unikernels.said(manifest.annotations, file.config.labels) if layers else None
        blobs = () if manifest.kind == documents.ROOTFS else self._blobs(manifest)
        return Image(
            digest=digest,
            references=(),
            architecture=file.architecture,
            created=read_created(file, what),
            size=sum(layer.size for layer in layers) + sum(blob.size for blob in blobs),
            config=read_config(file.config, what),
            layers=layers,
            kind=documents.UNIKERNEL if unikernel else manifest.kind,
            blobs=blobs,
            annotations=dict(manifest.annotations),
            disk=self._disk(manifest) if manifest.kind == documents.DISK else None,
            unikernel=unikernel,
        )

    def _disk(self, manifest: Manifest) -> Disk:
        digest, size, firmware = read_disk(manifest, self._layout.bounds)
        return Disk(self._layout.disk_path(digest), size, firmware)

    def _layers(self, index: Index, digest: str, file: ConfigFile) -> tuple[Layer, ...]:
        keys = index.layers_of(digest)
        if len(keys) != len(file.rootfs.diff_ids):
            what = f"image {digest} has {len(file.rootfs.diff_ids)} layers, its index entry {len(keys)}"
            raise ImageError(what, hint=HINT)
        paths = [self._layout.erofs_path(key) for key in keys]
        try:
            return tuple(Layer(key, path, path.stat().st_size) for key, path in zip(keys, paths, strict=True))
        except FileNotFoundError as error:
            raise ImageError(f"image {digest} lacks its layer {error.filename}", hint=HINT) from error

    def _blobs(self, manifest: Manifest) -> tuple[Blob, ...]:
        return tuple(
            Blob(blob.media_type, blob.digest, self._layout.blob_path(blob.digest), blob.size)
            for blob in manifest.layers
        )
