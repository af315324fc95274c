"""Ganeti's text format, as hscan writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.advise.reading import read
from bulkhead.errors import Refused
from tests.unit.advise.estates import GIB, problems_of, write

GOOD = """\
group-01|uuid-01|preferred|

node1|65523|1023|60000|1048576|900000|16|M|uuid-01|1
node2|65523|1023|60000|1048576|900000|16|N|uuid-01|1
node3|?|?|?|?|?|?|Y|uuid-01|1

web|4096|20480|2|running|Y|node1|node2|drbd|env:prod|1
old|2048|10240|1|ADMIN_down|Y|node2||plain||1

htools:iextags:env

|4096,2,10240,1,1,1|128,1,1024,1,1,1|32768,8,1048576,16,8,12|plain,drbd|4.0|32.0
"""


def test_nodes_and_instances(tmp_path: Path) -> None:
    estate = read([write(tmp_path / "LOCALNET", GOOD)])
    assert [(server.name, server.cores, server.memory) for server in estate.servers] == [
        ("node1", 16, 64500 << 20),
        ("node2", 16, 64500 << 20),
    ]
    web, old = estate.loads
    assert (web.name, web.server) == ("web", "node1") and web.use[1, 0] == 4 * GIB and web.use[0, 0] == 4.0
    assert old.use[0, 0] == 0.0 and old.use[2, 0] == 10 * GIB
    assert web.workload.system
    told = " ".join(estate.notes)
    assert "not what they use" in told and "1 instances that do not run" in told and "1 nodes that are offline" in told


def test_every_line_that_is_wrong_is_told(tmp_path: Path) -> None:
    text = (
        GOOD.replace("node2|65523|1023|", "node2|lots|1023|")
        .replace("|M|uuid", "|P|uuid")
        .replace("web|4096", "web|-1")
    )
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "c.data", text)])
    told = " | ".join(problems_of(caught.value))
    assert "c.data:3:1: node node1 is offline 'P'" in told
    assert "c.data:4:1: memory of node2: 'lots'" in told and "c.data:7:1: memory of web: '-1'" in told


def test_columns_and_sections(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="2 sections instead of 4 or 5"):
        read([write(tmp_path / "c.data", "g|u|allocable|\n\nnode1|1|1\n")])
    with pytest.raises(Refused, match="3 columns instead of 9 to 15"):
        read([write(tmp_path / "c.data", "g|u|allocable|\n\nnode1|1|1\n\n\n\n")])
