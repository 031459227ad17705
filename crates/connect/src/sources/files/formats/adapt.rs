//! Brings the batches of a file to the schema asked for: columns by name, missing ones NULL, types cast.

use super::decode::Blame;
use crate::{Reject, Scan};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, LargeListArray, ListArray, MapArray, RecordBatch,
    RecordBatchOptions, StringArray, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_model::spec::OnFail;
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;

/// The longest record that a [`Reject`] carries.
pub(super) const MAX_REJECT_BYTES: usize = 64 << 10;

/// From one schema of a file to the schema asked for.
pub(super) struct Adapter {
    from: SchemaRef,
    to: SchemaRef,
    /// For each column asked for, where it stands in the file.
    sources: Vec<Option<usize>>,
    scan: Scan,
    blame: Blame,
}

impl Adapter {
    /// # Errors
    /// A column that may not be NULL and that the file does not have.
    pub(super) fn new(from: SchemaRef, scan: &Scan, blame: Blame) -> Result<Self> {
        let to = scan.schema.clone();
        let mut sources = Vec::with_capacity(to.fields().len());
        for field in to.fields() {
            let source = from.fields().iter().position(|candidate| candidate.name() == field.name());
            if source.is_none() && !field.is_nullable() {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!("`{}` has no column `{}`, which may not be NULL", blame.name(), field.name()),
                ));
            }
            sources.push(source);
        }
        Ok(Self { from, to, sources, scan: scan.clone(), blame })
    }

    /// The schema of the batches that come in.
    pub(super) fn from(&self) -> &SchemaRef {
        &self.from
    }

    /// Brings one batch to the schema asked for; `first_row` is the number of rows before it, for places.
    ///
    /// # Errors
    /// A value that cannot be of the type asked for, unless bad rows are left out.
    pub(super) fn adapt(&self, batch: &RecordBatch, first_row: u64) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut columns = Vec::with_capacity(self.sources.len());
        let mut bad: Vec<(usize, Error)> = Vec::new();
        for (field, source) in self.to.fields().iter().zip(&self.sources) {
            let Some(source) = source else {
                columns.push(new_null_array(field.data_type(), rows));
                continue;
            };
            let column = batch.column(*source);
            match fit(column, field.data_type(), false) {
                Ok(fitted) => columns.push(fitted),
                Err(error) => {
                    let error = self.cast_error(field, column.data_type(), &error);
                    if self.scan.on_bad_row == OnFail::Fail {
                        return Err(error);
                    }
                    columns.push(self.fit_what_fits(column, field, error, &mut bad)?);
                }
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let adapted = RecordBatch::try_new_with_options(self.to.clone(), columns, &options).map_err(|error| {
            let null = self
                .to
                .fields()
                .iter()
                .zip(&self.sources)
                .find(|(field, at)| !field.is_nullable() && at.is_some_and(|at| batch.column(at).null_count() > 0));
            match null {
                Some((field, _)) => Error::new(
                    ErrorKind::Data,
                    format!("`{}` has a NULL in column `{}`, which may not be NULL", self.blame.name(), field.name()),
                ),
                None => self.blame.data(error),
            }
        })?;
        if bad.is_empty() {
            return Ok(adapted);
        }
        self.leave_out(batch, &adapted, bad, first_row)
    }

    fn cast_error(&self, field: &Field, from: &DataType, error: &ArrowError) -> Error {
        Error::new(
            ErrorKind::Data,
            format!(
                "`{}`: column `{}` cannot be read as {} (in the file it is {from})",
                self.blame.name(),
                field.name(),
                field.data_type()
            ),
        )
        .cause(error)
        .hint(format!("declare another type with `schema: {{{}: …}}`", field.name()))
    }

    /// Casts what can be cast and notes the rows whose value became NULL on the way.
    fn fit_what_fits(
        &self,
        column: &ArrayRef,
        field: &Field,
        error: Error,
        bad: &mut Vec<(usize, Error)>,
    ) -> Result<ArrayRef> {
        let fitted = fit(column, field.data_type(), true).map_err(|_| error.clone())?;
        let mut lost = false;
        for row in 0..column.len() {
            if fitted.is_null(row) && !column.is_null(row) {
                lost = true;
                bad.push((row, error.clone()));
            }
        }
        // Something deeper than the top level failed: which row it is cannot be told.
        if lost { Ok(fitted) } else { Err(error) }
    }

    fn leave_out(
        &self,
        batch: &RecordBatch,
        adapted: &RecordBatch,
        bad: Vec<(usize, Error)>,
        first_row: u64,
    ) -> Result<RecordBatch> {
        let mut keep = vec![true; batch.num_rows()];
        for (row, error) in bad {
            if !std::mem::replace(&mut keep[row], false) {
                continue;
            }
            if let Some(rejects) = &self.scan.rejects {
                rejects.send(Reject {
                    record: record_text(batch, row),
                    error: error.to_string(),
                    place: format!("{}:{}", self.blame.name(), first_row + row as u64 + 1),
                });
            }
        }
        filter_record_batch(adapted, &BooleanArray::from(keep)).map_err(|error| self.blame.data(error))
    }
}

/// A row as text, for a dead letter.
fn record_text(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("null").with_display_error(true);
    let mut text = String::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(field.name());
        text.push_str(": ");
        match ArrayFormatter::try_new(column, &options) {
            Ok(formatter) => text.push_str(&formatter.value(row).to_string()),
            Err(_) => text.push('?'),
        }
        if text.len() > MAX_REJECT_BYTES {
            break;
        }
    }
    shorten(text)
}

/// At most [`MAX_REJECT_BYTES`] of a text.
pub(super) fn shorten(mut text: String) -> String {
    if text.len() > MAX_REJECT_BYTES {
        let mut end = MAX_REJECT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// Casts an array; structs field by field by name, lists by their elements. With `lenient`, what cannot be cast is
/// NULL.
fn fit(array: &ArrayRef, to: &DataType, lenient: bool) -> Result<ArrayRef, ArrowError> {
    let from = array.data_type();
    if from == to {
        return Ok(array.clone());
    }
    match (from, to) {
        (DataType::Struct(from_fields), DataType::Struct(to_fields)) => {
            let array = array.as_struct();
            let columns = to_fields
                .iter()
                .map(|field| match from_fields.iter().position(|candidate| candidate.name() == field.name()) {
                    Some(at) => fit(array.column(at), field.data_type(), lenient),
                    None => Ok(new_null_array(field.data_type(), array.len())),
                })
                .collect::<Result<Vec<_>, _>>()?;
            let made =
                StructArray::try_new_with_length(to_fields.clone(), columns, array.nulls().cloned(), array.len())?;
            Ok(Arc::new(made))
        }
        (DataType::List(_), DataType::List(field)) => {
            let array = array.as_list::<i32>();
            let values = fit(array.values(), field.data_type(), lenient)?;
            Ok(Arc::new(ListArray::try_new(field.clone(), array.offsets().clone(), values, array.nulls().cloned())?))
        }
        (DataType::LargeList(_), DataType::LargeList(field)) => {
            let array = array.as_list::<i64>();
            let values = fit(array.values(), field.data_type(), lenient)?;
            Ok(Arc::new(LargeListArray::try_new(
                field.clone(),
                array.offsets().clone(),
                values,
                array.nulls().cloned(),
            )?))
        }
        (DataType::FixedSizeList(_, size), DataType::FixedSizeList(field, to_size)) if size == to_size => {
            let array = array.as_fixed_size_list();
            let values = fit(array.values(), field.data_type(), lenient)?;
            Ok(Arc::new(FixedSizeListArray::try_new(field.clone(), *size, values, array.nulls().cloned())?))
        }
        (DataType::Map(_, _), DataType::Map(field, ordered)) => {
            let array = array.as_map();
            let entries: ArrayRef = Arc::new(array.entries().clone());
            let DataType::Struct(wanted) = field.data_type() else {
                return Err(ArrowError::CastError("a map without entries".into()));
            };
            // Keys and values go by their place: writers name them differently.
            let columns = entries
                .as_struct()
                .columns()
                .iter()
                .zip(wanted)
                .map(|(column, field)| fit(column, field.data_type(), lenient))
                .collect::<Result<Vec<_>, _>>()?;
            let entries = StructArray::try_new(wanted.clone(), columns, None)?;
            let made =
                MapArray::try_new(field.clone(), array.offsets().clone(), entries, array.nulls().cloned(), *ordered)?;
            Ok(Arc::new(made))
        }
        (from, DataType::Utf8) if from.is_nested() => nested_to_text(array),
        (from, to) if from.is_floating() && to.is_integer() => float_to_integer(array, to, lenient),
        _ => cast_with_options(array, to, &CastOptions { safe: lenient, ..CastOptions::default() }),
    }
}

/// Arrow's own cast cuts digits after the point off in silence.
fn float_to_integer(array: &ArrayRef, to: &DataType, lenient: bool) -> Result<ArrayRef, ArrowError> {
    let wide = cast_with_options(array, &DataType::Float64, &CastOptions::default())?;
    let wide = wide.as_primitive::<arrow::datatypes::Float64Type>();
    let broken = wide.iter().flatten().find(|value| value.fract() != 0.0);
    let options = CastOptions { safe: lenient, ..CastOptions::default() };
    match broken {
        None => cast_with_options(array, to, &options),
        Some(value) if !lenient => Err(ArrowError::CastError(format!("{value} is not a whole number"))),
        Some(_) => {
            let whole: arrow::array::Float64Array =
                wide.iter().map(|value| value.filter(|value| value.fract() == 0.0)).collect();
            cast_with_options(&whole, to, &options)
        }
    }
}

/// Nested values as JSON text, where files disagree and text is all they have in common.
fn nested_to_text(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field = Arc::new(Field::new("value", array.data_type().clone(), true));
    let options = arrow::json::writer::EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = arrow::json::writer::make_encoder(&field, array, &options)?;
    let mut buffer = Vec::new();
    let mut texts: Vec<Option<String>> = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.push(None);
            continue;
        }
        buffer.clear();
        encoder.encode(row, &mut buffer);
        texts.push(Some(String::from_utf8_lossy(&buffer).into_owned()));
    }
    Ok(Arc::new(StringArray::from(texts)))
}
