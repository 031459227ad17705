//! CSV, being written: NULL and the text that means NULL stay apart.
//!
//! NULL is written as it is configured, without quotes; a text that reads the same is written in quotes, and our reader
//! takes what is quoted for a text (PostgreSQL's COPY: "a quoted string is never matched as NULL"). Other fields are
//! quoted where they must be. arrow's own writer cannot quote one field and leave another bare.

use super::config::Dialect;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_model::{Error, ErrorKind, Result};
use std::io::Write;

/// Text is handed on in pieces of about this size.
const PIECE: usize = 64 << 10;

/// Writes batches as CSV.
pub(super) struct CsvWriter<W> {
    out: W,
    dialect: Dialect,
    /// Whether a field with this byte must be quoted.
    special: [bool; 256],
    begun: bool,
    buffer: Vec<u8>,
    scratch: String,
}

impl<W: Write> CsvWriter<W> {
    pub(super) fn new(out: W, dialect: Dialect) -> Self {
        let mut special = [false; 256];
        for byte in [dialect.delimiter, dialect.quote, b'\r', b'\n'].into_iter().chain(dialect.escape) {
            special[usize::from(byte)] = true;
        }
        Self { out, dialect, special, begun: false, buffer: Vec::with_capacity(PIECE * 2), scratch: String::new() }
    }

    /// Writes rows, and before the first ones the names of the columns.
    ///
    /// # Errors
    /// A value that has no text; a NULL that could not be told from a text; an output that refuses.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let schema = batch.schema();
        let single = batch.num_columns() == 1;
        if !std::mem::replace(&mut self.begun, true) && self.dialect.header {
            for (place, field) in schema.fields().iter().enumerate() {
                self.delimit(place);
                self.field(field.name(), single && field.name().is_empty());
            }
            self.buffer.push(b'\n');
        }
        let options = FormatOptions::default();
        let unfit = |name: &str, cause: String| {
            Error::new(ErrorKind::Data, format!("a value of column `{name}` cannot be written as CSV")).cause(cause)
        };
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (array, field) in batch.columns().iter().zip(schema.fields()) {
            let formatter = ArrayFormatter::try_new(array.as_ref(), &options)
                .map_err(|error| unfit(field.name(), error.to_string()))?;
            columns.push((formatter, array.logical_nulls(), array.as_string_opt::<i32>(), is_text(array.data_type())));
        }
        for row in 0..batch.num_rows() {
            for (place, (formatter, nulls, texts, is_text)) in columns.iter().enumerate() {
                self.delimit(place);
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    self.null(single, *is_text, schema.field(place).name())?;
                    continue;
                }
                if let Some(texts) = texts {
                    let text = texts.value(row);
                    self.field(text, text == self.dialect.null || (single && text.is_empty()));
                    continue;
                }
                let mut text = std::mem::take(&mut self.scratch);
                text.clear();
                let written = formatter.value(row).write(&mut text);
                written.map_err(|error| unfit(schema.field(place).name(), error.to_string()))?;
                self.field(&text, *is_text && text == self.dialect.null);
                self.scratch = text;
            }
            self.buffer.push(b'\n');
            if self.buffer.len() >= PIECE {
                self.flush()?;
            }
        }
        self.flush()
    }

    /// What was written to.
    pub(super) fn into_inner(self) -> W {
        self.out
    }

    fn delimit(&mut self, place: usize) {
        if place > 0 {
            self.buffer.push(self.dialect.delimiter);
        }
    }

    fn null(&mut self, single: bool, is_text: bool, column: &str) -> Result<()> {
        if !single || !self.dialect.null.is_empty() {
            self.buffer.extend_from_slice(self.dialect.null.as_bytes());
            return Ok(());
        }
        if is_text {
            return Err(Error::new(
                ErrorKind::Data,
                format!("a NULL of the only column `{column}` would be an empty line, which readers leave out"),
            )
            .hint("say how NULL is written: `csv: {null: \"\\\\N\"}`"));
        }
        // Of no other type is the empty text a value.
        self.buffer.extend_from_slice(&[self.dialect.quote; 2]);
        Ok(())
    }

    fn field(&mut self, text: &str, quoted: bool) {
        let bytes = text.as_bytes();
        if !quoted && !bytes.iter().any(|byte| self.special[usize::from(*byte)]) {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        let Dialect { quote, escape, .. } = self.dialect;
        self.buffer.push(quote);
        for &byte in bytes {
            if byte == quote || Some(byte) == escape {
                self.buffer.push(escape.unwrap_or(quote));
            }
            self.buffer.push(byte);
        }
        self.buffer.push(quote);
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| super::parquet::io_error(&error))
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        // An empty value is a value there, too.
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => true,
        DataType::Dictionary(_, values) => is_text(values),
        DataType::RunEndEncoded(_, values) => is_text(values.data_type()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn dialect() -> Dialect {
        Dialect { delimiter: b',', quote: b'"', escape: None, header: true, null: String::new() }
    }

    fn written(dialect: Dialect, columns: Vec<(&str, ArrayRef)>) -> Result<String> {
        let mut writer = CsvWriter::new(Vec::new(), dialect);
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        writer.write(&batch.slice(0, 1))?;
        writer.write(&batch.slice(1, batch.num_rows() - 1))?;
        Ok(String::from_utf8(writer.into_inner()).unwrap())
    }

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn a_text_that_reads_like_null_is_quoted_and_null_is_not() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let columns = vec![("n", numbers.clone()), ("a b", texts(&[Some(""), None, Some("x\"y,\n")]))];
        assert_eq!(written(dialect(), columns.clone()).unwrap(), "n,a b\n1,\"\"\n,\n3,\"x\"\"y,\n\"\n");
        let named = Dialect { null: "3".to_owned(), escape: Some(b'\\'), header: false, ..dialect() };
        let columns = vec![("n", numbers), ("t", texts(&[Some("3"), None, Some("\\\"")]))];
        assert_eq!(written(named, columns).unwrap(), "1,\"3\"\n3,3\n3,\"\\\\\\\"\"\n");
    }

    #[test]
    fn a_row_of_one_empty_field_is_not_an_empty_line() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(3)]));
        assert_eq!(written(dialect(), vec![("n", numbers)]).unwrap(), "n\n\"\"\n3\n");
        assert_eq!(written(dialect(), vec![("t", texts(&[Some(""), Some("x")]))]).unwrap(), "t\n\"\"\nx\n");
        let error = written(dialect(), vec![("t", texts(&[None, Some("x")]))]).unwrap_err();
        assert!(error.message().contains("would be an empty line"), "{error:?}");
        let null = Dialect { null: "\\N".to_owned(), ..dialect() };
        assert_eq!(written(null, vec![("t", texts(&[None, Some("")]))]).unwrap(), "t\n\\N\n\"\"\n");
    }
}
