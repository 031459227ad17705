//! The ledger: a table of the loads that were committed.

use super::MysqlSink;
use super::session::open;
use super::target::Target;
use crate::sinks::ledger::{MOST_AT_ONCE, Row, forgotten_keys, limit, range};
use crate::sources::mysql::connect::{Failure, Session, TextRow, server_error};
use crate::sources::mysql::names::{literal, quoted};
use chrono::{DateTime, NaiveDateTime, Utc};
use gristmill_model::{Checkpoint, Committed, Error, LoadKey, OwnerId, Result, RunId, Slot};

/// Its name.
pub(super) const LEDGER: &str = "_gristmill_loads";
/// What is asked of it, for [`MysqlSink::committed`].
const ENTRY: &str = "generation, `rows`, checkpoint, at, owner";

/// A time in SQL; our sessions speak UTC.
pub(super) fn instant(at: DateTime<Utc>) -> String {
    format!("TIMESTAMP'{}'", at.format("%Y-%m-%d %H:%M:%S%.6f"))
}

impl MysqlSink {
    pub(super) fn ledger(&self) -> String {
        format!("{}.{LEDGER}", quoted(self.options.database()))
    }

    fn ledger_failed(&self, error: &Failure) -> Error {
        self.refused(error, &format!("cannot read the ledger {}", self.ledger()))
    }

    pub(super) async fn has_ledger(&self, session: &mut Session) -> Result<bool> {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {} AND table_name = '{LEDGER}'",
            literal(self.options.database())
        );
        let found = session.value(&sql).await.map_err(|error| self.ledger_failed(&error))?;
        Ok(found.as_deref() == Some("1"))
    }

    /// Makes the ledger where there is none; outside of every transaction.
    pub(super) async fn make_ledger(&self, session: &mut Session, target: &Target) -> Result<()> {
        if self.has_ledger(session).await? {
            return Ok(());
        }
        let exact = target.server.exact_texts();
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {} (`key` varchar(700) {exact} NOT NULL PRIMARY KEY, slot varchar(700) {exact} NOT NULL, \
             generation bigint NOT NULL, `rows` bigint NOT NULL, sequence bigint unsigned NOT NULL, \
             checkpoint longtext {exact} NOT NULL, owner varchar(255) {exact} NOT NULL, at datetime(6) NOT NULL, \
             KEY slot (slot, generation), KEY at (at)) ENGINE = InnoDB ROW_FORMAT = DYNAMIC \
             COMMENT = 'loads that Gristmill has committed; deleting a row lets its load happen again'",
            self.ledger()
        );
        let doing = format!("cannot make the ledger {}", self.ledger());
        session.run(&sql).await.map_err(|error| self.refused(&error, &doing))
    }

    /// The time, as the ledger and stamps of rows have it.
    pub(super) async fn now(&self, session: &mut Session) -> Result<DateTime<Utc>> {
        let text = session.value("SELECT NOW(6)").await.map_err(|error| self.ledger_failed(&error))?;
        moment(text.as_deref().unwrap_or_default())
    }

    /// Enters the load; within its transaction.
    pub(super) async fn enter(
        &self,
        session: &mut Session,
        rows: u64,
        next: &Checkpoint,
        at: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let checkpoint = serde_json::to_string(next).unwrap_or_default();
        let sql = format!(
            "INSERT INTO {} (`key`, slot, generation, `rows`, sequence, checkpoint, owner, at) \
             VALUES ({}, {}, {}, {rows}, {}, {}, {}, {})",
            self.ledger(),
            literal(&self.key.text()),
            literal(&self.key.slot.text()),
            self.key.generation,
            next.sequence,
            literal(&checkpoint),
            literal(self.owner.0.as_str()),
            instant(at)
        );
        session.run(&sql).await
    }

    /// Drops what is older than it is to be remembered, in the transaction of the load that was entered `at` a time with
    /// `sequence`. Loads of one series are loads of one target, which take turns: nobody else has to do with these rows now.
    pub(super) async fn forget_old(&self, session: &mut Session, sequence: u64, at: DateTime<Utc>) -> Result<()> {
        let Some(limit) = self.ledger_retention.and_then(|retention| limit(at, retention)) else { return Ok(()) };
        let failed = |error: Failure| self.refused(&error, &format!("cannot forget old loads in {}", self.ledger()));
        let ledger = self.ledger();
        let (begin, behind) = range(&self.key.slot);
        let sql = format!(
            "SELECT l.`key`, l.slot, l.generation, l.sequence, l.at FROM {ledger} AS l \
             JOIN (SELECT slot FROM {ledger} WHERE slot >= {} AND slot < {} AND at < {} \
             GROUP BY slot ORDER BY MIN(at) LIMIT {MOST_AT_ONCE}) AS old ON old.slot = l.slot",
            literal(&begin),
            literal(&behind),
            instant(limit)
        );
        let rows = session.ask(&sql).await.map_err(failed)?;
        let rows = rows.into_iter().map(row).collect::<Result<Vec<_>>>()?;
        let gone = forgotten_keys(rows, &self.key, sequence, limit);
        // A few at a time: a statement must not be longer than the server takes.
        for keys in gone.chunks(64) {
            let keys: Vec<String> = keys.iter().map(|key| literal(key)).collect();
            let sql = format!("DELETE FROM {ledger} WHERE `key` IN ({})", keys.join(", "));
            session.run(&sql).await.map_err(failed)?;
        }
        Ok(())
    }

    /// A load as the ledger knows it, and whose it is.
    pub(super) async fn entry(&self, session: &mut Session, key: &LoadKey) -> Result<Option<(Committed, OwnerId)>> {
        let sql = format!("SELECT {ENTRY} FROM {} WHERE `key` = {}", self.ledger(), literal(&key.text()));
        let rows = session.ask(&sql).await.map_err(|error| self.ledger_failed(&error))?;
        rows.into_iter().next().map(|row| committed(row, &key.slot)).transpose()
    }

    pub(super) async fn last_load(&self, slot: &Slot) -> Result<Option<Committed>> {
        let mut session = open(&self.config).await?;
        if !self.has_ledger(&mut session).await? {
            session.close().await;
            return Ok(None);
        }
        let sql = format!(
            "SELECT {ENTRY} FROM {} WHERE slot = {} ORDER BY generation DESC LIMIT 1",
            self.ledger(),
            literal(&slot.text())
        );
        let rows = session.ask(&sql).await.map_err(|error| self.ledger_failed(&error))?;
        session.close().await;
        Ok(rows.into_iter().next().map(|row| committed(row, slot)).transpose()?.map(|(last, _)| last))
    }

    pub(super) async fn last_checkpoint(&self, slot: &Slot) -> Result<Option<Checkpoint>> {
        let mut session = open(&self.config).await?;
        let newest = match self.has_ledger(&mut session).await? {
            true => self.newest_checkpoint(&mut session, slot).await?,
            false => None,
        };
        session.close().await;
        Ok(newest)
    }

    /// The newest checkpoint of a series of loads, as [`crate::Sink::checkpoint`].
    pub(super) async fn newest_checkpoint(&self, session: &mut Session, slot: &Slot) -> Result<Option<Checkpoint>> {
        let (begin, end) = slot.series_ends();
        let (begin, end) = (literal(&begin), literal(&end));
        let ledger = self.ledger();
        let sql = format!(
            "SELECT `key`, slot FROM {ledger} WHERE LEFT(slot, CHAR_LENGTH({begin})) = {begin} \
             AND RIGHT(slot, CHAR_LENGTH({end})) = {end} ORDER BY sequence DESC"
        );
        for row in session.ask(&sql).await.map_err(|error| self.ledger_failed(&error))? {
            let [Some(key), Some(text)] = <[Option<String>; 2]>::try_from(row).unwrap_or_default() else { continue };
            if slot.is_text_of_series(&text) {
                let sql = format!("SELECT checkpoint FROM {ledger} WHERE `key` = {}", literal(&key));
                let found = session.value(&sql).await.map_err(|error| self.ledger_failed(&error))?;
                return read_checkpoint(&found.unwrap_or_default()).map(Some);
            }
        }
        Ok(None)
    }

    /// What the server says about things that are only asked for.
    pub(super) fn asked(&self, error: &Failure, doing: &str) -> Error {
        server_error(error, &self.config, doing)
    }
}

fn read_checkpoint(text: &str) -> Result<Checkpoint> {
    serde_json::from_str(text)
        .map_err(|error| Error::internal("the ledger's checkpoint was not understood").cause(error))
}

fn moment(text: &str) -> Result<DateTime<Utc>> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .map(|at| at.and_utc())
        .map_err(|error| Error::internal(format!("the server's time `{text}` was not understood")).cause(error))
}

/// What is asked of old rows.
fn row(row: TextRow) -> Result<Row> {
    let unclear = || Error::internal("the ledger was not understood");
    let [Some(key), Some(slot), Some(generation), Some(sequence), Some(at)] =
        <[Option<String>; 5]>::try_from(row).map_err(|_| unclear())?
    else {
        return Err(unclear());
    };
    let (generation, sequence) = (generation.parse().map_err(|_| unclear())?, sequence.parse().map_err(|_| unclear())?);
    Ok(Row { key, slot, generation, sequence, at: moment(&at)? })
}

fn committed(row: TextRow, slot: &Slot) -> Result<(Committed, OwnerId)> {
    let unclear = || Error::internal("the ledger was not understood");
    let [Some(generation), Some(rows), Some(checkpoint), Some(at), Some(owner)] =
        <[Option<String>; 5]>::try_from(row).map_err(|_| unclear())?
    else {
        return Err(unclear());
    };
    let committed = Committed {
        key: LoadKey { slot: slot.clone(), generation: generation.parse().map_err(|_| unclear())? },
        rows: rows.parse().map_err(|_| unclear())?,
        files: 0,
        bytes: 0,
        checkpoint: read_checkpoint(&checkpoint)?,
        at: moment(&at)?,
        already: true,
    };
    Ok((committed, OwnerId(RunId::new(owner))))
}
