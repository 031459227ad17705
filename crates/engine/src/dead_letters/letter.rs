//! One letter, and the table it is a row of.

use super::Job;
use chrono::{DateTime, Utc};
use datafusion::arrow::array::{Array, ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::json::WriterBuilder;
use datafusion::arrow::json::writer::LineDelimited;
use gristmill_connect::Again;
use gristmill_model::{Error, Interval, PipelineName, RefusedBy, Result, RunId, StepName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key in a file's own metadata under which its [`Notes`] are.
pub(super) const NOTES: &str = "gristmill.letters";

/// One dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) step: StepName,
    pub(super) by: RefusedBy,
    /// The share of the work it came from: a unit of the source, a lane of the step, a writer of the target.
    pub(super) unit: Option<Arc<str>>,
    pub(super) reason: String,
    pub(super) record: String,
    pub(super) place: String,
    /// How the record can be read again, where it can.
    pub(super) again: Option<Arc<Again>>,
    /// The columns that stand beside the record of an API's page, as an object of JSON.
    pub(super) beside: Option<Arc<str>>,
}

impl Letter {
    pub(super) fn size(&self) -> usize {
        self.reason.len() + self.record.len() + self.place.len()
    }

    /// The file it stood in, and the line before it.
    fn file(&self) -> Option<(&str, &str)> {
        match self.again.as_deref()? {
            Again::File { file, header } => Some((file, header)),
            Again::Row(_) => None,
        }
    }

    /// What else there is to know to read it again: of a row of a database, how its values came; of a record of a page, what
    /// stands beside it.
    fn how(&self) -> Option<&str> {
        match self.again.as_deref()? {
            Again::File { .. } => self.beside.as_deref(),
            Again::Row(came) => Some(came),
        }
    }
}

/// What a file says about all of its letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notes {
    pub(super) run: RunId,
    pub(super) pipeline: PipelineName,
    pub(super) profile: Option<String>,
    pub(super) interval: Interval,
    pub(super) attempt: u32,
    /// The key of the job's first load, as its target's ledger has it; none for a job without loads.
    pub(super) load: Option<String>,
    /// The loads of the job, and the source's primary key where they go by it.
    pub(super) loads: Vec<(StepName, Vec<String>)>,
    /// The columns of the refused rows, by who refused them and step; in the runner's own encoding.
    pub(super) columns: BTreeMap<String, serde_json::Value>,
}

/// The name of a step's columns in [`Notes::columns`].
pub(super) fn columns_of(by: RefusedBy, step: &StepName) -> String {
    format!("{}.{step}", by.as_str())
}

/// The columns of a file of letters.
pub(super) fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let maybe = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("run"),
        text("pipeline"),
        maybe("profile"),
        text("interval"),
        text("step"),
        text("refused_by"),
        maybe("unit"),
        Field::new("attempt", DataType::Int32, false),
        text("load"),
        text("reason"),
        text("record"),
        text("place"),
        maybe("file"),
        maybe("header"),
        maybe("how"),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
}

pub(super) fn encode(job: &Job, load: &str, letters: &[Letter], at: DateTime<Utc>) -> Result<RecordBatch> {
    let count = letters.len();
    let attempt = i32::try_from(job.attempt).unwrap_or(i32::MAX);
    let same = |value: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, count))) };
    let text =
        |value: fn(&Letter) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(letters.iter().map(value))) };
    let maybe = |value: fn(&Letter) -> Option<&str>| -> ArrayRef {
        Arc::new(letters.iter().map(value).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        same(job.run.as_str()),
        same(&job.pipeline),
        Arc::new(std::iter::repeat_n(job.profile.as_deref(), count).collect::<StringArray>()),
        same(&job.interval.to_string()),
        text(|letter| letter.step.as_str()),
        text(|letter| letter.by.as_str()),
        maybe(|letter| letter.unit.as_deref()),
        Arc::new(Int32Array::from_iter_values(std::iter::repeat_n(attempt, count))),
        same(load),
        text(|letter| &letter.reason),
        text(|letter| &letter.record),
        text(|letter| &letter.place),
        maybe(|letter| letter.file().map(|(file, _)| file)),
        maybe(|letter| letter.file().map(|(_, header)| header)),
        maybe(Letter::how),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(std::iter::repeat_n(at.timestamp_micros(), count))
                .with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| Error::internal(error.to_string()))
}

/// Rows as lines of JSON, one each.
pub(super) fn as_json(rows: &RecordBatch) -> Result<Vec<String>> {
    let cannot =
        |error: &dyn std::fmt::Display| Error::internal(format!("a dead letter cannot be written as JSON: {error}"));
    let rows = with_all_numbers(rows).map_err(|error| cannot(&error))?;
    let mut bytes = Vec::new();
    // A column without a value is there all the same: whoever replays the record must see what it was.
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(&rows).and_then(|()| writer.finish()).map_err(|error| cannot(&error))?;
    drop(writer);
    let text = String::from_utf8(bytes).map_err(|_| Error::internal("a dead letter is not UTF-8"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// JSON has no word for what is not a number and for what is infinite, and would say null: such columns are text.
fn with_all_numbers(rows: &RecordBatch) -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Float32Type, Float64Type};
    let has_others = |column: &ArrayRef| match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(|value| !value.is_finite()),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(|value| !value.is_finite()),
        _ => false,
    };
    if !rows.columns().iter().any(has_others) {
        return Ok(rows.clone());
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if has_others(column) {
            fields.push(Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)));
            columns.push(cast(column, &DataType::Utf8)?);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Float64Array;

    #[test]
    fn a_record_names_the_columns_that_are_null() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int32, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int32Array::from(vec![None]))]).unwrap();
        assert_eq!(as_json(&rows).unwrap(), [r#"{"a":null}"#]);
    }

    #[test]
    fn what_is_no_number_is_not_null() {
        let schema = Schema::new(vec![Field::new("a", DataType::Float64, true)]);
        let values = Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(f64::NEG_INFINITY), None]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)]).unwrap();
        assert_eq!(as_json(&rows).unwrap(), [r#"{"a":"1.5"}"#, r#"{"a":"NaN"}"#, r#"{"a":"-inf"}"#, r#"{"a":null}"#]);
    }
}
