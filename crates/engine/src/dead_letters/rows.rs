//! Rows of databases that a reader refused: each value as the database had it, read as what the extract says of its column
//! now. The database is not asked.

use super::read::{Batches, Opened, maybe, of, text};
use super::source::{blocking, columns, plan};
use async_trait::async_trait;
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gristmill_connect::kept::{Came, KeptRows};
use gristmill_connect::types::{parse_type, type_name};
use gristmill_connect::{ReadPlan, ReadRequest, Rows, Scan, Source};
use gristmill_model::spec::ExtractSpec;
use gristmill_model::{Error, ErrorKind, Letters, Result, WorkUnit, one_of};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Letters of a reader of a database.
#[derive(Debug)]
pub(super) struct KeptLetters {
    letters: Letters,
    state: PathBuf,
    schema: SchemaRef,
}

impl KeptLetters {
    /// None where they are of files. Reads all of them, to see how their values came.
    ///
    /// # Errors
    /// Letters that cannot be read; types that what was kept cannot be read as.
    pub(super) fn open(letters: &Letters, extract: &ExtractSpec, state: &Path) -> Result<Option<Self>> {
        let opened = Opened::new(state, &letters.file)?;
        let known = columns(&opened, letters)?;
        let mut all: BTreeMap<String, Came> = BTreeMap::new();
        for batch in opened.batches(&["step", "refused_by", "file", "how"])? {
            let batch = batch?;
            let files = text(&batch, "file")?;
            let Some(how) = maybe(&batch, "how") else { return Ok(None) };
            for row in of(&batch, &letters.step, letters.by)? {
                if !files.is_null(row) || how.is_null(row) {
                    return Ok(None);
                }
                if !all.contains_key(how.value(row)) {
                    all.insert(how.value(row).to_owned(), Came::parse(how.value(row))?);
                }
            }
        }
        let schema = Arc::new(schema(&known, &all.into_values().collect::<Vec<_>>(), extract)?);
        Ok(Some(Self { letters: letters.clone(), state: state.to_owned(), schema }))
    }
}

/// The columns of the rows: those that were known when they were refused, with the types of now.
fn schema(known: &Schema, all: &[Came], extract: &ExtractSpec) -> Result<Schema> {
    let is_name = |said: &str, column: &str| all.iter().any(|came| came.is_name(said, column));
    let find = |said: &String| {
        known.fields().iter().find(|field| is_name(said, field.name())).ok_or_else(|| {
            let names = known.fields().iter().map(|field| field.name().as_str());
            Error::new(ErrorKind::Schema, format!("the dead letters have no column `{said}`")).hint(one_of(said, names))
        })
    };
    let mut kept: BTreeMap<String, DataType> = BTreeMap::new();
    for field in all.iter().map(|came| came.fields(extract)).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        let kind = field.data_type();
        if kept.insert(field.name().clone(), kind.clone()).is_some_and(|other| other != *kind) {
            let message = format!("some of the dead letters have another type in the column `{}`", field.name());
            let hint = format!("declare it: `schema: {{{}: {}}}`", field.name(), type_name(kind));
            return Err(Error::new(ErrorKind::Schema, message).hint(hint));
        }
    }
    for said in extract.schema.keys() {
        find(said)?;
    }
    let typed = |field: &Arc<Field>| {
        let declared = extract.schema.iter().find(|(said, _)| is_name(said, field.name()));
        let kind = match (kept.get(field.name()), declared) {
            (Some(kind), _) => kind.clone(),
            // Nobody asked for it when the rows were read; whoever does now is told.
            (None, Some((_, word))) => parse_type(word)?,
            (None, None) => field.data_type().clone(),
        };
        Ok(Field::new(field.name(), kind, true))
    };
    let fields: Result<Vec<Field>> = match extract.columns.as_slice() {
        [] => known.fields().iter().map(typed).collect(),
        columns => columns.iter().map(|said| find(said).and_then(typed)).collect(),
    };
    Ok(Schema::new(fields?))
}

#[async_trait]
impl Source for KeptLetters {
    async fn schema(&self) -> Result<SchemaRef> {
        Ok(self.schema.clone())
    }

    async fn plan(&self, _: &ReadRequest) -> Result<ReadPlan> {
        Ok(plan(&self.letters))
    }

    fn read(&self, _: &WorkUnit, scan: &Scan) -> Rows {
        let (letters, state, scan) = (self.letters.clone(), self.state.clone(), scan.clone());
        let schema = scan.schema.clone();
        let rows = futures::stream::try_unfold(None, move |reading: Option<Reading>| {
            let (letters, state, scan) = (letters.clone(), state.clone(), scan.clone());
            blocking(move || {
                let mut reading = match reading {
                    Some(reading) => reading,
                    None => Reading::new(&state, letters, scan)?,
                };
                Ok(reading.next()?.map(|batch| (batch, Some(reading))))
            })
        });
        Rows::new(schema, rows)
    }
}

struct Reading {
    letters: Letters,
    batches: Batches,
    scan: Scan,
    /// By how the values came: mostly all alike.
    readers: BTreeMap<String, KeptRows>,
    ready: Vec<RecordBatch>,
}

impl Reading {
    fn new(state: &Path, letters: Letters, scan: Scan) -> Result<Self> {
        let batches = Opened::new(state, &letters.file)?.batches(&["step", "refused_by", "record", "place", "how"])?;
        Ok(Self { letters, batches, scan, readers: BTreeMap::new(), ready: Vec::new() })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop() {
                return Ok(Some(batch));
            }
            let Some(batch) = self.batches.next().transpose()? else { return Ok(None) };
            self.take(&batch)?;
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let (records, places, how) = (text(batch, "record")?, text(batch, "place")?, text(batch, "how")?);
        for row in of(batch, &self.letters.step, self.letters.by)? {
            let (record, place, how) = (records.value(row), places.value(row), how.value(row));
            super::spooled::must_be_whole(record, place)?;
            if !self.readers.contains_key(how) {
                self.readers.insert(how.to_owned(), KeptRows::new(&Came::parse(how)?, &self.scan)?);
            }
            if let Some(reader) = self.readers.get_mut(how) {
                reader.push(record, place)?;
            }
        }
        for reader in self.readers.values_mut() {
            let rows = reader.finish()?;
            if rows.num_rows() > 0 {
                self.ready.push(rows);
            }
        }
        Ok(())
    }
}
