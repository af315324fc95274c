"""Registries as the engine's users see them: what a name means, pulls, pushes, lists, whether a login is good.

Credentials come with each request and go with it: they are in no record, log or command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.errors import BulkheadError, NoImage, NotFound, Refused, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.images import Image, platforms
from bulkhead.images.documents import Platform
from bulkhead.images.exchange import STORED, Exchange
from bulkhead.images.packing import FORMATS
from bulkhead.images.pulling import parse_platform
from bulkhead.images.pushing import Pushed
from bulkhead.images.reference import is_digest
from bulkhead.images.registry import conf, policy
from bulkhead.images.registry.auth import Credentials
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.conf import Registries, Source
from bulkhead.images.registry.policy import Verdict
from bulkhead.images.registry.proxies import Proxies, from_environment

POLICIES = ("missing", "always", "never")


@dataclass(frozen=True, slots=True)
class Access:
    """How a request wants registries to be talked to."""

    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    """By the registry's host, as `sources` tells it."""
    tls_verify: bool | None = None
    """None: as registries.conf says."""
    proxies: Proxies = field(default=Proxies())
    """Of the one who asks; where there are none, those of the daemon's environment are used."""

    @property
    def insecure(self) -> bool | None:
        """The other way round."""
        return None if self.tls_verify is None else not self.tls_verify


class RegistryCatalog:
    """What can be done with registries."""

    outward = False
    """Whether they have to be at public addresses, or named by the host's configuration."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._exchange = Exchange(context.images, context.config.cache_dir)

    def sources(self, reference: str, *, push: bool) -> Sequence[Mapping[str, object]]:
        """Where an image may come from or go to, the first first: whom credentials are needed for."""
        known = self._known()
        found = [source for name in known.full_names(reference) for source in known.sources(name, push=push)]
        return [
            {"registry": _host(source), "repository": source.path, "name": source.name, "mirror": source.mirror}
            for source in found
        ]

    def pull(self, reference: str, *, policy: str, platform: str | None, access: Access, progress: Progress) -> Image:
        """Have an image in the store. `policy`: "missing" asks no registry where it is there, "never" not at all.

        Raises NoImage where no name leads to one, and what the last registry that was asked had to say.
        """
        wanted = None if platform is None else parse_platform(platform)
        known = self._known(access)
        if policy not in POLICIES:
            raise Refused(f"pull policy {policy!r} is none", hint=", ".join(POLICIES))
        if policy != "always" and (there := self._there(reference, known, platform)):
            return there
        if policy == "never" or is_digest(reference):
            raise NoImage(f"no image {reference!r}", hint="--pull=missing would ask a registry for it")
        names = known.full_names(reference)
        if not names:
            raise conf.nowhere(reference, known.directory)
        failure: BulkheadError = conf.nowhere(reference, known.directory)
        for source in (source for name in names for source in known.sources(name, insecure=access.insecure)):
            try:
                allowed = self._allowed(source, wanted, access, progress)
                with self._repository(source, access) as repository:
                    return self._exchange.pull(repository, allowed, platform=wanted, progress=_crashing(progress))
            except (NotFound, Unavailable, Refused) as error:
                progress(Step(f"{_host(source)}: {error.what}"))
                failure = error
        raise failure

    def pull_all(self, reference: str, *, access: Access, progress: Progress) -> list[Image]:
        """Have every platform's image of a list in the store, this host's under the list's name.

        An image that is no list comes as it is. Raises as `pull`; what has come by then stays.
        """
        known = self._known(access)
        names = known.full_names(reference)
        if not names:
            raise conf.nowhere(reference, known.directory)
        if "@" in names[0]:
            raise Refused(
                f"{names[0]} has no tag to call other platforms' images by", hint="--platform pulls one of them"
            )
        failure: BulkheadError = conf.nowhere(reference, known.directory)
        for source in (source for name in names for source in known.sources(name, insecure=access.insecure)):
            try:
                with self._repository(source, access) as repository:
                    wanted = self._exchange.platforms(repository, source)
                return [self._one_of(source, platform, access, progress) for platform in wanted or (None,)]
            except (NotFound, Unavailable, Refused) as error:
                progress(Step(f"{_host(source)}: {error.what}"))
                failure = error
        raise failure

    def _one_of(self, source: Source, platform: Platform | None, access: Access, progress: Progress) -> Image:
        """The image of one platform, which a signature policy is asked about by itself."""
        allowed = self._allowed(source, platform, access, progress)
        if platform:
            progress(Step(f"pulling {platform}"))
            allowed = replace(allowed, name=platforms.name_for(source.name, platform))
        with self._repository(allowed, access) as repository:
            return self._exchange.pull(repository, allowed, platform=platform, progress=_crashing(progress))

    def _allowed(self, source: Source, platform: Platform | None, access: Access, progress: Progress) -> Source:
        """The same source where policy.json lets the image come, by its digest where signatures were checked."""
        rules = policy.load(self._context.config.containers_dir)
        verdict = rules.verdict(source.name)
        if verdict is Verdict.REJECT:
            raise Refused(f"{source.name} is rejected by {rules.file}", hint="see containers-policy.json(5)")
        if verdict is Verdict.ACCEPT:
            return source
        progress(Step(f"checking the signatures of {source.name}"))
        host = _host(source)
        asked = policy.Asked(source, platform, host, access.credentials.get(host))
        return replace(source, reference=self._exchange.verify(asked, rules))

    def _there(self, reference: str, known: Registries, platform: str | None) -> Image | None:
        """The image where the store has it already, under any of the names that it may have."""
        wanted = None if platform is None else parse_platform(platform)
        names = [reference] if is_digest(reference) else [reference, *known.full_names(reference)]
        return self._exchange.find(names, wanted)

    def push(
        self,
        reference: str,
        destination: str | None,
        *,
        compression: str | None,
        all_platforms: bool = False,
        access: Access,
        progress: Progress,
    ) -> Pushed:
        """Give an image away, under its own name or another. `compression`: one of packing.FORMATS, None: the usual.

        `all_platforms`: with those of other platforms that are called like it, as one list.
        """
        if compression not in (None, *FORMATS):
            raise Refused(f"compression {compression!r} is none", hint=", ".join(FORMATS))
        known = self._known(access)
        names = known.full_names(destination or reference)
        if not names:
            raise Refused(
                f"{destination or reference!r} does not say to which registry", hint="such as quay.io/team/app:1.2"
            )
        if "@" in names[0]:
            raise Refused(f"{names[0]} is a digest, not a name to push to")
        source = known.sources(names[0], insecure=access.insecure, push=True)[-1]
        with self._repository(source, access) as repository:
            give = self._exchange.push_all if all_platforms else self._exchange.push
            return give(repository, reference, source, compression=compression, progress=progress)

    def tags(self, repository: str, *, access: Access) -> Sequence[str]:
        """Every tag of a repository."""
        with self._one(repository, access) as (asked, _):
            return asked.tags()

    def referrers(self, reference: str, *, access: Access) -> Sequence[Mapping[str, object]]:
        """What refers to an image in its registry: signatures, bills of materials."""
        with self._one(reference, access) as (asked, source):
            digest = source.reference
            if not is_digest(digest):
                digest = asked.manifest(digest).digest
            return asked.referrers(digest)

    def login(self, registry: str, *, access: Access) -> str:
        """Try credentials; the registry's host. Raises Refused where it does not take them."""
        place = self._known(access).place(registry, insecure=access.insecure)
        with Repository(place, "", access.credentials.get(registry)) as asked:
            asked.check()
        return registry

    def _one(self, reference: str, access: Access) -> _Opened:
        known = self._known(access)
        names = known.full_names(reference)
        if not names:
            raise conf.nowhere(reference, known.directory)
        source = known.sources(names[0], insecure=access.insecure)[-1]
        return _Opened(self._repository(source, access), source)

    def _repository(self, source: Source, access: Access) -> Repository:
        return Repository(source.place, source.path, access.credentials.get(_host(source)))

    def _known(self, access: Access | None = None) -> Registries:
        """registries.conf as it is now: an administrator's change needs no restart."""
        told = access.proxies if access else Proxies()
        proxies = told if told != Proxies() else from_environment(os.environ)
        return conf.load(self._context.config.containers_dir, proxies, outward=self.outward)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A repository that is being talked to, and where it was found."""

    repository: Repository
    source: Source

    def __enter__(self) -> tuple[Repository, Source]:
        self.repository.begin()
        return self.repository, self.source

    def __exit__(self, *_: object) -> None:
        self.repository.__exit__()


def _host(source: Source) -> str:
    """A registry as people call it, and as their auth files do."""
    return conf.HUB if source.place.host == conf.HUB_HOST else source.place.host


def _crashing(progress: Progress) -> Progress:
    """The same, and a point to die at while a pull is under way."""

    def tell(step: Step) -> None:
        if step.label == STORED:
            checkpoint("pull.stored")
            return
        progress(step)
        if step.done:
            checkpoint("pull.blobs")

    return tell
