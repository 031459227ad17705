//! Letters as a source: what a replay reads in place of the step's own rows.

use super::letter::columns_of;
use super::read::{Batches, Opened, TOGETHER, of, text};
use super::spooled::Spooled;
use crate::runner::decode_schema;
use crate::session::Engine;
use crate::stage::plain_type;
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::json::ReaderBuilder;
use datafusion::arrow::json::reader::Decoder;
use gristmill_connect::{
    Connection, ConnectionInfo, Consistency, Discovered, LoadContext, OpenContext, ReadPlan, ReadRequest, Retry, Rows,
    Scan, Sink, Source,
};
use gristmill_model::spec::{ExtractSpec, LoadSpec};
use gristmill_model::{Error, ErrorKind, Letters, RefusedBy, Result, WorkUnit};
use std::path::PathBuf;
use std::sync::Arc;

/// The connection that a replay's letters are read from.
pub(crate) fn connection(engine: &Engine, letters: Letters) -> Arc<dyn Connection> {
    Arc::new(LettersConnection {
        letters,
        open: OpenContext { state: engine.letters_home(), ..engine.open_context() },
        spool: engine.spill_dir(),
    })
}

#[derive(Debug)]
struct LettersConnection {
    letters: Letters,
    open: OpenContext,
    spool: PathBuf,
}

#[async_trait]
impl Connection for LettersConnection {
    fn kind(&self) -> &'static str {
        "dead letters"
    }

    fn describe(&self) -> String {
        format!("dead letters `{}`", self.letters.file)
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        Ok(ConnectionInfo { server: "dead letters".to_owned(), details: Vec::new() })
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        Ok(Vec::new())
    }

    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>> {
        let (letters, state) = (self.letters.clone(), self.open.state.clone());
        Ok(match letters.by {
            RefusedBy::Reader => {
                Arc::new(Spooled::new(letters, extract.clone(), self.open.clone(), self.spool.clone()))
            }
            RefusedBy::Check | RefusedBy::Target => Arc::new(WholeRows { letters, state }),
        })
    }

    fn sink(&self, _: &LoadSpec, _: LoadContext) -> Result<Arc<dyn Sink>> {
        Err(Error::internal("dead letters are no target"))
    }
}

/// Rows that a check or a target refused, as they were.
#[derive(Debug)]
struct WholeRows {
    letters: Letters,
    state: PathBuf,
}

/// Columns of letters, all of which may be NULL: a row may have been refused for that.
pub(super) fn columns(opened: &Opened, letters: &Letters) -> Result<SchemaRef> {
    let known = opened.notes.columns.get(&columns_of(letters.by, &letters.step));
    let known = known.ok_or_else(|| {
        Error::new(ErrorKind::Data, format!("the dead letters `{}` hold no rows of `{}`", letters.file, letters.step))
    })?;
    let schema = decode_schema(known)?;
    let field =
        |field: &Arc<Field>| field.as_ref().clone().with_data_type(plain_type(field.data_type())).with_nullable(true);
    Ok(Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())))
}

/// One unit: all of them.
pub(super) fn plan(letters: &Letters) -> ReadPlan {
    let Letters { by, step, file } = letters;
    let unit = WorkUnit { ordinal: 0, label: file.clone(), payload: serde_json::Value::Null, rows: None, bytes: None };
    ReadPlan {
        units: vec![unit],
        consistency: Consistency::Snapshot,
        why: format!("dead letters of `{step}`, refused by a {}", by.as_str()),
        pushed_down: vec!["columns".to_owned()],
        pin: None,
        retry: Retry::Never,
    }
}

/// Does something that reads files where it may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("the reader of dead letters ended: {error}")))?
}

#[async_trait]
impl Source for WholeRows {
    async fn schema(&self) -> Result<SchemaRef> {
        let (letters, state) = (self.letters.clone(), self.state.clone());
        blocking(move || columns(&Opened::new(&state, &letters.file)?, &letters)).await
    }

    async fn plan(&self, _: &ReadRequest) -> Result<ReadPlan> {
        Ok(plan(&self.letters))
    }

    fn read(&self, _: &WorkUnit, scan: &Scan) -> Rows {
        let (letters, state, schema) = (self.letters.clone(), self.state.clone(), scan.schema.clone());
        let rows = futures::stream::try_unfold(None, move |reading: Option<Reading>| {
            let (letters, state, schema) = (letters.clone(), state.clone(), schema.clone());
            blocking(move || {
                let mut reading = match reading {
                    Some(reading) => reading,
                    None => Reading::new(&state, letters, schema)?,
                };
                Ok(reading.next()?.map(|batch| (batch, Some(reading))))
            })
        });
        Rows::new(scan.schema.clone(), rows)
    }
}

struct Reading {
    letters: Letters,
    batches: Batches,
    decoder: Decoder,
}

impl Reading {
    fn new(state: &std::path::Path, letters: Letters, schema: SchemaRef) -> Result<Self> {
        let batches = Opened::new(state, &letters.file)?.batches(&["step", "refused_by", "record"])?;
        let decoder = ReaderBuilder::new(schema).with_batch_size(TOGETHER).build_decoder().map_err(|error| {
            Error::new(ErrorKind::Schema, format!("rows of `{}` cannot be made of their letters", letters.step))
                .cause(error)
                .hint("a column is of a type that JSON has no words for; run the pipeline again for that date")
        })?;
        Ok(Self { letters, batches, decoder })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Data, "the record of a dead letter is not a row of its step").cause(error)
        };
        for batch in self.batches.by_ref() {
            let batch = batch?;
            let records = text(&batch, "record")?;
            for row in of(&batch, &self.letters.step, self.letters.by)? {
                for piece in [records.value(row).as_bytes(), b"\n"] {
                    self.decoder.decode(piece).map_err(|error| cannot(&error))?;
                }
            }
            if let Some(rows) = self.decoder.flush().map_err(|error| cannot(&error))? {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }
}
