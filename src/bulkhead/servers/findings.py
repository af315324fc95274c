"""All that was found out about a server, put together; and what follows from it for its image."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bulkhead.errors import Problem, Refused
from bulkhead.servers import dpkg, fit, rules, services
from bulkhead.servers.dpkg import Packages
from bulkhead.servers.listing import Difference, Listing, difference
from bulkhead.servers.rules import Chosen, Rule
from bulkhead.servers.services import Data, Service
from bulkhead.servers.survey import Survey

READ = (b"etc/os-release", b"usr/lib/os-release", b"etc/passwd", dpkg.STATUS)
"""Small files that are looked into, besides dpkg's lists."""
MOST_READ = 256 << 20
_INITS = (b"sbin/init", b"usr/sbin/init")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9@_.:\\-]{0,200}")
DATABASES = re.compile(
    r"postgres.*|mariadb|mysql.*|mongod.*|redis.*|slapd|influxdb|cassandra|couchdb|elasticsearch|ldap.*"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asks for."""

    minimize: bool = False
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    """Packages."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known, and the rules that follow."""

    system: str
    """The distribution, in its own words."""
    survey: Survey | None
    packages: Packages | None
    services: tuple[Service, ...]
    data: tuple[Data, ...]
    people: tuple[tuple[str, int], ...]
    init: bool
    dropped: frozenset[str]
    """Packages."""
    masked: tuple[str, ...]
    rules: tuple[Rule, ...]
    status: str | None
    """dpkg's, without the packages that are dropped."""

    def choose(self, listing: Listing) -> Chosen:
        """What of a list of files goes into the image."""
        unowned: set[bytes] = set()
        if self.packages:
            unowned = dpkg.orphans(self.packages, self.dropped, listing)
            unowned |= dpkg.records(self.packages, self.dropped, listing)
        swaps = self.survey.swaps if self.survey else ()
        return rules.choose(listing, self.rules, swaps=swaps, replaced=set(self.written(listing)), unowned=unowned)

    def written(self, listing: Listing) -> dict[bytes, bytes | None]:
        """What is written anew."""
        return fit.files(listing, masked=self.masked, status=self.status)

    def since(self, before: Listing, after: Listing) -> Difference:
        """What a second pass is about: the change of what goes into the image."""
        first, second = set(self.choose(before).kept), set(self.choose(after).kept)
        return difference(
            {path: entry for path, entry in before.items() if path in first},
            {path: entry for path, entry in after.items() if path in second},
        )


def to_read(listing: Listing) -> list[bytes]:
    """Which of a server's files are looked into."""
    found = [path for path in READ if path in listing and listing[path].kind == "f"]
    found += [
        path for path in listing if path.startswith(dpkg.INFO) and path.endswith(b".list") and listing[path].kind == "f"
    ]
    found += services.unit_files(listing)
    if sum(listing[path].size for path in found) > MOST_READ:
        raise Refused(f"the lists of the server's packages have more than {MOST_READ} bytes")
    return found


def gather(listing: Listing, read: Mapping[bytes, bytes], survey: Survey | None, wanted: Wanted) -> Findings:
    """Put it together. Raises Refused with all that cannot be done with such a server."""
    text = {path: data.decode("utf-8", "surrogateescape") for path, data in read.items()}
    status = text.get(dpkg.STATUS)
    lists = {
        path[len(dpkg.INFO) : -len(b".list")].decode("utf-8", "replace"): text[path]
        for path in text
        if path.startswith(dpkg.INFO)
    }
    packages = dpkg.read(status, lists, listing) if status else None
    problems = _problems(listing, packages, wanted)
    if problems:
        raise Refused(problems)
    units = {path: text[path] for path in services.unit_files(listing) if path in text}
    found = services.find(survey, listing, packages, services.programs(units, listing))
    dropped = _dropped(packages, found, listing, survey, wanted) if packages else frozenset()
    return Findings(
        system=_system(text),
        survey=survey,
        packages=packages,
        services=tuple(found),
        data=tuple(services.data(listing, found)),
        people=tuple(services.people(text.get(b"etc/passwd", ""))),
        init=any(path in listing for path in _INITS),
        dropped=dropped,
        masked=tuple(services.masked(listing)),
        rules=(*rules.excluded(wanted.exclude), *rules.USUAL, *(rules.MINIMAL if wanted.minimize else ())),
        status=dpkg.status_without(dropped, status) if status and dropped else None,
    )


def _problems(listing: Listing, packages: Packages | None, wanted: Wanted) -> list[Problem]:
    found = []
    if b"etc" not in listing or not {b"bin", b"usr/bin"} & set(listing):
        found.append(Problem("there is no Linux system: /etc or /bin is missing", "name the root of one"))
    if wanted.minimize and packages is None:
        hint = "leave out --minimize, and name what is not needed with --exclude"
        found.append(Problem("--minimize knows Debian's packages alone, and there is no /var/lib/dpkg/status", hint))
    missing = [name for name in wanted.keep if packages and name not in packages.installed]
    found += [Problem(f"--keep {name!r}: no such package is installed there") for name in missing]
    return found


def _dropped(
    packages: Packages, found: Sequence[Service], listing: Listing, survey: Survey | None, wanted: Wanted
) -> frozenset[str]:
    dropped = dpkg.hardware(packages) - set(wanted.keep)
    if wanted.minimize:
        roots = services.roots(found, survey, packages, wanted.keep) | services.configured(listing, packages)
        dropped |= set(packages.installed) - dpkg.needed(packages, {*roots, *dpkg.base(packages)})
    return frozenset(dropped)


def _system(text: Mapping[bytes, str]) -> str:
    release = text.get(b"etc/os-release") or text.get(b"usr/lib/os-release", "")
    found = re.search(r'(?m)^PRETTY_NAME="?([^"\n]{1,100})', release)
    return found[1] if found else "an unknown system"


def to_stop(findings: Findings, named: Collection[str], *, all_with_data: bool) -> list[str]:
    """Units to be stopped for the second pass. Raises Refused for those that are no names of units."""
    wrong = [name for name in named if not _UNIT.fullmatch(name)]
    if wrong:
        raise Refused(Problem(f"--stop {name!r} is no unit's name") for name in wrong)
    found = dict.fromkeys(named)
    if all_with_data:
        running = [one for one in findings.services if one.measured and one.name not in services.SSH]
        found |= dict.fromkeys(one.name + ".service" for one in running)
    return list(found)


def unsafe(findings: Findings, stopped: Collection[str]) -> list[str]:
    """Databases that run on while their files are copied."""
    names = {name.removesuffix(".service") for name in stopped}
    return [
        one.name
        for one in findings.services
        if one.measured
        and DATABASES.fullmatch(one.name.partition("@")[0])
        and not {one.name, one.name.partition("@")[0]} & names
    ]
