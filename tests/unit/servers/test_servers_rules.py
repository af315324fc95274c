"""What of a server stays behind."""

from __future__ import annotations

import pytest

from bulkhead.servers import mounted, rules
from tests.unit.servers.lists import entry, tree

FILES = tree(
    *(
        "boot/",
        "boot/vmlinuz-6.1",
        "usr/lib/modules/",
        "usr/lib/modules/6.1/a.ko",
        "lib/firmware/x",
        "vmlinuz -> boot/v",
    ),
    *("run/", "run/pid", "tmp/", "tmp/x", "var/tmp/y", "etc/passwd", "lost+found/", "srv/lost+found/z", "swapfile"),
    *("usr/share/man/man1/ls.1", "usr/share/doc/a/", "usr/share/doc/a/copyright", "usr/share/doc/a/README"),
    *("var/log/", "var/log/nginx/", "var/log/nginx/access.log", "var/cache/apt/", "var/cache/apt/archives/a.deb"),
    *(
        "var/lib/apt/lists/x",
        "usr/share/locale/locale.alias",
        "usr/share/locale/de/a.mo",
        "home/a/.cache/b",
        "home/a/c",
    ),
)


def test_what_always_stays_behind() -> None:
    chosen = rules.choose(FILES, rules.USUAL, swaps=(b"swapfile",))
    gone = set(FILES) - set(chosen.kept)
    assert gone == {
        *(b"boot/vmlinuz-6.1", b"usr/lib/modules/6.1/a.ko", b"lib/firmware/x", b"vmlinuz", b"run/pid", b"tmp/x"),
        *(b"var/tmp/y", b"lost+found", b"srv/lost+found/z", b"swapfile"),
    }
    assert chosen.left["kernel, boot loader, firmware"] == (4, 30)
    assert chosen.left["swap"] == (1, 10)
    assert sum(count for count, _ in chosen.left.values()) == len(gone)


def test_what_minimize_leaves_out_and_the_directories_that_it_keeps() -> None:
    kept = rules.choose(FILES, (*rules.USUAL, *rules.MINIMAL)).kept
    for path in (b"usr/share/doc/a/copyright", b"var/log/nginx", b"var/cache/apt", b"usr/share/locale/locale.alias"):
        assert path in kept
    for path in (b"usr/share/man/man1/ls.1", b"usr/share/doc/a/README", b"var/log/nginx/access.log"):
        assert path not in kept
    for path in (
        b"var/cache/apt/archives/a.deb",
        b"var/lib/apt/lists/x",
        b"usr/share/locale/de/a.mo",
        b"home/a/.cache/b",
    ):
        assert path not in kept
    assert b"home/a/c" in kept


@pytest.mark.parametrize(
    ("pattern", "out"),
    [
        ("/home", {b"home/a/.cache/b", b"home/a/c"}),
        ("home/*/c", {b"home/a/c"}),
        ("/usr/**.mo", {b"usr/share/locale/de/a.mo"}),
        ("/boot/vmlinuz?6.1", {b"boot/vmlinuz-6.1"}),
        ("/hom", set()),
        ("/etc/pass(wd)?", set()),
    ],
)
def test_exclude(pattern: str, out: set[bytes]) -> None:
    assert set(FILES) - set(rules.choose(FILES, rules.excluded([pattern])).kept) == out


def test_devices_and_sockets_stay_behind() -> None:
    files = {b"a": entry("s"), b"b": entry("c"), b"c": entry("b"), b"d": entry("p")}
    assert rules.choose(files, ()).kept == [b"d"]


MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw shared:2 - proc proc rw
24 22 0:22 / /run rw shared:3 - tmpfs tmpfs rw
25 22 254:17 / /srv/my\\040data rw shared:4 - xfs /dev/vdb1 rw
26 22 0:40 / /mnt/share rw shared:5 - nfs4 files:/share rw
27 22 0:41 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
28 22 254:15 / /boot/efi rw - vfat /dev/vda15 rw
29 25 254:17 / /srv/my\\040data rw - xfs /dev/vdb1 rw
broken line
30 22 254:18 / /a/../../etc rw - ext4 /dev/x rw
"""


def test_which_file_systems_are_copied() -> None:
    found = mounted.read(MOUNTS)
    assert found.starts == (".", "./srv/my data")
    assert found.remote == ("/mnt/share (nfs4)",)
