//! The embedded store: one SQLite file, `.gristmill/store.db`.
//!
//! Write-ahead log and `synchronous = FULL`, so that a state the caller was told about survives a power cut. All writes
//! go through one connection and begin with `BEGIN IMMEDIATE`: two processes wait for each other instead of failing in
//! the middle. That a slot has one running run at a time is a unique index, not a habit of the caller.

mod schema;

use super::{
    AttemptRecord, DecidedLoad, LoadRecord, NewRun, RunFilter, RunRecord, StepRecord, Store, TakenLoad, WantedLoad,
};
use crate::{RunReport, RunState};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_model::fault::{self, Point};
use gristmill_model::{
    Committed, Error, ErrorKind, Interval, KeptLoad, LoadKey, PipelineName, Result, RunId, Slot, StepKind, StepName,
    StepReport, StepState,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The embedded store.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the store of a project's state folder (`.gristmill/`), or makes it.
    ///
    /// # Errors
    /// A folder that cannot be written, a file that is no store, or a store of a later version.
    pub async fn open(state: &Path) -> Result<Self> {
        tokio::fs::create_dir_all(state).await.map_err(|error| Error::io(&error, format!("`{}`", state.display())))?;
        let path = state.join("store.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30));
        let pool = |most: u32| SqlitePoolOptions::new().max_connections(most);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|error| explain(&error, &path))?;
        let readers = pool(2).connect_lazy_with(options.pragma("query_only", "1"));
        let store = Self { path, writer, readers };
        store.migrate().await?;
        Ok(store)
    }

    /// Opens the store of a project to look at it, also where it must not be written.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], but for a folder that cannot be written.
    pub async fn open_to_look(state: &Path) -> Result<Self> {
        let error = match Self::open(state).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        if !matches!(error.kind(), ErrorKind::Storage | ErrorKind::Denied) {
            return Err(error);
        }
        // Without the files beside it that a write-ahead log needs, SQLite reads a database only when it is told that
        // nobody writes it.
        for immutable in [false, true] {
            let path = state.join("store.db");
            let options = SqliteConnectOptions::new().filename(&path).read_only(true).immutable(immutable);
            let pool = SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options);
            let store = Self { path, writer: pool.clone(), readers: pool };
            if store.runs(&RunFilter { limit: Some(1), ..RunFilter::default() }).await.is_ok() {
                return Ok(store);
            }
        }
        Err(error)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file; dropping the store does the same a little later.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        fault::at(Point::BeforeState)?;
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| explain(&error, &self.path))
    }

    async fn done(&self, transaction: Transaction<'static, Sqlite>) -> Result<()> {
        fault::at(Point::DuringState)?;
        transaction.commit().await.map_err(|error| explain(&error, &self.path))?;
        fault::at(Point::AfterState)
    }

    fn sql<T>(&self, result: Result<T, sqlx::Error>) -> Result<T> {
        result.map_err(|error| explain(&error, &self.path))
    }

    async fn take(&self, connection: &mut SqliteConnection, run: &NewRun, wanted: &WantedLoad) -> Result<TakenLoad> {
        let slot = wanted.slot.text();
        let rows = sqlx::query("SELECT generation, profile, state FROM loads WHERE slot = ? ORDER BY generation DESC")
            .bind(&slot)
            .fetch_all(&mut *connection)
            .await;
        let mut latest = 0u32;
        let mut own: Option<(u32, bool)> = None;
        let mut finished: Option<u32> = None;
        for row in self.sql(rows)? {
            let generation = self.sql(row.try_get::<i64, _>("generation"))?;
            let generation = u32::try_from(generation).unwrap_or(u32::MAX);
            latest = latest.max(generation);
            let profile: String = self.sql(row.try_get("profile"))?;
            let state: String = self.sql(row.try_get("state"))?;
            if profile == profile_text(run.profile.as_deref()) {
                let committed = state == "committed";
                own.get_or_insert((generation, committed));
                finished = finished.or(committed.then_some(generation));
            }
        }
        let key = |generation| LoadKey { slot: wanted.slot.clone(), generation };
        if let Some(generation) = finished.filter(|_| wanted.once) {
            return Ok(TakenLoad { key: key(generation), resumed: false, finished: true });
        }
        match own {
            Some((generation, false)) => {
                let changed = sqlx::query(
                    "UPDATE loads SET run = ?, spec = ?, decided = NULL, kept = NULL
                     WHERE slot = ? AND generation = ? AND profile = ?",
                )
                .bind(run.id.as_str())
                .bind(json(&wanted.spec)?)
                .bind(&slot)
                .bind(i64::from(generation))
                .bind(profile_text(run.profile.as_deref()))
                .execute(&mut *connection)
                .await;
                self.sql(changed)?;
                Ok(TakenLoad { key: key(generation), resumed: true, finished: false })
            }
            _ => {
                let generation = latest.saturating_add(1);
                let inserted = sqlx::query(
                    "INSERT INTO loads (slot, generation, profile, run, state, slot_json, spec)
                     VALUES (?, ?, ?, ?, 'unfinished', ?, ?)",
                )
                .bind(&slot)
                .bind(i64::from(generation))
                .bind(profile_text(run.profile.as_deref()))
                .bind(run.id.as_str())
                .bind(json(&wanted.slot)?)
                .bind(json(&wanted.spec)?)
                .execute(&mut *connection)
                .await;
                self.sql(inserted)?;
                Ok(TakenLoad { key: key(generation), resumed: false, finished: false })
            }
        }
    }

    async fn put_steps(&self, connection: &mut SqliteConnection, run: &RunId, steps: &[StepReport]) -> Result<()> {
        for report in steps {
            let changed = sqlx::query(
                "INSERT INTO steps (run, position, step, kind, state, report)
                 VALUES (?1, (SELECT count(*) FROM steps WHERE run = ?1), ?2, ?3, ?4, ?5)
                 ON CONFLICT (run, step) DO UPDATE SET state = excluded.state, report = excluded.report",
            )
            .bind(run.as_str())
            .bind(report.step.as_str())
            .bind(report.kind.as_str())
            .bind(report.state.as_str())
            .bind(json(report)?)
            .execute(&mut *connection)
            .await;
            self.sql(changed)?;
        }
        Ok(())
    }

    fn run_of(&self, row: &SqliteRow) -> Result<RunRecord> {
        let text = |column: &str| self.sql(row.try_get::<String, _>(column));
        let maybe = |column: &str| self.sql(row.try_get::<Option<String>, _>(column));
        let state = text("state")?;
        Ok(RunRecord {
            id: RunId::from(text("id")?),
            pipeline: PipelineName::from(text("pipeline")?),
            profile: Some(text("profile")?).filter(|profile| !profile.is_empty()),
            interval: Interval { start: self.at(&text("interval_start")?)?, end: self.at(&text("interval_end")?)? },
            state: RunState::from_word(&state).ok_or_else(|| self.foreign("run state", &state))?,
            params: self.parse(&text("params")?)?,
            started: self.at(&text("started")?)?,
            ended: maybe("ended")?.map(|at| self.at(&at)).transpose()?,
            error: maybe("error")?.map(|error| self.parse(&error)).transpose()?,
            report: maybe("report")?.map(|report| self.parse(&report)).transpose()?,
        })
    }

    fn load_of(&self, row: &SqliteRow) -> Result<LoadRecord> {
        let text = |column: &str| self.sql(row.try_get::<String, _>(column));
        let generation = self.sql(row.try_get::<i64, _>("generation"))?;
        let committed = self.sql(row.try_get::<Option<String>, _>("committed"))?;
        let decided = self.sql(row.try_get::<Option<String>, _>("decided"))?;
        // A store of an earlier version that can only be looked at has no such columns.
        let later = |column: &str| row.try_get::<Option<String>, _>(column).unwrap_or_default();
        Ok(LoadRecord {
            key: LoadKey {
                slot: self.parse(&text("slot_json")?)?,
                generation: u32::try_from(generation).unwrap_or(u32::MAX),
            },
            profile: Some(text("profile")?).filter(|profile| !profile.is_empty()),
            run: RunId::from(text("run")?),
            committed: committed.map(|committed| self.parse(&committed)).transpose()?,
            spec: later("spec").map(|spec| self.parse(&spec)).transpose()?,
            decided: decided.map(|decided| self.parse(&decided)).transpose()?,
            kept: later("kept").map(|kept| self.parse(&kept)).transpose()?,
        })
    }

    fn at(&self, text: &str) -> Result<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).map_err(|_| self.foreign("time", text))
    }

    fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.foreign("value", text).cause(error))
    }

    fn word<T: DeserializeOwned>(&self, word: &str) -> Result<T> {
        serde_json::from_value(serde_json::Value::from(word)).map_err(|_| self.foreign("word", word))
    }

    fn foreign(&self, what: &str, text: &str) -> Error {
        let shown: String = text.chars().take(60).collect();
        Error::new(ErrorKind::Data, format!("the store `{}` holds the {what} `{shown}`", self.path.display()))
            .hint("it may have been written by another version; move the file away to begin a new history")
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn begin(&self, run: &NewRun) -> Result<Vec<TakenLoad>> {
        let mut transaction = self.write().await?;
        let going_on = sqlx::query(
            "SELECT id FROM runs WHERE pipeline = ? AND profile = ? AND interval_start = ? AND interval_end = ?
             AND state = 'running'",
        )
        .bind(run.pipeline.as_str())
        .bind(profile_text(run.profile.as_deref()))
        .bind(time(run.interval.start))
        .bind(time(run.interval.end))
        .fetch_optional(&mut *transaction)
        .await;
        if let Some(row) = self.sql(going_on)? {
            let other: String = self.sql(row.try_get("id"))?;
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "run `{other}` of the same pipeline and date is going on (`{}`, {})",
                    run.pipeline, run.interval
                ),
            )
            .hint("wait until it has ended, or stop it; `gristmill runs` shows it"));
        }
        let inserted = sqlx::query(
            "INSERT INTO runs (id, pipeline, profile, interval_start, interval_end, state, params, started)
             VALUES (?, ?, ?, ?, ?, 'running', ?, ?)",
        )
        .bind(run.id.as_str())
        .bind(run.pipeline.as_str())
        .bind(profile_text(run.profile.as_deref()))
        .bind(time(run.interval.start))
        .bind(time(run.interval.end))
        .bind(json(&run.params)?)
        .bind(time(run.started))
        .execute(&mut *transaction)
        .await;
        self.sql(inserted)?;
        let steps: Vec<StepReport> =
            run.steps.iter().map(|(step, kind)| StepReport::new(step.clone(), *kind)).collect();
        self.put_steps(&mut transaction, &run.id, &steps).await?;
        let mut taken = Vec::with_capacity(run.loads.len());
        for wanted in &run.loads {
            taken.push(self.take(&mut transaction, run, wanted).await?);
        }
        self.done(transaction).await?;
        Ok(taken)
    }

    async fn attempt_began(&self, run: &RunId, step: &StepName, attempt: u32, at: DateTime<Utc>) -> Result<()> {
        let mut transaction = self.write().await?;
        let inserted = sqlx::query("INSERT OR REPLACE INTO attempts (run, step, attempt, started) VALUES (?, ?, ?, ?)")
            .bind(run.as_str())
            .bind(step.as_str())
            .bind(i64::from(attempt))
            .bind(time(at))
            .execute(&mut *transaction)
            .await;
        self.sql(inserted)?;
        let changed = sqlx::query("UPDATE steps SET state = 'running' WHERE run = ? AND step = ?")
            .bind(run.as_str())
            .bind(step.as_str())
            .execute(&mut *transaction)
            .await;
        self.sql(changed)?;
        self.done(transaction).await
    }

    async fn attempt_ended(
        &self,
        run: &RunId,
        step: &StepName,
        attempt: u32,
        at: DateTime<Utc>,
        error: Option<&Error>,
    ) -> Result<()> {
        let mut transaction = self.write().await?;
        let changed =
            sqlx::query("UPDATE attempts SET ended = ?, error = ? WHERE run = ? AND step = ? AND attempt = ?")
                .bind(time(at))
                .bind(error.map(json).transpose()?)
                .bind(run.as_str())
                .bind(step.as_str())
                .bind(i64::from(attempt))
                .execute(&mut *transaction)
                .await;
        self.sql(changed)?;
        self.done(transaction).await
    }

    async fn steps_changed(&self, run: &RunId, steps: &[StepReport]) -> Result<()> {
        let mut transaction = self.write().await?;
        self.put_steps(&mut transaction, run, steps).await?;
        self.done(transaction).await
    }

    async fn generation_moved(&self, run: &RunId, from: &LoadKey, to: &LoadKey) -> Result<()> {
        let slot = from.slot.text();
        let mut transaction = self.write().await?;
        let held = sqlx::query("DELETE FROM loads WHERE slot = ? AND generation = ? AND run = ? RETURNING *")
            .bind(&slot)
            .bind(i64::from(from.generation))
            .bind(run.as_str())
            .fetch_optional(&mut *transaction)
            .await;
        let Some(held) = self.sql(held)? else { return Err(not_held(run, from)) };
        let text = |column: &str| self.sql(held.try_get::<String, _>(column));
        // A row that is there keeps what it knows, whether it is committed above all.
        let moved = sqlx::query(
            "INSERT INTO loads (slot, generation, profile, run, state, slot_json, spec) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (slot, generation, profile) DO UPDATE SET run = excluded.run",
        )
        .bind(&slot)
        .bind(i64::from(to.generation))
        .bind(text("profile")?)
        .bind(run.as_str())
        .bind(text("state")?)
        .bind(text("slot_json")?)
        .bind(self.sql(held.try_get::<Option<String>, _>("spec"))?)
        .execute(&mut *transaction)
        .await;
        self.sql(moved)?;
        self.done(transaction).await
    }

    async fn decided(&self, run: &RunId, loads: &[DecidedLoad]) -> Result<()> {
        let mut transaction = self.write().await?;
        for load in loads {
            let key = &load.staged.key;
            let changed = sqlx::query("UPDATE loads SET decided = ? WHERE slot = ? AND generation = ? AND run = ?")
                .bind(json(load)?)
                .bind(key.slot.text())
                .bind(i64::from(key.generation))
                .bind(run.as_str())
                .execute(&mut *transaction)
                .await;
            if self.sql(changed)?.rows_affected() != 1 {
                return Err(not_held(run, key));
            }
        }
        self.done(transaction).await
    }

    async fn given_up(&self, run: &RunId, loads: &[LoadKey]) -> Result<()> {
        let mut transaction = self.write().await?;
        for key in loads {
            let changed = sqlx::query("UPDATE loads SET decided = NULL WHERE slot = ? AND generation = ? AND run = ?")
                .bind(key.slot.text())
                .bind(i64::from(key.generation))
                .bind(run.as_str())
                .execute(&mut *transaction)
                .await;
            self.sql(changed)?;
        }
        self.done(transaction).await
    }

    async fn kept(&self, run: &RunId, loads: &[KeptLoad]) -> Result<()> {
        let mut transaction = self.write().await?;
        let before = sqlx::query("UPDATE loads SET kept = NULL WHERE run = ? AND kept IS NOT NULL");
        self.sql(before.bind(run.as_str()).execute(&mut *transaction).await)?;
        for load in loads {
            let changed = sqlx::query("UPDATE loads SET kept = ? WHERE slot = ? AND generation = ? AND run = ?")
                .bind(json(load)?)
                .bind(load.key.slot.text())
                .bind(i64::from(load.key.generation))
                .bind(run.as_str())
                .execute(&mut *transaction)
                .await;
            if self.sql(changed)?.rows_affected() != 1 {
                return Err(not_held(run, &load.key));
            }
        }
        self.done(transaction).await
    }

    async fn committed(&self, run: &RunId, load: &Committed) -> Result<()> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query(
            "UPDATE loads SET state = 'committed', committed = ?, decided = NULL, spec = NULL
             WHERE slot = ? AND generation = ? AND run = ?",
        )
        .bind(json(load)?)
        .bind(load.key.slot.text())
        .bind(i64::from(load.key.generation))
        .bind(run.as_str())
        .execute(&mut *transaction)
        .await;
        if self.sql(changed)?.rows_affected() != 1 {
            return Err(not_held(run, &load.key));
        }
        // In one transaction: should the process die now, its run's other loads may fail, but not this one.
        let changed = sqlx::query(
            "UPDATE steps SET state = 'success' WHERE run = ? AND step = ? AND state IN ('pending', 'running', 'staged')",
        )
        .bind(run.as_str())
        .bind(load.key.slot.step.as_str())
        .execute(&mut *transaction)
        .await;
        self.sql(changed)?;
        self.done(transaction).await
    }

    async fn end(&self, report: &RunReport, at: DateTime<Utc>) -> Result<()> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query(
            "UPDATE runs SET state = ?, ended = ?, error = ?, report = ? WHERE id = ? AND state = 'running'",
        )
        .bind(report.state.as_str())
        .bind(time(at))
        .bind(report.error.as_ref().map(json).transpose()?)
        .bind(json(report)?)
        .bind(report.run.as_str())
        .execute(&mut *transaction)
        .await;
        if self.sql(changed)?.rows_affected() == 1 {
            self.put_steps(&mut transaction, &report.run, &report.steps).await?;
        }
        self.done(transaction).await
    }

    async fn crashed(&self, run: &RunId, at: DateTime<Utc>) -> Result<bool> {
        let error = Error::new(ErrorKind::Internal, format!("the process of run `{run}` ended without a word"))
            .hint("run the pipeline again for that date; what is unfinished is resumed");
        let mut transaction = self.write().await?;
        let changed =
            sqlx::query("UPDATE runs SET state = 'failed', ended = ?, error = ? WHERE id = ? AND state = 'running'")
                .bind(time(at))
                .bind(json(&error)?)
                .bind(run.as_str())
                .execute(&mut *transaction)
                .await;
        let crashed = self.sql(changed)?.rows_affected() == 1;
        if crashed {
            let changed = sqlx::query(
                "UPDATE steps SET state = CASE state WHEN 'pending' THEN 'upstream_failed' ELSE 'failed' END
                 WHERE run = ? AND state IN ('pending', 'running', 'staged')",
            )
            .bind(run.as_str())
            .execute(&mut *transaction)
            .await;
            self.sql(changed)?;
            let changed = sqlx::query("UPDATE attempts SET ended = ?, error = ? WHERE run = ? AND ended IS NULL")
                .bind(time(at))
                .bind(json(&error)?)
                .bind(run.as_str())
                .execute(&mut *transaction)
                .await;
            self.sql(changed)?;
        }
        self.done(transaction).await?;
        Ok(crashed)
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT * FROM runs WHERE TRUE");
        if let Some(pipeline) = &filter.pipeline {
            query.push(" AND pipeline = ").push_bind(pipeline.as_str());
        }
        if let Some(profile) = &filter.profile {
            query.push(" AND profile = ").push_bind(profile_text(profile.as_deref()));
        }
        if let Some(interval) = &filter.interval {
            query.push(" AND interval_start = ").push_bind(time(interval.start));
            query.push(" AND interval_end = ").push_bind(time(interval.end));
        }
        if let Some(state) = filter.state {
            query.push(" AND state = ").push_bind(state.as_str());
        }
        // Ids are time-ordered too, and tell runs of one instant apart.
        query.push(" ORDER BY started DESC, id DESC");
        if let Some(limit) = filter.limit {
            query.push(" LIMIT ").push_bind(i64::from(limit));
        }
        let rows = self.sql(query.build().fetch_all(&self.readers).await)?;
        rows.iter().map(|row| self.run_of(row)).collect()
    }

    async fn run(&self, id: &RunId) -> Result<Option<RunRecord>> {
        let row = sqlx::query("SELECT * FROM runs WHERE id = ?").bind(id.as_str()).fetch_optional(&self.readers).await;
        self.sql(row)?.map(|row| self.run_of(&row)).transpose()
    }

    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>> {
        let rows = sqlx::query("SELECT step, kind, state, report FROM steps WHERE run = ? ORDER BY position")
            .bind(run.as_str())
            .fetch_all(&self.readers)
            .await;
        let mut steps = Vec::new();
        for row in self.sql(rows)? {
            let text = |column: &str| self.sql(row.try_get::<String, _>(column));
            let report = self.sql(row.try_get::<Option<String>, _>("report"))?;
            steps.push(StepRecord {
                step: StepName::from(text("step")?),
                kind: self.word::<StepKind>(&text("kind")?)?,
                state: self.word::<StepState>(&text("state")?)?,
                attempts: Vec::new(),
                report: report.map(|report| self.parse(&report)).transpose()?,
            });
        }
        let rows =
            sqlx::query("SELECT step, attempt, started, ended, error FROM attempts WHERE run = ? ORDER BY attempt")
                .bind(run.as_str())
                .fetch_all(&self.readers)
                .await;
        for row in self.sql(rows)? {
            let name: String = self.sql(row.try_get("step"))?;
            let attempt: i64 = self.sql(row.try_get("attempt"))?;
            let started: String = self.sql(row.try_get("started"))?;
            let ended: Option<String> = self.sql(row.try_get("ended"))?;
            let error: Option<String> = self.sql(row.try_get("error"))?;
            let record = AttemptRecord {
                attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
                started: self.at(&started)?,
                ended: ended.map(|at| self.at(&at)).transpose()?,
                error: error.map(|error| self.parse(&error)).transpose()?,
            };
            if let Some(step) = steps.iter_mut().find(|step| step.step.as_str() == name) {
                step.attempts.push(record);
            }
        }
        Ok(steps)
    }

    async fn unfinished(&self, run: Option<&RunId>) -> Result<Vec<LoadRecord>> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(
            "SELECT loads.* FROM loads JOIN runs ON runs.id = loads.run
             WHERE loads.state = 'unfinished'",
        );
        match run {
            Some(run) => query.push(" AND loads.run = ").push_bind(run.as_str()),
            None => query.push(" AND runs.state <> 'running'"),
        };
        query.push(" ORDER BY loads.slot, loads.generation");
        let rows = self.sql(query.build().fetch_all(&self.readers).await)?;
        rows.iter().map(|row| self.load_of(row)).collect()
    }

    async fn loads(&self, slot: &Slot) -> Result<Vec<LoadRecord>> {
        let rows = sqlx::query("SELECT * FROM loads WHERE slot = ? ORDER BY generation")
            .bind(slot.text())
            .fetch_all(&self.readers)
            .await;
        self.sql(rows)?.iter().map(|row| self.load_of(row)).collect()
    }

    async fn newest(&self, slot: &Slot, profile: Option<&str>) -> Result<Option<LoadRecord>> {
        let (begin, end) = slot.series_ends();
        // Ids of runs are ordered by time.
        let rows = sqlx::query(
            "SELECT * FROM loads WHERE state = 'committed' AND substr(slot, 1, length(?1)) = ?1
             AND substr(slot, -length(?2)) = ?2 AND profile = ?3 ORDER BY run DESC",
        )
        .bind(begin)
        .bind(end)
        .bind(profile_text(profile))
        .fetch_all(&self.readers)
        .await;
        for row in self.sql(rows)? {
            if slot.is_text_of_series(&self.sql(row.try_get::<String, _>("slot"))?) {
                return self.load_of(&row).map(Some);
            }
        }
        Ok(None)
    }

    async fn replays(&self) -> Result<Vec<LoadRecord>> {
        let rows =
            sqlx::query("SELECT * FROM loads WHERE instr(slot, '@') > 0 ORDER BY run").fetch_all(&self.readers).await;
        let loads: Result<Vec<LoadRecord>> = self.sql(rows)?.iter().map(|row| self.load_of(row)).collect();
        Ok(loads?.into_iter().filter(|load| load.key.slot.step.replay().is_some()).collect())
    }
}

/// A time that sorts as text.
fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// No profile is the empty text: a unique index takes every NULL for another value.
fn profile_text(profile: Option<&str>) -> &str {
    profile.unwrap_or_default()
}

fn not_held(run: &RunId, key: &LoadKey) -> Error {
    Error::internal(format!("the run `{run}` does not hold the load `{key}`"))
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a value cannot be written as JSON").cause(error))
}

fn explain(error: &sqlx::Error, path: &Path) -> Error {
    let shown = path.display();
    let code = match error {
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse::<u32>().ok()),
        _ => None,
    };
    // The low byte of an extended result code is the primary one (sqlite.org/rescode.html).
    let (kind, hint) = match code.map(|code| code & 0xff) {
        Some(5 | 6) => (ErrorKind::Unavailable, Some("another process holds the store; try again in a moment")),
        Some(8 | 14) => (ErrorKind::Storage, Some("the store must be in a folder that can be written")),
        Some(3 | 23) => (ErrorKind::Denied, Some("check the owner and mode of the file")),
        Some(10 | 13) => (ErrorKind::Storage, Some("free some space or choose another disk, then run again")),
        Some(11 | 26) => (ErrorKind::Data, Some("move the file away to begin a new history")),
        _ => match error {
            sqlx::Error::Io(io) => return Error::io(io, format!("the store `{shown}`")),
            sqlx::Error::PoolTimedOut => (ErrorKind::Unavailable, None),
            _ => (ErrorKind::Internal, None),
        },
    };
    Error::new(kind, format!("cannot use the store `{shown}`")).cause(error).maybe_hint(hint.map(str::to_owned))
}

#[cfg(test)]
mod tests;
