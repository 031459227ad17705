//! One entry of the table's log, and the library's hands that write it.

use super::super::layout::partition_values;
use super::log;
use super::protocol::{NTZ, has_ntz};
use super::schema;
use super::table::{Metadata, Protocol, Table, as_json};
use chrono::Utc;
use delta_kernel::table_properties::TableProperties;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{self, Action, Add, EagerSnapshot, Transaction};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::protocol::DeltaOperation;
use gristmill_model::{Error, ErrorKind, Result, StagedFile};
use serde_json::{Value, json};

/// What an entry says.
pub(super) struct Entry {
    pub(super) actions: Vec<Action>,
    pub(super) operation: DeltaOperation,
    /// What its `commitInfo` tells beside that.
    pub(super) info: Vec<(String, Value)>,
    pub(super) transaction: Transaction,
}

/// A table whose protocol `protocol.rs` has looked at.
struct Vouched<'a> {
    snapshot: &'a EagerSnapshot,
    protocol: kernel::Protocol,
}

impl TableReference for Vouched<'_> {
    fn config(&self) -> &TableProperties {
        self.snapshot.table_properties()
    }

    fn protocol(&self) -> &kernel::Protocol {
        &self.protocol
    }

    fn metadata(&self) -> &kernel::Metadata {
        self.snapshot.metadata()
    }

    fn eager_snapshot(&self) -> &EagerSnapshot {
        self.snapshot
    }
}

/// Writes the version after `table`'s. False: somebody else's came first, and the table has to be looked at again; whether
/// their change and ours get along is not for the library to say, since a load may have been given up, or committed by
/// somebody else, in just that version.
///
/// # Errors
/// A store that refuses.
pub(super) async fn write(table: &Table, log: LogStoreRef, entry: Entry) -> Result<bool> {
    let properties = CommitProperties::default()
        .with_max_retries(0)
        .with_application_transaction(entry.transaction)
        .with_metadata(entry.info);
    let plain = Protocol { min_reader_version: 1, min_writer_version: 2, ..Protocol::default() };
    let protocol: kernel::Protocol = as_json(&plain)?;
    let vouched = table.state.as_ref().map(|(_, snapshot)| Vouched { snapshot, protocol });
    let before = vouched.as_ref().map(|vouched| vouched as &dyn TableReference);
    let prepared = CommitBuilder::from(properties).with_actions(entry.actions).build(before, log, entry.operation);
    let failed = |error: &DeltaTableError| log::explain(error, "the log of the Delta table");
    let prepared = prepared.into_prepared_commit_future().await.map_err(|error| failed(&error))?;
    match prepared.await {
        Ok(written) => {
            // A checkpoint of the log, now and then. The load is committed whatever becomes of it.
            if let Err(error) = written.await {
                tracing::warn!(%error, "the log of the Delta table could not be tidied");
            }
            Ok(true)
        }
        Err(error) if log::is_late(&error) => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

/// What brings a file into the table.
pub(super) fn add(file: &StagedFile, now: i64) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: partition_values(&file.partition).unwrap_or_default().into_iter().collect(),
        size: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        modification_time: now,
        data_change: true,
        stats: file.handle["stats"].as_str().map(str::to_owned),
        ..Add::default()
    }
}

/// What an entry says about the table itself, where that is not what it says already. `is_new`: the table's columns become
/// these and no others.
///
/// # Errors
/// A column that needs a feature which the table does not have.
pub(super) fn metadata(
    table: &Table,
    columns: &schema::Written,
    partition_by: &[String],
    is_new: bool,
) -> Result<Vec<Action>> {
    let needs_ntz = columns.iter().find(|(_, kind)| kind.needs_ntz());
    let said = |metadata: Metadata| Ok(Action::Metadata(as_json(&metadata)?));
    let Some(old) = &table.metadata else {
        let protocol = match needs_ntz {
            None => Protocol { min_reader_version: 1, min_writer_version: 2, ..Protocol::default() },
            Some(_) => Protocol {
                min_reader_version: 3,
                min_writer_version: 7,
                reader_features: Some(vec![NTZ.to_owned()]),
                writer_features: Some(vec![NTZ.to_owned()]),
            },
        };
        let metadata = Metadata {
            id: uuid::Uuid::new_v4().to_string(),
            name: None,
            description: None,
            format: json!({"provider": "parquet", "options": {}}),
            schema_string: schema::schema_of(columns).to_string(),
            partition_columns: partition_by.to_vec(),
            created_time: Some(Utc::now().timestamp_millis()),
            configuration: [].into(),
        };
        return Ok(vec![Action::Protocol(as_json(&protocol)?), said(metadata)?]);
    };
    if !is_new {
        let widened = schema::widened(table, columns)?;
        let widened = widened.map(|schema| said(Metadata { schema_string: schema.to_string(), ..old.clone() }));
        return widened.into_iter().collect();
    }
    if let Some((name, _)) = needs_ntz.filter(|_| !has_ntz(table)) {
        let message = format!(
            "the column `{name}` is a timestamp without a time zone, which the Delta table does not have (its feature \
             `timestampNtz`)"
        );
        return Err(Error::new(ErrorKind::Schema, message)
            .hint(format!("say its zone in a `sql` step: `{name} at time zone 'UTC'`, or load another `path`")));
    }
    let known = table.columns()?.into_iter().map(|column| (column.name, column.kind));
    let as_before = known.eq(columns.iter().map(|(name, kind)| (name.clone(), Some(kind.clone()))))
        && old.partition_columns == partition_by;
    let all_may_be_null = table.columns()?.iter().all(|column| column.nullable);
    if as_before && all_may_be_null {
        return Ok(Vec::new());
    }
    let schema_string = schema::schema_of(columns).to_string();
    Ok(vec![said(Metadata { schema_string, partition_columns: partition_by.to_vec(), ..old.clone() })?])
}
