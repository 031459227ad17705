//! The source contract: plan units, read one.

use crate::kept::Came;
use crate::{Aggregation, Filter, Rows};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use gristmill_model::spec::{CsvOptions, ExtractSpec, FileFormat, Lag, OnFail, SchemaContract};
use gristmill_model::{Error, ErrorKind, Result, WorkUnit};
use object_store::ObjectStore;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Something rows are read from.
///
/// The units of one plan are disjoint and their union is the whole; reading a unit twice from the same plan gives the
/// same rows as long as the source can keep its picture ([`ReadPlan::consistency`]). Implementations must not panic
/// on any input: a dependency's panic becomes an error at the reader's edge.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// The columns and types of the rows.
    ///
    /// # Errors
    /// A table, file or column that does not exist; a system that does not answer; files that cannot be unified.
    async fn schema(&self) -> Result<SchemaRef>;

    /// Narrows an extract to what is new: what to read instead, and how far that will go. Where the source can, the upper
    /// bound is fixed here, before anything is read, so that a row that comes meanwhile is read next time rather than
    /// maybe; otherwise the rows themselves tell ([`Next::Greatest`]).
    ///
    /// # Errors
    /// A source that cannot tell new rows from old ones; a column that is not there or has no order; a lag that does not
    /// go with its type; as [`Source::schema`].
    async fn narrow(&self, extract: &ExtractSpec, increment: &Increment) -> Result<Narrowed> {
        let _ = increment;
        Err(Error::new(ErrorKind::Config, format!("`incremental_key` is not supported for `{}`", extract.from))
            .hint("it is for tables and queries of databases, APIs and files; leave it out"))
    }

    /// Says, before anything is asked, which job what is read belongs to: a step of a run, whatever its attempt. A source
    /// that cannot be asked twice at little cost may keep what it has read for another attempt of the same job.
    fn within(&self, job: &str) {
        let _ = job;
    }

    /// Divides the rows into units and pins what can be pinned: the upper bound is fixed before anything is read.
    ///
    /// # Errors
    /// As [`Source::schema`].
    async fn plan(&self, want: &ReadRequest) -> Result<ReadPlan>;

    /// Reads one unit, as batches of `scan.schema`. Nothing is called before the stream is polled.
    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows;

    /// Divides a unit that nobody has begun to read into its first part of about `most` rows and the rest, where the unit
    /// is larger than that and can be divided at little cost. The two are disjoint, together they are the unit, and they are
    /// read instead of it. `None`: it is read as it is.
    async fn split(&self, unit: &WorkUnit, most: u64) -> Option<(WorkUnit, WorkUnit)> {
        let _ = (unit, most);
        None
    }

    /// Whether a plan may be asked to leave out the rows for which a condition does not hold ([`ReadRequest::filters`]). Asked
    /// once the schema is known; whoever asks decides the condition again.
    fn can_filter(&self, filter: &Filter) -> bool {
        let _ = filter;
        false
    }

    /// Whether a plan may be asked for an aggregation of the rows for which all of the conditions hold, in place of the rows
    /// ([`ReadRequest::aggregation`]). Its values have to be the ones that reading the rows and adding them up gives, and where
    /// that would be an error, so must this be. Asked once the schema is known.
    fn can_aggregate(&self, aggregation: &Aggregation, filters: &[Filter]) -> bool {
        let _ = (aggregation, filters);
        false
    }

    /// The columns of the primary key, as far as they tell the rows of this source apart: empty for queries and views, where
    /// there is no key, and where a column of it is left out.
    ///
    /// # Errors
    /// As [`Source::schema`].
    async fn key(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What is known about the whole without reading it. Cheap; may be asked often.
    async fn stats(&self) -> SourceStats {
        SourceStats::default()
    }

    /// Files that the engine's own file scan may read instead of [`Source::read`] (pruning, statistics, byte ranges).
    /// `None`: read through units only.
    async fn native(&self) -> Result<Option<NativeScan>> {
        Ok(None)
    }

    /// Whether what [`Source::native`] offered is still what it was when it was looked at: the engine's scan reads it
    /// piece by piece and would not notice. Asked once all has been read, before anything read is declared good.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](gristmill_model::ErrorKind::Conflict), naming what has changed.
    async fn unchanged(&self) -> Result<()> {
        Ok(())
    }

    /// Reads again, slowly, what the engine's own scan failed on, to say where and what is wrong. `None`: nothing found.
    async fn diagnose(&self) -> Option<gristmill_model::Error> {
        None
    }
}

/// Which part of its rows an incremental extract wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Increment {
    /// The column that only grows.
    pub column: String,
    /// The greatest value that was loaded, as the source gave it ([`Narrowed::next`]); none the first time.
    pub since: Option<serde_json::Value>,
    /// Read again so much before it.
    pub lag: Option<Lag>,
    /// Whether rows without a value are read, too.
    pub nulls: bool,
    /// The files that were loaded, as the source gave them ([`Next::Files`]).
    pub files: BTreeMap<String, String>,
    /// A load adds the rows to what it has, so that what cannot be told from what was loaded must not be read again.
    pub adds: bool,
    /// The columns that were loaded, and their types as [`type_name`](crate::types::type_name) writes them: what is new
    /// may be nothing, or too little to tell them.
    pub columns: Vec<(String, String)>,
}

impl Increment {
    /// The columns that were loaded, as far as their types can be read.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        let field = |(name, kind): &(String, String)| {
            let kind = crate::types::parse_type(kind).ok().or_else(|| kind.parse::<DataType>().ok())?;
            Some(Field::new(name, kind, true))
        };
        let fields: Vec<Field> = self.columns.iter().filter_map(field).collect();
        (!fields.is_empty()).then(|| Arc::new(Schema::new(fields)))
    }
}

/// What is new, and how far it goes.
#[derive(Debug, Clone)]
pub struct Narrowed {
    /// What to read.
    pub rows: NewRows,
    /// Where the next one begins.
    pub next: Next,
}

/// What is to be read of an incremental extract.
#[derive(Debug, Clone)]
pub enum NewRows {
    /// This extract of the same connection: for a database, the rows from the cursor, less the lag, up to the greatest value.
    Extract(Box<ExtractSpec>),
    /// This source.
    Source(Arc<dyn Source>),
}

/// Where the next increment begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// At the greatest value there is now; none when nothing has one.
    Known(Option<serde_json::Value>),
    /// At the greatest value among the rows that will be read, which whoever reads them finds out. Rows may come that were
    /// not asked for: those before the cursor (less the lag), or before `initial` where there is no cursor, and those from
    /// `end` on, are to be left out.
    Greatest {
        /// Where the first one begins.
        initial: Option<String>,
        /// Where all of them end.
        end: Option<String>,
    },
    /// Behind these files: all that have been loaded once these rows are.
    Files {
        /// Their names, and what tells whether one has changed.
        loaded: BTreeMap<String, String>,
        /// What will be read, for people.
        about: String,
    },
}

impl Narrowed {
    /// What a condition lets through, up to the greatest value there is.
    #[must_use]
    pub fn by_condition(extract: ExtractSpec, next: Option<serde_json::Value>) -> Self {
        Self { rows: NewRows::Extract(Box::new(extract)), next: Next::Known(next) }
    }
}

/// The columns of a table's primary key, if the rows have all of them: a part of a key tells nothing apart.
pub(crate) fn whole_key(key: Vec<String>, schema: &SchemaRef) -> Vec<String> {
    if key.iter().all(|column| schema.column_with_name(column).is_some()) { key } else { Vec::new() }
}

/// What a reader wants to have planned.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// Only these columns; all when `None`.
    pub columns: Option<Vec<String>>,
    /// Only rows for which all of these hold need to come. A source leaves out what it can ([`Source::can_filter`]), never
    /// more.
    pub filters: Vec<Filter>,
    /// Each unit gives this of its rows instead of them, as batches of [`Aggregation::schema`], and the filters are decided by
    /// the source alone. Only what [`Source::can_aggregate`] was asked about.
    pub aggregation: Option<Aggregation>,
    /// So many rows are enough, whichever they are. A source may give more.
    pub limit: Option<u64>,
    /// How many units are read at once, at most.
    pub parallelism: usize,
}

/// What every reader of a unit needs to know.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The schema of the batches to make: the source's schema, or a projection of it, in this order.
    pub schema: SchemaRef,
    /// Rows in a batch, at most.
    pub batch_size: usize,
    /// What happens to a row that cannot be read.
    pub on_bad_row: OnFail,
    /// Where refused rows go ([`OnFail::Drop`], [`OnFail::DeadLetter`] and [`OnFail::Warn`] call it; `Warn` also leaves
    /// an unreadable row out, since there is nothing to pass on), and fields that no column holds.
    pub rejects: Option<RejectSink>,
}

impl Scan {
    /// Says what happens to fields of records that no column holds, those of `known` aside. They are read past and told of,
    /// or refused where columns must not change, or their records are left out; where columns were left out on purpose (not
    /// `whole`), nobody looks.
    #[must_use]
    pub(crate) fn heeding_fields(mut self, whole: bool, contract: SchemaContract, known: Vec<String>) -> Self {
        let rejects = self.rejects.take();
        self.rejects = match contract {
            _ if !whole => rejects.map(RejectSink::without_fields),
            SchemaContract::DiscardRow => {
                Some(rejects.unwrap_or_else(RejectSink::none).leaving_out().without_fields_named(known))
            }
            SchemaContract::Freeze => {
                let refuse = move |field: &str| {
                    let top = field.split('.').next().unwrap_or(field);
                    let message = format!("a record has the field `{field}`, which none of those looked at before had");
                    Err(Error::new(ErrorKind::Schema, message)
                        .cause("`schema_contract: freeze` allows no change")
                        .hint(format!("declare it: `schema: {{{top}: text}}`, or say `schema_contract: evolve`")))
                };
                Some(rejects.unwrap_or_else(RejectSink::none).noting_fields(refuse).without_fields_named(known))
            }
            SchemaContract::Evolve | SchemaContract::DiscardValue => {
                rejects.map(|rejects| rejects.without_fields_named(known))
            }
        };
        self
    }

    /// A row of a database cannot be read: an error, or a reject. `label` says where it stood.
    pub(crate) fn refuse(&self, label: &str, record: String, why: String) -> Result<()> {
        if self.on_bad_row == OnFail::Fail {
            let message = format!("a row of `{label}` cannot be read: {why}");
            return Err(Error::new(ErrorKind::Data, message).hint(
                "read the column as text (`schema: {column: text}`), leave such rows out with `where`, or set `on_bad_row`",
            ));
        }
        if let Some(rejects) = &self.rejects {
            rejects.send(Reject { record, error: why, place: label.to_owned() });
        }
        Ok(())
    }
}

/// Where refused rows go, and fields that no column holds. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct RejectSink {
    rows: Arc<Receive>,
    fields: Option<Arc<NoteField>>,
    whence: Whence,
    /// Counts the records that are left out for their fields.
    left_out: Arc<dyn Fn() + Send + Sync>,
    /// Whether a record with a field that no column holds is left out.
    leaves_out: bool,
}

/// What is known of all rows that one reader refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whence {
    /// The unit they were read in.
    pub unit: Option<Arc<str>>,
    /// How their records can be read again. `None`: a record is only told for people.
    pub again: Option<Arc<Again>>,
    /// For records of an API's pages: the columns that stand beside them, as an object of JSON.
    pub beside: Option<Arc<str>>,
}

/// How records that were refused can be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// Written into a file of this name, behind this line.
    File {
        /// The file they stood in, below the connection.
        file: String,
        /// What must stand before them: the line with the names of the columns, or nothing.
        header: String,
    },
    /// The record is a row of a database; how its values came is told by [`Came::parse`](crate::kept::Came::parse).
    Row(String),
}

/// Takes a refused row.
type Receive = dyn Fn(Reject, &Whence) + Send + Sync;

/// Whether the field matters: those that are known elsewhere do not.
type NoteField = dyn Fn(&str) -> Result<bool> + Send + Sync;

impl RejectSink {
    /// Sends every refused row to `receive`.
    pub fn new(receive: impl Fn(Reject) + Send + Sync + 'static) -> Self {
        Self::telling(move |reject, _| receive(reject))
    }

    /// As [`RejectSink::new`], and says where each row comes from.
    pub fn telling(receive: impl Fn(Reject, &Whence) + Send + Sync + 'static) -> Self {
        Self {
            rows: Arc::new(receive),
            fields: None,
            left_out: Arc::new(|| {}),
            leaves_out: false,
            whence: Whence::default(),
        }
    }

    /// Nobody wants refused rows.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Sends the name of every field that no column holds to `note`, once for each record that has it.
    #[must_use]
    pub fn noting_fields(self, note: impl Fn(&str) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { fields: Some(Arc::new(move |field| note(field).map(|()| true))), ..self }
    }

    /// Calls `count` for every record that is left out because it has a field that no column holds.
    #[must_use]
    pub fn counting_left_out(self, count: impl Fn() + Send + Sync + 'static) -> Self {
        Self { left_out: Arc::new(count), ..self }
    }

    /// Records with such a field are left out.
    fn leaving_out(self) -> Self {
        let fields = self.fields.clone().unwrap_or_else(|| Arc::new(|_| Ok(true)));
        Self { fields: Some(fields), leaves_out: true, ..self }
    }

    /// Nobody wants to know of fields: columns were left out on purpose.
    #[must_use]
    pub(crate) fn without_fields(self) -> Self {
        Self { fields: None, ..self }
    }

    /// Those of these names are known elsewhere.
    #[must_use]
    pub(crate) fn without_fields_named(self, names: Vec<String>) -> Self {
        let Some(fields) = self.fields.clone().filter(|_| !names.is_empty()) else { return self };
        let others = move |field: &str| if names.iter().any(|name| name == field) { Ok(false) } else { fields(field) };
        Self { fields: Some(Arc::new(others)), ..self }
    }

    /// Whether fields are to be looked for.
    pub(crate) fn wants_fields(&self) -> bool {
        self.fields.is_some()
    }

    /// For the rows of one unit.
    #[must_use]
    pub fn of_unit(mut self, label: &str) -> Self {
        self.whence.unit = Some(label.into());
        self
    }

    /// For records of this file that can be read again by themselves, behind this line.
    #[must_use]
    pub(crate) fn of_file(mut self, file: &str, header: String) -> Self {
        self.whence.again = Some(Arc::new(Again::File { file: file.to_owned(), header }));
        self
    }

    /// For rows of a database, which came like that; none where it cannot be told.
    #[must_use]
    pub(crate) fn of_rows(mut self, came: Option<&Came>) -> Self {
        self.whence.again = came.map(|came| Arc::new(Again::Row(came.text())));
        self
    }

    /// For records of an API's pages, beside which these columns stand: an object of JSON.
    #[must_use]
    pub fn beside(mut self, columns: &str) -> Self {
        self.whence.beside = Some(columns.into());
        self
    }

    /// Sends one refused row.
    pub fn send(&self, reject: Reject) {
        (self.rows)(reject, &self.whence);
    }

    /// Whether records with such fields are left out.
    pub(crate) fn leaves_out(&self) -> bool {
        self.leaves_out
    }

    /// A record has values in these fields, which no column holds. Gives whether it is to be left out, which is counted.
    ///
    /// # Errors
    /// That there must be none.
    pub(crate) fn note_fields<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<bool> {
        let Some(note) = &self.fields else { return Ok(false) };
        let mut matters = false;
        for name in names {
            matters |= note(name)?;
        }
        let is_left_out = matters && self.leaves_out;
        if is_left_out {
            (self.left_out)();
        }
        Ok(is_left_out)
    }
}

impl fmt::Debug for RejectSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RejectSink")
    }
}

/// A row that a reader refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The record as it stood, as far as it is text (at most 64 KiB).
    pub record: String,
    /// What is wrong with it.
    pub error: String,
    /// Where it stood: `orders.csv:17`.
    pub place: String,
}

/// Units, and what can be said about reading them.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    /// The units, disjoint and complete.
    pub units: Vec<WorkUnit>,
    /// How far the units agree on one picture of the source.
    pub consistency: Consistency,
    /// Why these units, for `plan` and the log.
    pub why: String,
    /// What the source itself does: ``columns``, ``filter: date = '2024-01-15'``.
    pub pushed_down: Vec<String>,
    /// What becomes of a unit that fails for a passing reason.
    pub retry: Retry,
    /// What keeps the picture of the source alive that the units are read from. Whoever reads the units holds it until
    /// the last of them has been read; a plan that is only looked at may drop it.
    pub pin: Option<Pin>,
}

/// What becomes of a unit that fails for a passing reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Its rows come in one order, so it is read on from where it was.
    GoesOn,
    /// It is read again while nothing of it was handed on.
    BeforeRows,
    /// What failed is one request of it, which is made again.
    Requests,
    /// It is not tried again by itself.
    Never,
}

impl Retry {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GoesOn => "a unit goes on where it was",
            Self::BeforeRows => {
                "a unit is read again while none of its rows have gone on; after that, the load begins anew"
            }
            Self::Requests => "a request is made again; after that, the load begins anew",
            Self::Never => "the load begins anew",
        }
    }
}

/// Keeps a picture of a source alive (an exported snapshot) until the last clone of it is dropped.
#[derive(Clone)]
pub struct Pin(#[expect(dead_code, reason = "held only to be dropped")] Arc<dyn std::any::Any + Send + Sync>);

impl Pin {
    /// Holds `what` alive.
    #[must_use]
    pub fn new(what: Arc<dyn std::any::Any + Send + Sync>) -> Self {
        Self(what)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

/// How far units agree on one picture of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// One snapshot or immutable files: all units see the same.
    Snapshot,
    /// One statement: a single unit that is consistent in itself.
    SingleRead,
    /// Each unit sees the source as it is when it is read.
    PerUnit,
}

impl Consistency {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "one snapshot for all units",
            Self::SingleRead => "one read",
            Self::PerUnit => "each unit by itself",
        }
    }
}

/// What is known about a source without reading it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceStats {
    /// Rows, about.
    pub rows: Option<u64>,
    /// Bytes, about.
    pub bytes: Option<u64>,
}

/// Files that the engine's own scan can read.
#[derive(Debug, Clone)]
pub struct NativeScan {
    /// The format: Parquet, CSV, NDJSON, Avro or Arrow.
    pub format: FileFormat,
    /// The store they are in.
    pub store: Arc<dyn ObjectStore>,
    /// The store's URL (`file:///`, `s3://bucket`), under which the engine registers it.
    pub store_url: url::Url,
    /// The files.
    pub files: Vec<NativeFile>,
    /// The columns that stand in the paths (hive), with their types; they come last in the schema.
    pub partition_columns: Vec<arrow::datatypes::Field>,
    /// The schema of the rows, hive columns included, as [`Source::schema`] gives it.
    pub schema: SchemaRef,
    /// How text files are compressed (all of them alike).
    pub compression: gristmill_model::spec::Compression,
    /// The dialect, for CSV. Decimals are to be read with one digit more than `schema` says and then rounded half up:
    /// arrow's reader cuts surplus digits off, and the digit after the last one is all that rounding needs.
    pub csv: Option<CsvOptions>,
    /// Whether a CSV or NDJSON file may be cut at any newline: no file has one in quotes, which is known of every byte, not
    /// of a sample.
    pub splittable: bool,
}

/// One file of a [`NativeScan`].
#[derive(Debug, Clone)]
pub struct NativeFile {
    /// Path, size, time and etag.
    pub meta: object_store::ObjectMeta,
    /// The values of the hive columns, in the order of [`NativeScan::partition_columns`]; `None` is NULL.
    pub partition_values: Vec<Option<String>>,
}
