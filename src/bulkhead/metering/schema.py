"""The ledger's file: its tables, and what keeps it small."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from bulkhead.metering.meters import METERS

APPLICATION_ID = 0x62756C75
"""Marks the file as a ledger of Bulkhead's ("bulu")."""
VERSION = 2
MINUTE, HOUR, DAY = 60, 3600, 86400
LENGTHS = (MINUTE, HOUR, DAY)
"""Of bins, in seconds."""
_BUSY_SECONDS = 10.0

_SCHEMA = (
    "CREATE TABLE subject (id INTEGER PRIMARY KEY, instance TEXT NOT NULL, tenant TEXT NOT NULL, plan TEXT NOT NULL,"
    " name TEXT NOT NULL, gone INTEGER NOT NULL DEFAULT 0, kind TEXT NOT NULL DEFAULT 'instance',"
    " UNIQUE (instance, tenant, plan))",
    f"CREATE TABLE bin (length INTEGER NOT NULL, start INTEGER NOT NULL, subject INTEGER NOT NULL,"
    f" {', '.join(f'{name} INTEGER NOT NULL' for name in METERS)}, PRIMARY KEY (subject, length, start)) WITHOUT ROWID",
    "CREATE TABLE position (instance TEXT PRIMARY KEY, subject INTEGER NOT NULL, boot TEXT NOT NULL,"
    " at INTEGER NOT NULL, wall INTEGER NOT NULL, run TEXT NOT NULL, over TEXT NOT NULL, cpu INTEGER, received INTEGER,"
    " sent INTEGER, read INTEGER, written INTEGER, reads INTEGER, writes INTEGER, memory INTEGER, disk INTEGER,"
    " sold_memory INTEGER NOT NULL, sold_disk INTEGER NOT NULL, sold_cpu INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE price (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, plan TEXT NOT NULL,"
    " unit TEXT NOT NULL, amount TEXT NOT NULL, currency TEXT NOT NULL, valid_from TEXT NOT NULL,"
    " UNIQUE (tenant, plan, unit, valid_from))",
    "CREATE TABLE invoice (number TEXT PRIMARY KEY, series TEXT NOT NULL, sequence INTEGER NOT NULL,"
    " tenant TEXT NOT NULL, month TEXT NOT NULL, document TEXT NOT NULL, UNIQUE (series, sequence),"
    " UNIQUE (tenant, month))",
    "CREATE TABLE closed (tenant TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)

_NEWER = {
    1: (
        "ALTER TABLE subject ADD COLUMN kind TEXT NOT NULL DEFAULT 'instance'",
        "UPDATE subject SET kind = '' WHERE instance = ''",
        *(
            f"ALTER TABLE bin ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0"
            for name in ("volume_sold", "volume_used", "snapshot_sold", "uncounted")
        ),
        "PRAGMA user_version = 2",
    ),
}
"""What makes a file of a version one of the next."""


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the ledger, which is made (mode 600) where it is not there. Raises sqlite3.Error."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if not empty and (found != APPLICATION_ID or version not in (*_NEWER, VERSION)):
            raise sqlite3.DatabaseError("it is not a ledger of this version of Bulkhead")
        if empty:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        for statements in [_SCHEMA] if empty else [_NEWER[older] for older in range(version, VERSION)]:
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def merge_removed(connection: sqlite3.Connection, kept: int, meters: Sequence[str]) -> None:
    """Put the use of removed instances, but for the last `kept` of them, into one sum per tenant and plan."""
    surplus = connection.execute(
        "SELECT id, tenant, plan FROM subject WHERE gone AND instance != ''"
        " ORDER BY gone DESC, id DESC LIMIT -1 OFFSET ?",
        (kept,),
    ).fetchall()
    add = ", ".join(f"{name} = {name} + excluded.{name}" for name in meters)
    for subject, tenant, plan in surplus:
        connection.execute(
            "INSERT OR IGNORE INTO subject (instance, tenant, plan, name, gone, kind) VALUES ('', ?, ?, '', 1, '')",
            (tenant, plan),
        )
        connection.execute(
            f"INSERT INTO bin (length, start, subject, {', '.join(meters)}) SELECT length, start, (SELECT id FROM"  # noqa: S608
            f" subject WHERE instance = '' AND tenant = ? AND plan = ?), {', '.join(meters)} FROM bin WHERE subject = ?"
            f" ON CONFLICT DO UPDATE SET {add}",
            (tenant, plan, subject),
        )
        connection.execute("DELETE FROM bin WHERE subject = ?", (subject,))
        connection.execute("DELETE FROM subject WHERE id = ?", (subject,))
