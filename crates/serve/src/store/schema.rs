//! The tables, and a connection to them.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{Result, StoreError};

/// The tables' version, in SQLite's `user_version`. A file of a later one is refused.
pub(super) const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,                -- UUID version 7: sorts by time
        state TEXT NOT NULL,
        created INTEGER NOT NULL,           -- milliseconds since 1970, as all times here
        started INTEGER,
        finished INTEGER,
        content TEXT NOT NULL,              -- the order, in JSON
        init BLOB,
        mask BLOB,
        error TEXT,
        idempotency_key TEXT UNIQUE,
        fingerprint BLOB                    -- of the request that came with the key
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, id);
    CREATE TABLE pictures (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,            -- from 0, the index of its seed
        created INTEGER NOT NULL,
        recipe TEXT NOT NULL,               -- JSON
        png BLOB NOT NULL,
        PRIMARY KEY (job, number)
    ) STRICT;
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
";

/// A connection to the database in `folder`, or to one in memory; the tables are made where there are none.
pub(super) fn open(folder: Option<&Path>) -> Result<Connection> {
    let connection = match folder {
        Some(folder) => Connection::open(folder.join("jobs.sqlite"))?,
        None => Connection::open_in_memory()?,
    };
    // One server per folder: a second one finds the file locked, and need not wait for that to change.
    connection.busy_timeout(Duration::from_millis(200))?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The disk has confirmed what a client is told.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let found: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        0 => connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
        ))?,
        VERSION => {}
        found => return Err(StoreError::Version { found }),
    }
    // Takes the lock now, and not with the first job.
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")?;
    Ok(connection)
}
