//! Looking into dead letters: what there is, and each of them. Reads files and blocks meanwhile.

use super::letter::{NOTES, Notes};
use super::place::{all, root};
use chrono::{DateTime, Utc};
use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use gristmill_model::{Error, ErrorKind, Interval, Origin, PipelineName, RefusedBy, Result, RunId, StepName};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Letters that are read at once, at most.
pub(super) const TOGETHER: usize = 1024;

/// So many different reasons of a set are told apart.
const REASONS: usize = 1000;

/// The letters of one step of one run, refused by one thing: what is listed, and what is replayed, together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetterSet {
    /// Run, step, and who refused the rows.
    #[serde(flatten)]
    pub origin: Origin,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The profile the run was under.
    pub profile: Option<String>,
    /// The interval it was for.
    pub interval: Interval,
    /// The attempt of the job that the rows were refused in.
    pub attempt: u32,
    /// The key of the first load of that job, as its target's ledger has it; none where it had no load.
    pub load: Option<String>,
    /// The loads of that job.
    pub loads: Vec<LetterLoad>,
    /// How many there are.
    pub rows: u64,
    /// Why they were refused, and how often; the most frequent first.
    pub reasons: Vec<(String, u64)>,
    /// When the last of them was written down.
    pub at: DateTime<Utc>,
    /// The file they are in, below the folder of all letters.
    pub file: String,
}

/// A load that refused rows were read for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterLoad {
    /// The step.
    pub step: StepName,
    /// The primary key of the source, where the load goes by it.
    pub key: Vec<String>,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Letter {
    /// The run that refused it.
    pub run: RunId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// The profile it was under.
    pub profile: Option<String>,
    /// The interval it was for.
    pub interval: Interval,
    /// The step whose row it is.
    pub step: StepName,
    /// Who refused it.
    pub by: RefusedBy,
    /// The share of the work it came from.
    pub unit: Option<String>,
    /// The attempt it was refused in.
    pub attempt: u32,
    /// The key of the load it was meant for.
    pub load: Option<String>,
    /// What is wrong with it: the check it broke, or what reader or target said.
    pub error: String,
    /// The record: the row as JSON, or the text that could not be read.
    pub record: String,
    /// Where it stood, for one that could not be read.
    pub place: String,
    /// When it was written down.
    pub at: DateTime<Utc>,
}

/// All sets of letters of a project's state, the oldest run first, and what is wrong with files that cannot be read.
///
/// # Errors
/// A folder that cannot be read.
pub fn letter_sets(state: &Path) -> Result<(Vec<LetterSet>, Vec<Error>)> {
    let (mut sets, mut mistakes) = (Vec::new(), Vec::new());
    for file in all(state)? {
        match sets_of(state, &file) {
            Ok(found) => sets.extend(found),
            // A run that has just been committed has taken their place.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => mistakes.push(error),
        }
    }
    sets.sort_by(|one, other| one.origin.cmp(&other.origin));
    Ok((sets, mistakes))
}

/// What the letters of one step, refused by one side, come to.
struct Sum {
    rows: u64,
    /// How often each reason was given, of those that came first.
    reasons: BTreeMap<String, u64>,
    /// When the last of them was written.
    at: DateTime<Utc>,
}

fn sets_of(state: &Path, file: &str) -> Result<Vec<LetterSet>> {
    let opened = Opened::new(state, file)?;
    let notes = opened.notes.clone();
    let mut sums: BTreeMap<(StepName, RefusedBy), Sum> = BTreeMap::new();
    for batch in opened.batches(&["step", "refused_by", "reason", "at"])? {
        let batch = batch?;
        let (steps, by, reasons) = (text(&batch, "step")?, text(&batch, "refused_by")?, text(&batch, "reason")?);
        for row in 0..batch.num_rows() {
            let at = time(&batch, row)?;
            let sum = sums.entry((steps.value(row).into(), refused_by(by.value(row))?)).or_insert_with(|| Sum {
                rows: 0,
                reasons: BTreeMap::new(),
                at,
            });
            (sum.rows, sum.at) = (sum.rows + 1, sum.at.max(at));
            if let Some(times) = sum.reasons.get_mut(reasons.value(row)) {
                *times += 1;
            } else if sum.reasons.len() < REASONS {
                sum.reasons.insert(reasons.value(row).to_owned(), 1);
            }
        }
    }
    let loads = notes.loads.iter().map(|(step, key)| LetterLoad { step: step.clone(), key: key.clone() });
    let loads: Vec<LetterLoad> = loads.collect();
    let set_of = |((step, by), sum): ((StepName, RefusedBy), Sum)| {
        let mut reasons: Vec<(String, u64)> = sum.reasons.into_iter().collect();
        reasons.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        LetterSet {
            origin: Origin { run: notes.run.clone(), step, by },
            pipeline: notes.pipeline.clone(),
            profile: notes.profile.clone(),
            interval: notes.interval,
            attempt: notes.attempt,
            load: notes.load.clone(),
            loads: loads.clone(),
            rows: sum.rows,
            reasons,
            at: sum.at,
            file: file.to_owned(),
        }
    };
    Ok(sums.into_iter().map(set_of).collect())
}

/// The first `most` letters of a set.
///
/// # Errors
/// A file that cannot be read.
pub fn letters(state: &Path, set: &LetterSet, most: usize) -> Result<Vec<Letter>> {
    let opened = Opened::new(state, &set.file)?;
    let columns = ["step", "refused_by", "unit", "reason", "record", "place", "at"];
    let mut found = Vec::new();
    for batch in opened.batches(&columns)? {
        let batch = batch?;
        let (units, reasons) = (text(&batch, "unit")?, text(&batch, "reason")?);
        let (records, places) = (text(&batch, "record")?, text(&batch, "place")?);
        for row in of(&batch, &set.origin.step, set.origin.by)? {
            if found.len() >= most {
                return Ok(found);
            }
            found.push(Letter {
                run: set.origin.run.clone(),
                pipeline: set.pipeline.clone(),
                profile: set.profile.clone(),
                interval: set.interval,
                step: set.origin.step.clone(),
                by: set.origin.by,
                unit: (!units.is_null(row)).then(|| units.value(row).to_owned()),
                attempt: set.attempt,
                load: set.load.clone(),
                error: reasons.value(row).to_owned(),
                record: records.value(row).to_owned(),
                place: places.value(row).to_owned(),
                at: time(&batch, row)?,
            });
        }
    }
    Ok(found)
}

/// A file of letters, open.
pub(super) struct Opened {
    shown: String,
    builder: ParquetRecordBatchReaderBuilder<File>,
    pub(super) notes: Notes,
}

impl Opened {
    /// Opens a file by its path below the folder of all letters.
    pub(super) fn new(state: &Path, file: &str) -> Result<Self> {
        let path = root(state).join(file);
        let shown = path.display().to_string();
        let opened = File::open(&path).map_err(|error| Error::io(&error, format!("the dead letters `{shown}`")))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|error| damaged(&shown, &error))?;
        let metadata = builder.metadata().file_metadata().key_value_metadata();
        let notes =
            metadata.into_iter().flatten().find(|entry| entry.key == NOTES).and_then(|entry| entry.value.as_ref());
        let notes = notes.and_then(|notes| serde_json::from_str(notes).ok()).ok_or_else(|| {
            Error::new(
                ErrorKind::Data,
                format!("the dead letters `{shown}` were written by another version of gristmill"),
            )
            .hint(format!("look into them with `gristmill sql \"SELECT * FROM '{shown}'\"`, then remove the file"))
        })?;
        Ok(Self { shown, builder, notes })
    }

    /// Its rows, these columns of them.
    pub(super) fn batches(self, columns: &[&str]) -> Result<Batches> {
        let mask = ProjectionMask::columns(self.builder.parquet_schema(), columns.iter().copied());
        let reader = self.builder.with_projection(mask).with_batch_size(TOGETHER).build();
        let reader = reader.map_err(|error| damaged(&self.shown, &error))?;
        Ok(Batches { shown: self.shown, reader })
    }
}

/// The rows of a file, in batches.
pub(super) struct Batches {
    shown: String,
    reader: ParquetRecordBatchReader,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.reader.next()?.map_err(|error| damaged(&self.shown, &error)))
    }
}

fn damaged(shown: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Data, format!("the dead letters `{shown}` cannot be read")).cause(error)
}

/// The rows of a batch that are of one set.
pub(super) fn of(batch: &RecordBatch, step: &StepName, by: RefusedBy) -> Result<Vec<usize>> {
    let (steps, refused_by) = (text(batch, "step")?, text(batch, "refused_by")?);
    let is_of = |row: &usize| steps.value(*row) == step.as_str() && refused_by.value(*row) == by.as_str();
    Ok((0..batch.num_rows()).filter(is_of).collect())
}

pub(super) fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| Error::new(ErrorKind::Data, format!("dead letters have no column `{name}` of text")))
}

/// A column that letters of earlier versions do not have.
pub(super) fn maybe<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>())
}

fn time(batch: &RecordBatch, row: usize) -> Result<DateTime<Utc>> {
    let column = batch.column_by_name("at").and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let micros = column.map(|column| column.value(row)).and_then(DateTime::from_timestamp_micros);
    micros.ok_or_else(|| Error::new(ErrorKind::Data, "dead letters have no column `at` of times"))
}

fn refused_by(word: &str) -> Result<RefusedBy> {
    RefusedBy::from_word(word)
        .ok_or_else(|| Error::new(ErrorKind::Data, format!("a dead letter was refused by `{word}`, which is nobody")))
}
