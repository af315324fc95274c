"""Values of secrets as files: root's alone, named by ids, and none that nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.errors import HostError, NotFound
from bulkhead.storage.secrets import SecretFiles

ID, OTHER = "a" * 32, "b" * 32


def test_written_read_and_deleted(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path / "state" / "secrets")
    value = bytes(range(256)) * 2000
    files.write(ID, value)
    files.write(OTHER, b"\n")
    assert files.read(ID) == value and files.read(OTHER) == b"\n"
    directory = tmp_path / "state" / "secrets"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {each.name: each.stat().st_mode & 0o777 for each in directory.iterdir()} == {ID: 0o600, OTHER: 0o600}
    files.delete(ID)
    files.delete(ID)
    with pytest.raises(NotFound, match="the value aaaaaaaaaaaa of a secret is not there"):
        files.read(ID)


def test_recovery_leaves_what_records_know(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path)
    assert SecretFiles(tmp_path / "never").recover(set()) == []
    files.write(ID, b"known")
    files.write(OTHER, b"of no record")
    (tmp_path / f"{ID}.new").write_bytes(b"half")
    told = files.recover({ID})
    assert sorted(told) == [f"value {each * 12} of a secret without a record removed" for each in "ab"]
    assert [each.name for each in tmp_path.iterdir()] == [ID]
    assert files.recover({ID}) == []
    assert not any("half" in each or "of no record" in each for each in told)


@pytest.mark.parametrize(
    "wrong", ["", "../../etc/shadow", ID.upper(), ID[:-1], ID + "a", f"{ID}\n", f"{ID}.new", "/" + ID]
)
def test_no_id_leads_elsewhere(tmp_path: Path, wrong: str) -> None:
    files = SecretFiles(tmp_path / "secrets")
    for act in (files.read, files.delete, lambda name: files.write(name, b"x")):
        with pytest.raises(HostError, match="is no id of a secret's value"):
            act(wrong)
    assert list(tmp_path.iterdir()) == []
