"""The trimmed kernel's config against the source package: through the product's own way of building it."""

from __future__ import annotations

import re

import pytest

from bulkhead.boot import modules
from tests.harness.trimmed import trimmed_config
from tests.unit.boot.test_boot_trim import OPTIONS

NEEDED = ("SECCOMP_FILTER", "IA32_EMULATION", "ACPI_HOTPLUG_CPU", "MEMORY_HOTREMOVE", "PAGE_REPORTING", "KVM_GUEST")
"""Worth a look although the build refuses a source that drops an option: some of these are asked for indirectly."""


@pytest.mark.timeout(1800)  # the first time it downloads a compiler and the source
def test_the_newest_source_takes_every_option() -> None:
    config = trimmed_config()
    options = dict(re.findall(r"^CONFIG_(\w+)=(.*)$", config, re.MULTILINE))
    for name in (*(OPTIONS[name] for name in (*modules.REQUIRED, *modules.WELCOME)), *NEEDED):
        assert options.get(name) == "y", name
    assert "m" not in options.values(), "nothing is a module"
    assert "RANDOMIZE_BASE" not in options
