"""The graph of packages: what is needed, what nobody has afterwards, and dpkg's own word on it."""

from __future__ import annotations

from bulkhead.servers import dpkg, services
from bulkhead.servers.dpkg import Packages
from tests.unit.servers.lists import tree


def stanza(name: str, status: str = "install ok installed", **fields: str) -> str:
    lines = [f"Package: {name}", f"Status: {status}", "Architecture: amd64", "Version: 1"]
    return "\n".join([*lines, *(f"{key.replace('_', '-')}: {value}" for key, value in fields.items())])


STATUS = "\n\n".join(
    [
        stanza("bash", Essential="yes", Pre_Depends="libc (>= 2.3)"),
        stanza("libc", Multi_Arch="same"),
        stanza(
            "nginx-common", Depends="debconf | debconf-2.0", Conffiles="\n /etc/nginx/nginx.conf 0123 \n /etc/gone 1"
        ),
        stanza("nginx-light", Depends="nginx-common (= 1), libc", Recommends="nginx-doc"),
        stanza("nginx-doc"),
        stanza("cdebconf", Provides="debconf-2.0 (= 1)"),
        stanza("php", Depends="libc, php-common"),
        stanza("php-common", Conffiles="\n /etc/php/php.ini 0123"),
        stanza("old", "deinstall ok config-files"),
        stanza("linux-image-6.1.0-1-amd64"),
        stanza("../evil"),
        "Package: half",
    ]
)
LISTING = tree(
    *("bin -> usr/bin", "usr/bin/", "usr/bin/bash", "usr/bin/php", "usr/sbin/nginx", "etc/php/php.ini", "etc/php/"),
    *("usr/share/x", "etc/alternatives/php -> /usr/bin/php", "etc/alternatives/other -> /usr/bin/bash"),
    *("etc/systemd/system/multi-user.target.wants/php.service -> ../../../../usr/lib/systemd/system/php.service",),
    *("usr/lib/systemd/system/php.service", "usr/bin/php-link -> php"),
    *("var/lib/dpkg/info/php.list", "var/lib/dpkg/info/php-common.list", "var/lib/dpkg/info/php-common.postrm"),
    *("var/lib/dpkg/info/php-common.md5sums", "var/lib/dpkg/info/libc:amd64.list", "var/lib/dpkg/status"),
)
LISTS = {
    "bash": "/.\n/bin\n/bin/bash\n",
    "php": "/usr\n/usr/bin\n/usr/bin/php\n/usr/share/x\n/usr/lib/systemd/system/php.service\n",
    "php-common": "/etc/php\n/etc/php/php.ini\n/usr/share/x\n",
    "libc:amd64": "/usr/share/x\n",
    "unknown": "/usr/sbin/nginx\n",
}


def packages() -> Packages:
    return dpkg.read(STATUS, LISTS, LISTING)


def test_what_is_installed() -> None:
    found = packages()
    assert "old" not in found.installed and "half" not in found.installed and "../evil" not in found.installed
    assert found.installed["nginx-common"].conffiles == ("/etc/nginx/nginx.conf", "/etc/gone")
    assert found.owner(b"usr/bin/bash") == "bash"  # its list says /bin
    assert found.owner(b"usr/sbin/nginx") == ""


def test_what_is_needed() -> None:
    found = packages()
    assert dpkg.needed(found, ["nginx-light"]) == {"nginx-light", "nginx-common", "cdebconf", "libc", "nginx-doc"}
    assert dpkg.base(found) == ["bash"]
    assert dpkg.needed(found, ["linux-image-6.1.0-1-amd64", "nothing"]) == set()
    assert dpkg.hardware(found) == {"linux-image-6.1.0-1-amd64"}


def test_files_that_nobody_has_any_more() -> None:
    gone = dpkg.orphans(packages(), {"php", "php-common"}, LISTING)
    # libc has /usr/share/x as well; php.ini is the administrator's.
    assert gone == {
        b"usr/bin/php",
        b"usr/lib/systemd/system/php.service",
        b"etc/alternatives/php",
        b"etc/systemd/system/multi-user.target.wants/php.service",
    }


def test_what_etc_leads_to_is_used() -> None:
    listing = tree("etc/nginx/modules-enabled/50-echo.conf -> /usr/share/x", "etc/alternatives/php -> /usr/bin/php")
    assert services.configured(listing, packages()) == {"php"}  # the first that has /usr/share/x
    assert services.configured(tree("etc/alternatives/php -> /usr/bin/php"), packages()) == set()


def test_dpkg_knows_of_it() -> None:
    found = packages()
    text = dpkg.status_without({"php", "php-common"}, STATUS)
    again = dpkg.read(text, LISTS, LISTING)
    assert set(found.installed) - set(again.installed) == {"php", "php-common"}
    assert "Package: php\n" not in text
    assert "Package: php-common\nStatus: deinstall ok config-files" in text
    gone = dpkg.records(found, {"php", "php-common"}, LISTING)
    assert gone == {b"var/lib/dpkg/info/php.list", b"var/lib/dpkg/info/php-common.md5sums"}


def test_packages_that_need_one_another_in_a_circle() -> None:
    status = "\n\n".join([stanza("a", Depends="b"), stanza("b", Depends="a")])
    assert dpkg.needed(dpkg.read(status, {}, {}), ["a"]) == {"a", "b"}
