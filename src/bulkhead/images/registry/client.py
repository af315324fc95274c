"""One repository of a registry: manifests, blobs, tags, referrers, as the OCI distribution specification has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from bulkhead.errors import BulkheadError, ImageError, NotFound, Refused, Unavailable
from bulkhead.images import documents
from bulkhead.images.documents import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from bulkhead.images.reference import is_digest
from bulkhead.images.registry.auth import Credentials, Identity, challenges
from bulkhead.images.registry.wire import Answer, Place, Wire

ACCEPTED = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
MOST_TAGS = 100_000
MOST_REFERRERS = 1000
_DOCUMENT = 4 << 20
_ERRORS = 64 << 10
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_TRIES = 4
"""Of a blob whose connection breaks; each goes on where the last one ended."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or an index as it came. Its digest has been checked where one was asked for."""

    data: bytes
    media_type: str
    digest: str


class Repository:
    """Talks about one repository. Safe for threads; close it."""

    def __init__(self, place: Place, path: str, credentials: Credentials | None = None) -> None:
        self.place, self.path = place, path
        self._wire = Wire(place)
        self._identity = Identity(self._wire, credentials)
        self._scopes: tuple[str, ...] = (f"repository:{path}:pull",)

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.__exit__()

    def __str__(self) -> str:
        return f"{self.place.host}/{self.path}" if self.path else self.place.host

    # --- who asks

    def check(self) -> None:
        """Ask whether it speaks this protocol and takes the credentials. Raises Refused, Unavailable."""
        self._scopes = ()
        if self.place.insecure:
            self._find_scheme()
        with self._ask("GET", "/v2/", most=_ERRORS) as answer:
            self._expect(answer, (200,), "its greeting")

    def begin(self, *, push: bool = False, mount_from: Sequence[str] = ()) -> None:
        """Settle how it is spoken to, before threads share it."""
        actions = "pull,push" if push else "pull"
        self._scopes = (f"repository:{self.path}:{actions}", *(f"repository:{path}:pull" for path in mount_from))
        if self.place.insecure:
            self._find_scheme()

    def _find_scheme(self) -> None:
        """An insecure registry may speak TLS with any certificate, or plain HTTP."""
        try:
            with self._wire.exchange("GET", f"{self._wire.root}/v2/", most=_ERRORS):
                return
        except (Refused, Unavailable) as error:
            self._wire.scheme = "http"
            try:
                with self._wire.exchange("GET", f"{self._wire.root}/v2/", most=_ERRORS):
                    return
            except Unavailable:
                raise error from None

    # --- manifests

    def manifest(self, reference: str, *, most: int = _DOCUMENT) -> Fetched:
        """The manifest or index of a tag or digest. Raises NotFound, ImageError when it is not what it should be."""
        what = f"manifest {reference} of {self}"
        with self._ask("GET", self._manifest_path(reference), headers={"Accept": ACCEPTED}, most=most) as answer:
            self._expect(answer, (200,), what)
            data = answer.read(most, what)
        digest = documents.digest_of(data)
        wanted = reference if is_digest(reference) else answer.header("Docker-Content-Digest")
        if is_digest(wanted) and wanted != digest:
            raise ImageError(f"{what} has in truth the digest {digest}", hint="the registry, or what is between, lies")
        return Fetched(data, answer.header("Content-Type").partition(";")[0].strip(), digest)

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        """Give away a manifest, after everything that it names."""
        headers = {"Content-Type": media_type}
        with self._ask("PUT", self._manifest_path(reference), headers=headers, body=data, most=_ERRORS) as answer:
            self._expect(answer, (200, 201, 202), f"manifest {reference}")

    def has_manifest(self, reference: str) -> bool:
        """Whether there is one."""
        with self._ask("HEAD", self._manifest_path(reference), headers={"Accept": ACCEPTED}) as answer:
            return answer.status == 200

    def _manifest_path(self, reference: str) -> str:
        return f"/v2/{self.path}/manifests/{quote(reference, safe=':')}"

    # --- blobs

    def blob(self, descriptor: Descriptor, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes `start` to `end` of a blob, exactly so many. Broken connections are made again a few times."""
        end = descriptor.size if end is None else end
        tries = 0
        while start < end:
            before = start
            try:
                for chunk in self._part(descriptor, start, end):
                    start += len(chunk)
                    if start > end:
                        raise ImageError(f"blob {descriptor.digest} of {self} is longer than {descriptor.size} bytes")
                    yield chunk
                if start < end:
                    raise Unavailable(f"blob {descriptor.digest} of {self} ended {end - start} bytes too early")
            except Unavailable:
                tries = 1 if start > before else tries + 1
                if tries == _TRIES:
                    raise

    def _part(self, descriptor: Descriptor, start: int, end: int) -> Iterator[bytes]:
        whole = start == 0 and end == descriptor.size
        headers = {} if whole else {"Range": f"bytes={start}-{end - 1}"}
        path = f"/v2/{self.path}/blobs/{descriptor.digest}"
        with self._ask("GET", path, headers=headers, most=descriptor.size) as answer:
            if not whole and answer.status == 200:
                yield from _cut_out(answer.chunks(), start, end)
                return
            self._expect(answer, (200 if whole else 206,), f"blob {descriptor.digest}")
            told = answer.header("Content-Range")
            if not whole and not told.startswith(f"bytes {start}-"):
                raise ImageError(f"{self} answered with other bytes than those asked for: {told[:60]!r}")
            yield from answer.chunks()

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        with self._ask("HEAD", f"/v2/{self.path}/blobs/{digest}") as answer:
            if answer.status not in (200, 404):
                self._expect(answer, (200,), f"blob {digest}")
            return answer.status == 200

    def mount(self, digest: str, source: str) -> bool:
        """Have a blob of another repository in this one; False where the registry does not do that."""
        query = urlencode({"mount": digest, "from": source})
        with self._ask("POST", f"/v2/{self.path}/blobs/uploads/?{query}", body=b"", most=_ERRORS) as answer:
            if answer.status == 201:
                return True
            if answer.status == 202:  # it has begun an upload instead
                location = self._wire.target(answer.url, answer.header("Location"))
                with self._ask("DELETE", location, most=_ERRORS):
                    return False
            self._expect(answer, (201,), f"mounting {digest}")
            return False

    def upload(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Give away a blob. Raises Unavailable, Refused."""
        what = f"the upload of {descriptor.digest}"
        with self._ask("POST", f"/v2/{self.path}/blobs/uploads/", body=b"", most=_ERRORS) as answer:
            self._expect(answer, (202,), what)
            location = self._wire.target(answer.url, answer.header("Location"))
        joined = location + ("&" if urlsplit(location).query else "?") + urlencode({"digest": descriptor.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
        with self._ask("PUT", joined, headers=headers, body=chunks, most=_ERRORS) as answer:
            self._expect(answer, (201, 204), what)

    # --- lists

    def tags(self) -> list[str]:
        """Every tag of the repository, in the registry's order. Raises ImageError for lists without end."""
        found: list[str] = []
        url = f"/v2/{self.path}/tags/list?n=1000"
        while url:
            with self._ask("GET", url, most=_DOCUMENT) as answer:
                self._expect(answer, (200,), f"the tags of {self}")
                said = _json(answer.read(_DOCUMENT, f"the tags of {self}"), f"the tags of {self}")
                listed = said.get("tags") or []
                if not isinstance(listed, list) or not all(map(_is_tag, listed)):
                    raise ImageError(f"{self} lists tags that are none")
                found += listed
                onward = _NEXT.search(answer.header("Link"))
                url = self._wire.target(answer.url, onward[1]) if onward else ""
                if url and (not self._wire.is_home(url) or not listed):
                    raise ImageError(f"{self} continues its list of tags elsewhere")
            if len(found) > MOST_TAGS:
                raise ImageError(f"{self} lists more than {MOST_TAGS} tags")
        return found

    def referrers(self, digest: str) -> list[Mapping[str, object]]:
        """Descriptors of what refers to a manifest (signatures, bills of materials): by the API, else by its tag."""
        data = b""
        with self._ask(
            "GET", f"/v2/{self.path}/referrers/{digest}", headers={"Accept": OCI_INDEX}, most=_DOCUMENT
        ) as answer:
            if answer.status == 200:
                data = answer.read(_DOCUMENT, f"the referrers of {digest}")
            elif answer.status not in (400, 404, 405):
                self._expect(answer, (200,), f"the referrers of {digest}")
        if not data:
            try:
                data = self.manifest(digest.replace(":", "-", 1)).data
            except NotFound:
                return []
        said = _json(data, f"the referrers of {digest}").get("manifests") or []
        if not isinstance(said, list) or not all(isinstance(entry, dict) for entry in said):
            raise ImageError(f"the referrers of {digest} are no list")
        if len(said) > MOST_REFERRERS:
            raise ImageError(f"{digest} has more than {MOST_REFERRERS} referrers")
        return said

    # --- asking

    @contextmanager
    def _ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        most: int = 0,
    ) -> Iterator[Answer]:
        """One request, asked again with an authorization where the registry wants one."""
        url = self._wire.root + url if url.startswith("/") else url
        home = self._wire.is_home(url)
        with ExitStack() as stack:
            header = self._identity.header(self._scopes) if home else ""
            exchange = self._wire.exchange
            answer = stack.enter_context(
                exchange(method, url, headers=headers, authorization=header, body=body, most=max(most, _ERRORS))
            )
            if answer.status == 401 and home and not (body and not isinstance(body, bytes)):
                found = challenges(answer)
                stack.close()
                header = self._identity.answer(found, self._scopes)
                answer = stack.enter_context(
                    exchange(method, url, headers=headers, authorization=header, body=body, most=max(most, _ERRORS))
                )
            yield answer

    def _expect(self, answer: Answer, wanted: Sequence[int], what: str) -> None:
        """Raise what another status means."""
        if answer.status in wanted:
            return
        said = _said(answer)
        host = self.place.host
        told = f"{what}: {host} answered with status {answer.status}{said}"
        error: BulkheadError
        if answer.status in (401, 403):
            known = "does not let these credentials" if self._identity.is_known else "wants to know who asks"
            error = Refused(f"{what}: {host} {known}{said}", hint=f"bulkhead login {host}")
        elif answer.status == 404:
            error = NotFound(f"{what}: {host} does not have it{said}", hint=f"bulkhead image tags {self}")
        elif answer.status == 429:
            error = Unavailable(f"{what}: {host} has had enough requests for now{said}", hint="try again later")
        elif 400 <= answer.status < 500:
            error = Refused(told)
        else:
            error = Unavailable(told, hint="try again later")
        raise error


def _said(answer: Answer) -> str:
    """The registry's own words on an error, made harmless; "" where there are none."""
    try:
        first = json.loads(answer.read(_ERRORS, "the error"))["errors"][0]
        text = f"{first.get('code', '')} {first.get('message', '')}"
    except (BulkheadError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)[:200].strip()
    return f" ({shown})" if shown else ""


def _cut_out(chunks: Iterable[bytes], start: int, end: int) -> Iterator[bytes]:
    """Bytes `start` to `end` of a stream: some registries send a blob whole, whatever part is asked for."""
    at = 0
    for chunk in chunks:
        piece = chunk[max(0, start - at) : max(0, end - at)]
        at += len(chunk)
        if piece:
            yield piece
        if at >= end:
            return


def _is_tag(found: object) -> bool:
    return isinstance(found, str) and _TAG.fullmatch(found) is not None


def _json(data: bytes, what: str) -> Mapping[str, object]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} are no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ImageError(f"{what} are no JSON object")
    return said
