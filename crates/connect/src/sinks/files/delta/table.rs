//! A table as its log says.

use super::super::place::Place;
use super::log;
use super::types::Kind;
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use deltalake_core::kernel::{EagerSnapshot, LogicalFileView, Remove};
use deltalake_core::logstore::LogStoreRef;
use gristmill_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// The log of a table, below it.
pub(super) const LOG: &str = crate::hive::DELTA_LOG;

/// Whether a folder is a Delta table.
///
/// # Errors
/// A place that cannot be listed.
pub(in super::super) async fn is_table(place: &Place) -> Result<bool> {
    place.has_name(LOG, is_entry).await
}

/// What readers and writers of a table must understand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub(super) min_reader_version: u32,
    pub(super) min_writer_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) writer_features: Option<Vec<String>>,
}

/// What a table is, as its log writes it: the library's own form of it keeps its fields to itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) format: Value,
    /// The columns, as JSON within JSON.
    pub(super) schema_string: String,
    pub(super) partition_columns: Vec<String>,
    pub(super) created_time: Option<i64>,
    #[serde(default)]
    pub(super) configuration: BTreeMap<String, String>,
}

/// A table at one version.
#[derive(Clone, Default)]
pub(super) struct Table {
    /// None: there is no table.
    pub(super) version: Option<u64>,
    pub(super) protocol: Protocol,
    pub(super) metadata: Option<Metadata>,
    /// What the library knows of it.
    pub(super) state: Option<(LogStoreRef, EagerSnapshot)>,
    /// Applications that were asked for: each question reads the log.
    pub(super) asked: Arc<Mutex<HashMap<String, Option<i64>>>>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// None: a type that this version does not know.
    pub(super) kind: Option<Kind>,
    pub(super) nullable: bool,
}

fn damaged(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Data, format!("{what} cannot be understood")).cause(error)
}

/// One form of the same JSON as another.
pub(super) fn as_json<T: serde::de::DeserializeOwned>(value: &impl Serialize) -> Result<T> {
    let bad = |error| damaged("an action of the Delta log", error);
    serde_json::from_value(serde_json::to_value(value).map_err(bad)?).map_err(bad)
}

impl Table {
    /// Reads the log below `place`.
    ///
    /// # Errors
    /// A place that cannot be read, a log that is damaged or asks for more than this version can.
    pub(super) async fn read(place: &Place) -> Result<Self> {
        // The library is not asked for what is no table: it complains of that aloud.
        if !is_table(place).await? {
            return Ok(Self::default());
        }
        let Some(log) = log::open(place).await? else { return Ok(Self::default()) };
        // A log without a beginning is no table to the library, and a damaged one to us.
        let snapshot = EagerSnapshot::try_new(log.as_ref(), None).await;
        let snapshot = snapshot.map_err(|error| log::explain(&error, "the log of the Delta table"))?;
        Ok(Self {
            version: Some(snapshot.version()),
            protocol: as_json(snapshot.protocol())?,
            metadata: Some(as_json(snapshot.metadata())?),
            state: Some((log, snapshot)),
            asked: Arc::default(),
        })
    }

    /// How far an application has come.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub(super) async fn transaction(&self, app_id: &str) -> Result<Option<i64>> {
        let Some((log, snapshot)) = &self.state else { return Ok(None) };
        if let Some(known) = self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(app_id) {
            return Ok(*known);
        }
        let found = snapshot.transaction_version(log.as_ref(), app_id).await;
        let found = found.map_err(|error| log::explain(&error, "the log of the Delta table"))?;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(app_id.to_owned(), found);
        Ok(found)
    }

    /// The files of the table.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub(super) fn files(&self) -> Result<Vec<LogicalFileView>> {
        let Some((_, snapshot)) = &self.state else { return Ok(Vec::new()) };
        let found = snapshot.try_log_data().map_err(|error| log::explain(&error, "the log of the Delta table"))?;
        Ok(found.iter().collect())
    }

    /// What takes files out of the table.
    ///
    /// # Errors
    /// A file whose name another program has written as the library would not: removing it under another name would leave
    /// its rows in the table.
    pub(super) fn removals(&self, files: &[LogicalFileView]) -> Result<Vec<Remove>> {
        let Some((_, snapshot)) = self.state.as_ref().filter(|_| !files.is_empty()) else { return Ok(Vec::new()) };
        let bad = |error: &dyn std::fmt::Display| damaged("the log of the Delta table", error);
        let mut written = BTreeSet::new();
        for batch in snapshot.add_actions_batches(false).map_err(|error| bad(&error))? {
            let paths = batch.column_by_name("path").ok_or_else(|| bad(&"a file has no path"))?;
            let paths = cast(paths, &DataType::Utf8).map_err(|error| bad(&error))?;
            written.extend(paths.as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        let remove = |file: &LogicalFileView| {
            let remove = file.remove_action(true);
            let line: HashMap<String, Value> = as_json(&remove)?;
            if line["path"].as_str().is_some_and(|path| written.contains(path)) {
                return Ok(remove);
            }
            Err(Error::new(ErrorKind::Config, format!("`{}` cannot be taken out of the Delta table", remove.path))
                .cause("the program that wrote it escapes names in another way")
                .hint("let that program rewrite the table (`OPTIMIZE`), or load another `path`"))
        };
        files.iter().map(remove).collect()
    }

    /// The columns, in order.
    ///
    /// # Errors
    /// A schema that cannot be understood.
    pub(super) fn columns(&self) -> Result<Vec<Column>> {
        let Some(metadata) = &self.metadata else { return Ok(Vec::new()) };
        let bad = |error: &dyn std::fmt::Display| damaged("the schema of the Delta table", error);
        let schema: Value = serde_json::from_str(&metadata.schema_string).map_err(|error| bad(&error))?;
        let fields = schema["fields"].as_array().ok_or_else(|| bad(&"it has no fields"))?;
        let column = |field: &Value| {
            Some(Column {
                name: field["name"].as_str()?.to_owned(),
                kind: Kind::parse(&field["type"]),
                nullable: field["nullable"].as_bool().unwrap_or(true),
            })
        };
        fields.iter().map(column).collect::<Option<_>>().ok_or_else(|| bad(&"a field has no name"))
    }

    /// The columns whose values tell partitions apart.
    pub(super) fn partition_columns(&self) -> &[String] {
        self.metadata.as_ref().map_or(&[], |metadata| &metadata.partition_columns)
    }

    /// The paths of the table's files, as they are on disk.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub(super) fn paths(&self) -> Result<BTreeSet<String>> {
        Ok(self.files()?.iter().map(|file| file.path().into_owned()).collect())
    }
}

/// Whether a name below [`LOG`] is of an entry or a checkpoint.
fn is_entry(name: &str) -> bool {
    name.split('.').next().is_some_and(|first| first.len() == 20 && first.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A file's partition by the values of `columns`, in order; `canonical` says how a value is written.
pub(super) fn partition_of(
    values: &HashMap<String, Option<String>>,
    columns: &[String],
    canonical: impl Fn(&str, &str) -> String,
) -> Vec<(String, Option<String>)> {
    let value = |column: &String| {
        // Delta takes the empty text for NULL.
        let value = values.get(column).cloned().flatten().filter(|value| !value.is_empty());
        (column.clone(), value.map(|value| canonical(column, &value)))
    };
    columns.iter().map(value).collect()
}
