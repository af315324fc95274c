"""What counts as luck, and what as declared for nothing."""

from __future__ import annotations

from bulkhead.packaging.graph import Graph, Package
from bulkhead.packaging.judge import Judge, Steps, Verdict


def package(name: str, *depends: str, essential: bool = False) -> Package:
    """A package that depends on others."""
    return Package(name, tuple((other,) for other in depends), frozenset(), essential)


GRAPH = Graph(
    [
        package("dash", "libc6", essential=True),
        package("libc6"),
        package("make", "libc6"),
        package("gcc", "libc6"),
        package("dpkg-dev", "make", "libdpkg-perl"),
        package("build-essential", "make", "gcc", "dpkg-dev"),
        package("debhelper", "gettext", "autoconf"),
        package("gettext"),
        package("autoconf", "m4"),
        package("m4"),
        package("libpng-dev", "zlib1g-dev", "libpng16"),
        package("libpng16", "zlib1g"),
        package("zlib1g-dev", "zlib1g"),
        package("zlib1g"),
        package("tools-all", "m4"),
        package("liblocale-perl"),
        Package("libdpkg-perl", (), frozenset(), False, frozenset({"liblocale-perl"})),
    ]
)
OWNERS = {
    "/bin/dash": "dash",
    "/bin/make": "make",
    "/bin/gcc": "gcc",
    "/bin/dpkg-shlibdeps": "dpkg-dev",
    "/bin/dh": "debhelper",
    "/bin/msgfmt": "gettext",
    "/bin/autoconf": "autoconf",
    "/bin/m4": "m4",
    "/usr/include/png.h": "libpng-dev",
    "/usr/include/zlib.h": "zlib1g-dev",
    "/lib/libz.so.1": "zlib1g",
    "/lib/libpng16.so": "libpng16",
    "/usr/share/aclocal/png.m4": "libpng-dev",
    "/bin/pngtool": "libpng16",
    "/usr/share/perl5/Locale.pm": "liblocale-perl",
    "/usr/share/perl5/Dpkg.pm": "libdpkg-perl",
}


def judged(*lines: tuple[object, ...], declared: set[str], subjects: set[str] | None = None) -> Verdict:
    """A verdict on executions (step, by, program) and opened files (step, path)."""
    steps = Steps()
    for line in lines:
        keys = ("step", "by", "program") if len(line) == 3 else ("step", "path")
        steps.take(dict(zip(keys, line, strict=True)))
    free = GRAPH.free(("build-essential",))
    return Judge(GRAPH, OWNERS, frozenset(declared), free, steps.steps, frozenset(subjects or ())).verdict()


RULES = (1, 0, "/build/source/debian/rules")


def test_a_program_that_the_makefile_runs() -> None:
    said = judged(
        RULES, (2, 1, "/usr/bin/dh"), (3, 2, "/usr/bin/make"), (4, 3, "/usr/bin/msgfmt"), declared={"debhelper"}
    )
    (found,) = said.undeclared
    assert (found.package, found.files, found.by) == ("gettext", ("/usr/bin/msgfmt",), ("/usr/bin/make",))
    assert found.through == ("debhelper",)


def test_what_a_declared_tool_runs_and_opens_is_its_own_business() -> None:
    lines = [RULES, (2, 1, "/usr/bin/dh"), (3, 2, "/usr/bin/autoconf"), (4, 3, "/usr/bin/m4"), (2, "/usr/bin/msgfmt")]
    assert judged(*lines, declared={"debhelper"}) == Verdict((), (), ("debhelper",))


def test_what_a_tool_has_asked_another_for_is_explained_by_the_first() -> None:
    # autoconf does not need gettext, debhelper does, and has asked autoconf.
    lines = [RULES, (2, 1, "/usr/bin/dh"), (3, 2, "/usr/bin/autoconf"), (4, 3, "/usr/bin/msgfmt")]
    assert not judged(*lines, declared={"debhelper"}).undeclared
    lines = [RULES, (3, 1, "/usr/bin/autoconf"), (4, 3, "/usr/bin/msgfmt")]
    assert [item.package for item in judged(*lines, declared={"debhelper", "autoconf"}).undeclared] == ["gettext"]


def test_what_a_tool_can_use_where_it_is_there() -> None:
    lines = [RULES, (2, 1, "/usr/bin/dh"), (2, "/usr/share/perl5/Locale.pm"), (2, "/usr/share/perl5/Dpkg.pm")]
    assert not judged(*lines, declared={"debhelper"}).undeclared
    assert [item.package for item in judged(*lines[:-1], declared={"debhelper"}).undeclared] == ["liblocale-perl"]


def test_a_shell_acts_for_whoever_runs_it() -> None:
    by_tool = [RULES, (2, 1, "/usr/bin/dh"), (3, 2, "/bin/dash"), (4, 3, "/usr/bin/autoconf")]
    assert not judged(*by_tool, declared={"debhelper"}).undeclared
    by_source = [RULES, (2, 1, "/usr/bin/dh"), (3, 2, "/build/source/configure"), (4, 3, "/bin/dash")]
    by_source += [(5, 4, "/usr/bin/m4")]
    assert [item.package for item in judged(*by_source, declared={"debhelper"}).undeclared] == ["m4"]


def test_a_header_beside_that_of_a_declared_package_comes_with_it() -> None:
    both = [RULES, (2, 1, "/bin/gcc"), (2, "/usr/include/png.h"), (2, "/usr/include/zlib.h")]
    assert judged(*both, declared={"libpng-dev"}) == Verdict((), (), ("libpng-dev",))
    alone = [*both, (3, 1, "/bin/gcc"), (3, "/usr/include/zlib.h")]
    (found,) = judged(*alone, declared={"libpng-dev"}).undeclared
    assert (found.package, found.through) == ("zlib1g-dev", ("libpng-dev",))


def test_libraries_come_with_what_is_declared() -> None:
    lines = [RULES, (2, 1, "/build/source/test"), (2, "/lib/libz.so.1"), (3, 1, "/usr/bin/dpkg-shlibdeps")]
    assert judged(*lines, declared={"zlib1g-dev"}) == Verdict((), (), ("zlib1g-dev",))
    (found,) = judged(*lines, declared={"gettext"}).undeclared
    assert found.package == "zlib1g"


def test_tools_that_look_at_everything_use_nothing() -> None:
    lines = [RULES, (2, 1, "/usr/bin/dpkg-shlibdeps"), (2, "/lib/libz.so.1"), (3, 1, "/bin/gcc")]
    lines += [(3, "/usr/share/aclocal/png.m4")]
    assert judged(*lines, declared={"libpng-dev"}) == Verdict((), ("libpng-dev",), ())


def test_what_was_not_opened_is_unused_but_for_mere_names() -> None:
    lines = [RULES, (2, 1, "/usr/bin/m4")]
    assert judged(*lines, declared={"tools-all", "gettext", "make"}).unused == ("gettext",)


def test_what_comes_from_outside_is_nobodys() -> None:
    assert not judged((1, 0, "/usr/bin/msgfmt"), declared=set()).undeclared


def test_programs_of_a_package_are_judged_by_its_own_dependencies() -> None:
    lines = [(1, 0, "/bin/dash"), (2, 1, "/usr/bin/pngtool"), (2, "/lib/libz.so.1"), (3, 2, "/usr/bin/msgfmt")]
    said = judged(*lines, declared={"zlib1g", "autoconf"}, subjects={"libpng16"})
    assert [item.package for item in said.undeclared] == ["gettext"]
    assert said.unused == ("autoconf",)
    others = [(1, 0, "/bin/dash"), (2, 1, "/usr/bin/msgfmt")]
    assert not judged(*others, declared={"zlib1g"}, subjects={"libpng16"}).undeclared
