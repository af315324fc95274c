"""No key of the specification is passed over, and the reference says what becomes of each."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from bulkhead.compose import keys
from bulkhead.compose.keys import SECTIONS
from tests.unit.compose.projects import problems

ROOT = Path(__file__).parents[3]
SPECIFIED = {
    "top": "version name include services networks volumes secrets configs",
    "service": """
        develop deploy annotations attach build blkio_config cap_add cap_drop cgroup cgroup_parent command configs
        container_name cpu_count cpu_percent cpu_shares cpu_quota cpu_period cpu_rt_period cpu_rt_runtime cpus cpuset
        credential_spec depends_on device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file
        label_file environment expose extends external_links extra_hosts gpus group_add healthcheck hostname image init
        ipc isolation labels links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit
        network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop
        privileged profiles pull_policy read_only restart runtime scale security_opt shm_size secrets sysctls stdin_open
        stop_grace_period stop_signal storage_opt tmpfs tty ulimits user uts userns_mode volumes volumes_from
        working_dir""",
    "build": """
        context dockerfile dockerfile_inline entitlements args ssh labels cache_from cache_to no_cache
        additional_contexts network pull target shm_size extra_hosts isolation privileged secrets tags ulimits
        platforms""",
    "depends_on": "restart required condition",
    "healthcheck": "disable interval retries test timeout start_period start_interval",
    "deploy": "mode endpoint_mode replicas labels rollback_config update_config resources restart_policy placement",
    "resources": "limits reservations",
    "limits": "cpus memory pids",
    "restart_policy": "condition delay max_attempts window",
    "service_network": "aliases ipv4_address ipv6_address link_local_ips mac_address driver_opts priority",
    "port": "name mode host_ip target published protocol app_protocol",
    "mount": "type source target read_only consistency bind volume tmpfs",
    "file_use": "source target uid gid mode",
    "extends": "service file",
    "env_file": "path format required",
    "network": "name driver driver_opts ipam external internal enable_ipv4 enable_ipv6 attachable labels",
    "ipam": "driver config options",
    "ipam_config": "subnet ip_range gateway aux_addresses",
    "volume": "name driver driver_opts external labels",
    "secret": "name environment file external labels driver driver_opts template_driver",
    "config": "name content environment file external labels template_driver",
}
"""Keys of the specification's JSON schema (github.com/compose-spec/compose-spec, schema/compose-spec.json)."""
OWN = {"service": {"x-bulkhead"}, "mount": {"image"}}
"""What is ours, and what is newer than that schema."""


def make_reference() -> ModuleType:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("make_reference", str(ROOT / "scripts/make-reference"))
    spec = importlib.util.spec_from_loader("make_reference", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_key_of_the_specification_is_there() -> None:
    for section, names in SPECIFIED.items():
        assert set(SECTIONS[section][1]) - OWN.get(section, set()) == set(names.split()), section
    assert set(SECTIONS) == {*SPECIFIED, "bulkhead"}


def test_the_reference_is_up_to_date() -> None:
    script = make_reference()
    text = (ROOT / "docs/reference/compose.md").read_text()
    assert text.partition(script.MARK)[2] == script.keys().partition(script.MARK)[2], "run scripts/make-reference"


@pytest.mark.parametrize("key", [name for name, key in keys.SERVICE.items() if not key.honoured], ids=str)
def test_what_is_refused_is_refused(key: str) -> None:
    [found] = problems(f"services: {{web: {{image: x, {key}: something}}}}")
    assert f"services.web.{key}: is not honoured: {keys.SERVICE[key].text}" in found
