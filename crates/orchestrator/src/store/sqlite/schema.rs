//! The store's tables, and how older stores come to have them.

use super::{SqliteStore, explain, time};
use chrono::Utc;
use gristmill_model::{Error, ErrorKind, Result};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

/// One step of the schema's history. They are applied in order, each once; never change one that was released.
const MIGRATIONS: [&str; 4] = [
    "
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    pipeline TEXT NOT NULL,
    profile TEXT NOT NULL,
    interval_start TEXT NOT NULL,
    interval_end TEXT NOT NULL,
    state TEXT NOT NULL,
    params TEXT NOT NULL,
    started TEXT NOT NULL,
    ended TEXT,
    error TEXT,
    report TEXT
) STRICT;
CREATE UNIQUE INDEX runs_running ON runs (pipeline, profile, interval_start, interval_end) WHERE state = 'running';
CREATE INDEX runs_started ON runs (started);
CREATE TABLE steps (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    step TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    report TEXT,
    PRIMARY KEY (run, step)
) STRICT;
CREATE TABLE attempts (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    started TEXT NOT NULL,
    ended TEXT,
    error TEXT,
    PRIMARY KEY (run, step, attempt)
) STRICT;
CREATE TABLE loads (
    slot TEXT NOT NULL,
    generation INTEGER NOT NULL,
    profile TEXT NOT NULL,
    run TEXT NOT NULL REFERENCES runs (id),
    state TEXT NOT NULL CHECK (state IN ('unfinished', 'committed')),
    slot_json TEXT NOT NULL,
    committed TEXT,
    PRIMARY KEY (slot, generation)
) STRICT;
CREATE INDEX loads_unfinished ON loads (run) WHERE state = 'unfinished';
",
    // Profiles that share a target come to share a generation, too, where the target's ledger holds an append already.
    "
CREATE TABLE loads_of_profiles (
    slot TEXT NOT NULL,
    generation INTEGER NOT NULL,
    profile TEXT NOT NULL,
    run TEXT NOT NULL REFERENCES runs (id),
    state TEXT NOT NULL CHECK (state IN ('unfinished', 'committed')),
    slot_json TEXT NOT NULL,
    committed TEXT,
    decided TEXT,
    PRIMARY KEY (slot, generation, profile)
) STRICT;
INSERT INTO loads_of_profiles (slot, generation, profile, run, state, slot_json, committed)
    SELECT slot, generation, profile, run, state, slot_json, committed FROM loads;
DROP TABLE loads;
ALTER TABLE loads_of_profiles RENAME TO loads;
CREATE INDEX loads_unfinished ON loads (run) WHERE state = 'unfinished';
",
    // What a failed check leaves to be looked at.
    "ALTER TABLE loads ADD COLUMN kept TEXT",
    // Where a load's leavings are when the pipeline no longer says so.
    "ALTER TABLE loads ADD COLUMN spec TEXT",
];

impl SqliteStore {
    /// Brings the schema up to this version's; a store of a later one is refused.
    pub(super) async fn migrate(&self) -> Result<()> {
        let mut transaction = self.write().await?;
        let done = self.run_migrations(&mut transaction).await;
        let done = done.map_err(|error| explain(&error, &self.path))?;
        if done > MIGRATIONS.len() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the store `{}` was written by a later version of gristmill", self.path.display()),
            )
            .hint("install the newest gristmill, or move the file away to begin a new history"));
        }
        self.done(transaction).await
    }

    async fn run_migrations(&self, connection: &mut SqliteConnection) -> Result<usize, sqlx::Error> {
        sqlx::raw_sql("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied TEXT NOT NULL)")
            .execute(&mut *connection)
            .await?;
        let row = sqlx::query("SELECT count(*) FROM migrations").fetch_one(&mut *connection).await?;
        let mut done = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default();
        for migration in MIGRATIONS.iter().skip(done) {
            sqlx::raw_sql(*migration).execute(&mut *connection).await?;
            done += 1;
            sqlx::query("INSERT INTO migrations (version, applied) VALUES (?, ?)")
                .bind(i64::try_from(done).unwrap_or(i64::MAX))
                .bind(time(Utc::now()))
                .execute(&mut *connection)
                .await?;
        }
        Ok(done)
    }
}
