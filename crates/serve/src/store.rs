//! Durable jobs: SQLite holds orders, pictures and how far each job is. Accepted means kept: a job counts as accepted when
//! its row has reached the disk, and a picture as made when its row has; both are single transactions, so that after a
//! crash every job is either as before or as after.

mod records;
mod schema;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::order::{Attachments, Order};
use crate::settings::Retention;

pub use records::{Accepted, Job, Key, State};

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own complaint.
    #[error("the job database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What lies in it cannot be read.
    #[error("the job database: {0}")]
    Damaged(String),
    /// Written by a later version of this program.
    #[error(
        "the job database is of version {found}, expected at most {}; use the program that wrote it, or another --data folder",
        schema::VERSION
    )]
    Version {
        /// Its version.
        found: i32,
    },
}

type Result<T> = std::result::Result<T, StoreError>;

/// The database.
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens or makes the database in `folder`; without one, a database in memory.
    ///
    /// # Errors
    /// It cannot be opened, is in use by another server, or was written by a later version.
    pub fn open(folder: Option<&Path>) -> Result<Store> {
        let connection = schema::open(folder)?;
        Ok(Store { connection })
    }

    /// Accepts a job. When this returns, it is on the disk.
    ///
    /// # Errors
    /// SQLite's.
    pub fn accept(
        &mut self,
        id: Uuid,
        order: &Order,
        attachments: &Attachments,
        key: Option<&Key>,
    ) -> Result<Accepted> {
        let transaction = self.connection.transaction()?;
        if let Some(key) = key {
            let before: Option<(String, Vec<u8>)> = transaction
                .query_row(
                    "SELECT id, fingerprint FROM jobs WHERE idempotency_key = ?1",
                    [&key.key],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            if let Some((before, fingerprint)) = before {
                return Ok(if fingerprint == key.fingerprint {
                    Accepted::Again(parse_id(&before)?)
                } else {
                    Accepted::Conflict
                });
            }
        }
        let content =
            serde_json::to_string(order).map_err(|e| StoreError::Damaged(e.to_string()))?;
        transaction.execute(
            "INSERT INTO jobs (id, state, created, content, init, mask, idempotency_key, fingerprint)
             VALUES (?1, 'queued', ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                id.to_string(),
                now(),
                content,
                attachments.init,
                attachments.mask,
                key.map(|key| &key.key),
                key.map(|key| &key.fingerprint),
            ],
        )?;
        transaction.commit()?;
        Ok(Accepted::New)
    }

    /// The job that came with this key and this request.
    ///
    /// # Errors
    /// SQLite's.
    pub fn id_of_key(&self, key: &Key) -> Result<Option<Uuid>> {
        let id: Option<String> = self
            .connection
            .query_row(
                "SELECT id FROM jobs WHERE idempotency_key = ?1 AND fingerprint = ?2",
                params![key.key, key.fingerprint],
                |row| row.get(0),
            )
            .optional()?;
        id.map(|id| parse_id(&id)).transpose()
    }

    /// The jobs that have been accepted and not finished, oldest first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn unfinished(&self) -> Result<Vec<Uuid>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id FROM jobs WHERE state IN ('queued', 'running') ORDER BY id",
        )?;
        let ids = statement.query_map([], |row| row.get::<_, String>(0))?;
        ids.map(|id| parse_id(&id?)).collect()
    }

    /// A job.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub fn job(&self, id: Uuid) -> Result<Option<Job>> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?;
        let raw = statement
            .query_row([id.to_string()], RawJob::read)
            .optional()?;
        raw.map(|raw| self.complete(raw)).transpose()
    }

    /// At most `limit` jobs, newest first: those before `before`, and of `state`.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub fn list(
        &self,
        limit: usize,
        before: Option<Uuid>,
        state: Option<State>,
    ) -> Result<Vec<Job>> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM jobs
             WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR state = ?2) ORDER BY id DESC LIMIT ?3"
        ))?;
        let rows = statement.query_map(
            params![
                before.map(|id| id.to_string()),
                state.map(State::name),
                limit as i64
            ],
            RawJob::read,
        )?;
        rows.map(|raw| self.complete(raw?)).collect()
    }

    /// The pictures that came with an order.
    ///
    /// # Errors
    /// SQLite's.
    pub fn attachments(&self, id: Uuid) -> Result<Attachments> {
        let found = self
            .connection
            .query_row(
                "SELECT init, mask FROM jobs WHERE id = ?1",
                [id.to_string()],
                |row| {
                    Ok(Attachments {
                        init: row.get(0)?,
                        mask: row.get(1)?,
                    })
                },
            )
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    /// The PNG file of a picture.
    ///
    /// # Errors
    /// SQLite's.
    pub fn picture(&self, id: Uuid, number: usize) -> Result<Option<Vec<u8>>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT png FROM pictures WHERE job = ?1 AND number = ?2")?;
        let png = statement.query_row(params![id.to_string(), number as i64], |row| row.get(0));
        Ok(png.optional()?)
    }

    /// Notes that painting begins; the first time counts.
    ///
    /// # Errors
    /// SQLite's.
    pub fn begin(&self, id: Uuid) -> Result<()> {
        self.connection.execute(
            "UPDATE jobs SET state = 'running', started = COALESCE(started, ?2) WHERE id = ?1",
            params![id.to_string(), now()],
        )?;
        Ok(())
    }

    /// Puts a job that was begun back among the waiting ones.
    ///
    /// # Errors
    /// SQLite's.
    pub fn put_back(&self, id: Uuid) -> Result<()> {
        self.connection.execute(
            "UPDATE jobs SET state = 'queued' WHERE id = ?1 AND state = 'running'",
            [id.to_string()],
        )?;
        Ok(())
    }

    /// Keeps a picture. Each number is written once.
    ///
    /// # Errors
    /// SQLite's; also when that picture is there already.
    pub fn keep_picture(&self, id: Uuid, number: usize, recipe: &str, png: &[u8]) -> Result<()> {
        self.connection.execute(
            "INSERT INTO pictures (job, number, created, recipe, png) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![id.to_string(), number as i64, now(), recipe, png],
        )?;
        Ok(())
    }

    /// Brings a job to its end. A job that has come to one stays as it is.
    ///
    /// # Errors
    /// SQLite's.
    pub fn finish(&self, id: Uuid, state: State, error: Option<&str>) -> Result<bool> {
        let changed = self.connection.execute(
            "UPDATE jobs SET state = ?2, finished = ?3, error = ?4
             WHERE id = ?1 AND state IN ('queued', 'running')",
            params![id.to_string(), state.name(), now(), error],
        )?;
        Ok(changed > 0)
    }

    /// Forgets a job that has come to its end, and its pictures. False when there is none, or it has not.
    ///
    /// # Errors
    /// SQLite's.
    pub fn forget(&self, id: Uuid) -> Result<bool> {
        let changed = self.connection.execute(
            "DELETE FROM jobs WHERE id = ?1 AND state NOT IN ('queued', 'running')",
            [id.to_string()],
        )?;
        Ok(changed > 0)
    }

    /// Forgets finished jobs beyond what is to be kept. Returns how many.
    ///
    /// # Errors
    /// SQLite's.
    pub fn tidy(&self, retention: &Retention) -> Result<usize> {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let mut forgotten = 0;
        if retention.days > 0 {
            forgotten += self.connection.execute(
                "DELETE FROM jobs WHERE state NOT IN ('queued', 'running') AND finished < ?1",
                [now() - i64::from(retention.days) * DAY],
            )?;
        }
        if retention.jobs > 0 {
            forgotten += self.connection.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state NOT IN ('queued', 'running')
                 ORDER BY id DESC LIMIT -1 OFFSET ?1)",
                [i64::from(retention.jobs)],
            )?;
        }
        Ok(forgotten)
    }

    /// Random bytes that stay the same as long as the database lives; made when first asked for.
    ///
    /// # Errors
    /// SQLite's.
    pub fn secret(&self, name: &str) -> Result<Vec<u8>> {
        self.connection.execute(
            "INSERT OR IGNORE INTO secrets (name, value) VALUES (?1, randomblob(32))",
            [name],
        )?;
        Ok(self.connection.query_row(
            "SELECT value FROM secrets WHERE name = ?1",
            [name],
            |row| row.get(0),
        )?)
    }

    fn complete(&self, raw: RawJob) -> Result<Job> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT number, recipe FROM pictures WHERE job = ?1 ORDER BY number")?;
        let pictures = statement
            .query_map([&raw.id], |row| {
                Ok((row.get::<_, i64>(0)? as usize, row.get(1)?))
            })?
            .collect::<std::result::Result<_, _>>()?;
        Ok(Job {
            id: parse_id(&raw.id)?,
            state: State::of_name(&raw.state)
                .ok_or_else(|| StoreError::Damaged(format!("unknown state {}", raw.state)))?,
            created: raw.created,
            started: raw.started,
            finished: raw.finished,
            order: serde_json::from_str(&raw.content)
                .map_err(|error| StoreError::Damaged(format!("job {}: {error}", raw.id)))?,
            error: raw.error,
            pictures,
        })
    }
}

const COLUMNS: &str = "id, state, created, started, finished, content, error";

/// A row of `jobs`.
struct RawJob {
    id: String,
    state: String,
    created: i64,
    started: Option<i64>,
    finished: Option<i64>,
    content: String,
    error: Option<String>,
}

impl RawJob {
    fn read(row: &Row) -> rusqlite::Result<RawJob> {
        Ok(RawJob {
            id: row.get(0)?,
            state: row.get(1)?,
            created: row.get(2)?,
            started: row.get(3)?,
            finished: row.get(4)?,
            content: row.get(5)?,
            error: row.get(6)?,
        })
    }
}

fn parse_id(id: &str) -> Result<Uuid> {
    Uuid::parse_str(id).map_err(|error| StoreError::Damaged(format!("job {id}: {error}")))
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as i64
}

#[cfg(test)]
mod tests;
