//! Prints rows: a table for people, CSV, a JSON array, or NDJSON.

use crate::args::RowFormat;
use crate::printer::Printer;
use arrow::array::RecordBatch;
use arrow::util::display::FormatOptions;
use futures::StreamExt;
use gristmill_connect::Rows;
use gristmill_model::{Error, ErrorKind, Result};
use std::io::Write;

/// A table for people needs all rows to know its widths, so there is an end to them.
const MOST_IN_TABLE: usize = 1_000;

/// Prints rows as they come, at most `limit` of them.
pub(crate) async fn print(mut rows: Rows, format: RowFormat, limit: Option<usize>, printer: &Printer) -> Result<()> {
    let schema = rows.schema();
    let mut left = limit.unwrap_or(usize::MAX);
    let mut kept: Vec<RecordBatch> = Vec::new();
    let mut in_table = 0usize;
    let mut more = false;
    let mut buffer = Buffer::new(format);
    if format == RowFormat::Csv && schema.fields().is_empty() {
        return Ok(());
    }
    while left > 0 {
        let Some(batch) = rows.next().await else { break };
        let mut batch = batch?;
        if batch.num_rows() > left {
            batch = batch.slice(0, left);
        }
        left -= batch.num_rows();
        if format == RowFormat::Table {
            let room = MOST_IN_TABLE.saturating_sub(in_table);
            if batch.num_rows() > room {
                more = true;
                kept.push(batch.slice(0, room));
                break;
            }
            in_table += batch.num_rows();
            kept.push(batch);
        } else {
            printer.raw(&buffer.write(&batch)?)?;
        }
    }
    if format == RowFormat::Table {
        let options = FormatOptions::new().with_null("NULL").with_display_error(true);
        let table = arrow::util::pretty::pretty_format_batches_with_schema(schema, &kept)
            .and_then(|_| arrow::util::pretty::pretty_format_batches_with_options(&kept, &options))
            .map_err(|error| unprintable(&error))?;
        if kept.iter().all(|batch| batch.num_rows() == 0) {
            printer.note("no rows");
        } else {
            printer.raw(format!("{table}\n").as_bytes())?;
        }
        if more {
            printer.note(format!("the first {MOST_IN_TABLE} rows; `--format csv` or `ndjson` prints all of them"));
        }
        return Ok(());
    }
    if buffer.is_empty() && format == RowFormat::Csv {
        let empty = RecordBatch::new_empty(schema);
        return printer.raw(&buffer.write(&empty)?);
    }
    printer.raw(buffer.finish())
}

fn unprintable(error: &arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Data, "cannot print the rows").cause(error)
}

/// Turns batches into text, one after the other.
#[derive(Debug)]
struct Buffer {
    format: RowFormat,
    begun: bool,
}

impl Buffer {
    fn new(format: RowFormat) -> Self {
        Self { format, begun: false }
    }

    fn is_empty(&self) -> bool {
        !self.begun
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let first = !self.begun;
        let mut text = Vec::new();
        match self.format {
            RowFormat::Csv => {
                self.begun = true;
                arrow::csv::WriterBuilder::new()
                    .with_header(first)
                    .build(&mut text)
                    .write(batch)
                    .map_err(|error| unprintable(&error))?;
            }
            RowFormat::Ndjson | RowFormat::Json | RowFormat::Table => {
                // A column that is NULL in a row is a column all the same.
                let mut lines = arrow::json::WriterBuilder::new()
                    .with_explicit_nulls(true)
                    .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
                lines.write(batch).and_then(|()| lines.finish()).map_err(|error| unprintable(&error))?;
                let lines = lines.into_inner();
                if self.format != RowFormat::Json {
                    return Ok(lines);
                }
                // One array over all batches: the lines, with commas between them.
                for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let before: &[u8] = if self.begun { b",\n" } else { b"[" };
                    self.begun = true;
                    text.write_all(before)
                        .and_then(|()| text.write_all(line))
                        .map_err(|error| Error::io(&error, "memory for the rows"))?;
                }
            }
        }
        Ok(text)
    }

    /// What ends the text.
    fn finish(&self) -> &'static [u8] {
        match (self.format, self.begun) {
            (RowFormat::Json, true) => b"]\n",
            (RowFormat::Json, false) => b"[]\n",
            _ => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let schema =
            Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]);
        let names = StringArray::from(vec![Some("a,b"), None]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(names)]).unwrap()
    }

    fn text(format: RowFormat) -> String {
        let mut buffer = Buffer::new(format);
        let mut text = buffer.write(&batch()).unwrap();
        text.extend(buffer.write(&batch()).unwrap());
        text.extend(buffer.finish());
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn csv_has_one_header_over_all_batches() {
        assert_eq!(text(RowFormat::Csv), "id,name\n1,\"a,b\"\n2,\n1,\"a,b\"\n2,\n");
    }

    #[test]
    fn json_is_one_array_over_all_batches() {
        let parsed: serde_json::Value = serde_json::from_str(&text(RowFormat::Json)).unwrap();
        assert_eq!(parsed.as_array().unwrap().len(), 4);
        assert_eq!(Buffer::new(RowFormat::Json).finish(), b"[]\n");
    }

    #[test]
    fn ndjson_has_one_object_a_line() {
        assert_eq!(text(RowFormat::Ndjson).lines().count(), 4);
    }
}
