"""A server's services: which are its purpose and which only run the machine, what they need and where their data is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bulkhead.servers.dpkg import Packages, lead_to
from bulkhead.servers.listing import Listing
from bulkhead.servers.survey import Port, Survey

UNIT_DIRECTORIES = (b"etc/systemd/system/", b"usr/lib/systemd/system/", b"lib/systemd/system/")
MASKED = re.compile(
    r"systemd-(udevd|udev-trigger|udev-settle|modules-load|hwdb-update|timesyncd|networkd-wait-online|pstore|fsck@.*)"
    r"|serial-getty@.*|getty@.*|lvm2-.*|mdmonitor.*|mdadm.*|smartd|smartmontools|thermald|irqbalance|acpid|fwupd.*"
    r"|qemu-guest-agent|open-vm-tools|cloud-.*|multipathd?(-tools)?|iscsid?|open-iscsi|grub-.*|kdump-tools|apparmor|e2scrub_.*"
    r"|fstrim|ufw|nftables|netfilter-persistent|firewalld|keyboard-setup|console-setup|hwclock.*|chrony|ntp|ntpsec"
)
"""Units of hardware, disks, clock, firewall: the host's work now, and failures in a container."""
_PLUMBING = re.compile(
    r"systemd-.*|dbus(-broker)?|user@.*|user-runtime-dir@.*|polkit|rsyslog|networking|NetworkManager.*|ifup@.*|rc-local"
    r"|unattended-upgrades|apt-.*|dpkg-.*|man-db|console-getty|container-getty@.*|wpa_supplicant|dhclient.*|udev|ssh-.*"
    r"|emergency|rescue|logrotate|exim4-base|snapd.*|resolvconf|accounts-daemon|udisks2|modemmanager"
)
_EXECUTES = re.compile(r"(?m)^Exec(?:Start|StartPre|StartPost|Reload|Stop)=[-@:+!]*(/[^\s;]{1,1000})")
SSH = frozenset({"ssh", "sshd"})
USUAL_PORTS: Mapping[str, tuple[int, ...]] = {
    "ssh": (22,), "sshd": (22,), "nginx": (80,), "apache2": (80,), "httpd": (80,), "caddy": (80, 443),
    "postgresql": (5432,), "mariadb": (3306,), "mysql": (3306,), "redis-server": (6379,), "memcached": (11211,),
    "postfix": (25,), "exim4": (25,), "dovecot": (143, 993), "bind9": (53,), "named": (53,), "slapd": (389,),
    "tomcat10": (8080,), "mosquitto": (1883,), "rabbitmq-server": (5672,), "vsftpd": (21,), "influxdb": (8086,),
}  # fmt: skip
"""Where services listen unless they are told otherwise: for a server that does not run."""
_SYSTEM_DATA = frozenset(
    b"apt aptitude dpkg systemd dbus polkit-1 cloud dhcp ucf pam python misc initramfs-tools man-db grub os-prober sudo"
    b" NetworkManager update-notifier ubuntu-advantage private shells.state logrotate vim ispell usbutils"
    b" command-not-found snapd apparmor xml-core sgml-base emacsen-common portables git plymouth tpm colord".split()
)
_PLACES = (b"var/lib/", b"var/opt/", b"var/spool/", b"var/mail", b"srv/", b"var/www", b"home/", b"opt/")
_ALWAYS = (b"srv/", b"var/www", b"home/", b"var/mail")
"""Places where what is in them is somebody's, whoever owns it."""
PERSON = 1000
"""The first uid of people."""


@dataclass(frozen=True, slots=True)
class Service:
    """One that is the server's purpose. `measured`: it ran when it was looked at."""

    name: str
    """The unit's, without its ending."""
    package: str
    ports: tuple[Port, ...]
    memory: int
    uids: tuple[int, ...]
    programs: tuple[bytes, ...]
    measured: bool


@dataclass(frozen=True, slots=True)
class Data:
    """A directory with a service's data, or people's."""

    path: bytes
    size: int
    files: int


def find(
    survey: Survey | None,
    listing: Listing,
    packages: Packages | None,
    executes: Mapping[str, tuple[bytes, ...]] = {},
) -> list[Service]:
    """What runs, where that could be seen, and what is enabled besides. `executes`: what `programs` has found."""
    found: dict[str, Service] = {}
    for unit, running in sorted(survey.running.items() if survey else ()):
        name = unit.removesuffix(".service")
        if _is_purpose(name):
            owners = [packages.owner(path) for path in (*_units(name, listing), *running.programs)] if packages else []
            found[name] = Service(
                name,
                next(filter(None, owners), ""),
                tuple(sorted(running.ports, key=lambda port: (port.protocol, port.number, port.local))),
                running.memory,
                tuple(sorted(running.uids)),
                tuple(sorted({*running.programs, *executes.get(name, ())})),
                measured=True,
            )
    seen = {name.partition("@")[0] for name in found}
    for name in sorted(enabled(listing)):
        if _is_purpose(name) and name.partition("@")[0] not in seen:
            ports = () if survey else tuple(Port(port, "tcp", local=False) for port in USUAL_PORTS.get(name, ()))
            owners = [packages.owner(path) for path in _units(name, listing)] if packages else []
            found[name] = Service(
                name, next(filter(None, owners), ""), ports, 0, (), executes.get(name, ()), measured=False
            )
    return [found[name] for name in sorted(found)]


def unit_files(listing: Listing) -> list[bytes]:
    """Files of the units that are started at boot."""
    return [path for name in sorted(enabled(listing)) for path in _units(name, listing) if listing[path].kind == "f"]


def programs(units: Mapping[bytes, str], listing: Listing) -> dict[str, tuple[bytes, ...]]:
    """What units execute: paths as packages have them, by the unit's name."""
    found = {}
    for path, text in units.items():
        name = path.rpartition(b"/")[2].decode("utf-8", "replace").removesuffix(".service")
        words = [word[1].encode("utf-8", "surrogateescape").strip(b"/") for word in _EXECUTES.finditer(text)]
        found[name] = tuple(resolved(word, listing) for word in words)
    return found


def resolved(path: bytes, listing: Listing) -> bytes:
    """A path below the links at the top by which /bin and its like are /usr's."""
    first, slash, rest = path.partition(b"/")
    entry = listing.get(first)
    return entry.target.strip(b"/") + slash + rest if entry and entry.kind == "l" else path


def _is_purpose(name: str) -> bool:
    return not (MASKED.fullmatch(name) or _PLUMBING.fullmatch(name))


def enabled(listing: Listing) -> set[str]:
    """Names of services that are started at boot, as the links of systemd tell."""
    wanted = re.compile(rb"etc/systemd/system/[^/]+\.(?:wants|requires)/([A-Za-z0-9@_.:\\-]+)\.service")
    return {
        found[1].decode() for path, entry in listing.items() if entry.kind == "l" and (found := wanted.fullmatch(path))
    }


def _units(name: str, listing: Listing) -> list[bytes]:
    """Files that a unit may be in; an instance of a template is in the template's."""
    first, at, _ = name.partition("@")
    names = [name, *([f"{first}@"] if at else [])]
    paths = [directory + f"{one}.service".encode() for one in names for directory in UNIT_DIRECTORIES]
    return [path for path in paths if path in listing]


def masked(listing: Listing) -> list[str]:
    """Units, with their endings, that are there and are not to be started in the image."""
    found = set()
    for path in listing:
        directory, _, file = path.rpartition(b"/")
        if directory + b"/" in UNIT_DIRECTORIES:
            name, _, ending = file.decode("utf-8", "replace").rpartition(".")
            if ending in ("service", "socket", "timer") and not name.endswith("@") and MASKED.fullmatch(name):
                found.add(f"{name}.{ending}")
    return sorted(found)


def data(listing: Listing, services: Sequence[Service]) -> list[Data]:
    """Directories with data of the services and of people, the largest first."""
    uids = {uid for service in services for uid in service.uids if uid}
    names = {part.encode() for service in services for part in _words(service)}
    sizes: dict[bytes, list[int]] = {}
    owned: set[bytes] = set()
    for path, entry in listing.items():
        place = next((place for place in _PLACES if path.startswith(place)), None)
        if place is None:
            continue
        top = place if not place.endswith(b"/") else place + path[len(place) :].partition(b"/")[0]
        if entry.uid in uids or path.startswith(_ALWAYS):
            owned.add(top)
        if entry.kind == "f":
            counted = sizes.setdefault(top, [0, 0])
            counted[0] += entry.size
            counted[1] += 1
    found = [
        Data(top, size, files)
        for top, (size, files) in sizes.items()
        if (name := top.rpartition(b"/")[2]) not in _SYSTEM_DATA
        and listing[top].kind == "d"
        and (top in owned or name in names)
    ]
    return sorted(found, key=lambda one: (-one.size, one.path))


def _words(service: Service) -> Iterable[str]:
    first = service.name.partition("@")[0]
    return {first, first.removesuffix("-server"), service.package, service.package.partition("-")[0]} - {""}


def people(passwd: str) -> list[tuple[str, int]]:
    """Users that are people, by /etc/passwd: name and uid."""
    found = []
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) != 7 or not fields[2].isdigit() or len(fields[2]) > 9:
            continue
        if PERSON <= int(fields[2]) < 65534 and re.fullmatch(r"[a-z_][a-z0-9_.-]{0,31}", fields[0]):
            found.append((fields[0], int(fields[2])))
    return found


_NOT_USE = re.compile(rb"etc/(alternatives|systemd|rc[0-9S]\.d|init\.d|ssl/certs|fonts|dpkg|apt)/.*")


def configured(listing: Listing, packages: Packages) -> set[str]:
    """Packages whose files a link in /etc leads to, as those that enable a web server's modules do."""
    links = [path for path, entry in listing.items() if entry.kind == "l" and path.startswith(b"etc/")]
    found = {packages.owner(lead_to(path, listing[path].target)) for path in links if not _NOT_USE.fullmatch(path)}
    return found - {""}


def roots(services: Iterable[Service], survey: Survey | None, packages: Packages, keep: Collection[str]) -> set[str]:
    """Packages that something needs: those of the services, of what is mapped by any process, and those to be kept."""
    found = {service.package for service in services if service.package} | set(keep)
    used = [path for service in services for path in service.programs]
    used += list(survey.mapped) if survey else []
    return found | {owner for path in used if (owner := packages.owner(path))}
