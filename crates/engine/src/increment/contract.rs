//! `schema_contract: discard_row | discard_value`: what does not fit the columns that were read before is left out.
//!
//! What was read before is kept with the cursor (dlt: the stored schema). A column that is new is not read on, or (rows) only
//! for whether it has a value: a row with one does not fit. A value of a column whose type has changed fits where it can be
//! of the former type without loss; otherwise it becomes NULL, or its row is left out. A column that is gone is no misfit.

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::compute::{can_cast_types, cast, filter_record_batch, nullif};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use gristmill_connect::types::{parse_type, type_name};
use gristmill_model::spec::SchemaContract;
use gristmill_model::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Digits of a decimal on its way from a text, so that surplus ones are seen and not rounded away.
const WIDE: DataType = DataType::Decimal256(76, 37);

/// What an extract leaves out, because it did not have it before.
#[derive(Debug)]
pub(crate) struct Contract {
    /// Rows are left out, not values.
    drops_rows: bool,
    /// Of the rows as the source has them.
    source: SchemaRef,
    /// Of the rows as they go on.
    schema: SchemaRef,
    new: Vec<String>,
    /// Columns that had another type.
    changed: Vec<String>,
    /// Rows, or values, that did not fit.
    discarded: AtomicU64,
}

impl Contract {
    /// What is to be left out of rows of `now`; none where all of it fits. `before`: names and types of the columns.
    ///
    /// # Errors
    /// A column of a type whose name says too little to turn values into it.
    pub(crate) fn new(policy: SchemaContract, before: &[(String, String)], now: &SchemaRef) -> Result<Option<Self>> {
        let (mut fields, mut new, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for field in now.fields() {
            let name = field.name();
            let Some((_, was)) = before.iter().find(|(other, _)| other == name) else {
                new.push(name.clone());
                continue;
            };
            let is = type_name(field.data_type());
            if is == *was {
                fields.push(field.as_ref().clone());
                continue;
            }
            let kind = parse_type(was).map_err(|_| {
                Error::new(ErrorKind::Schema, format!("the column `{name}` is {is} now, it was {was}"))
                    .cause(format!("`schema_contract: {}` cannot turn values into that", policy.as_str()))
                    .hint(
                        "change the table back, say `schema_contract: evolve`, or leave the column out with `columns`",
                    )
            })?;
            changed.push(name.clone());
            fields.push(Field::new(name, kind, true));
        }
        if new.is_empty() && changed.is_empty() {
            return Ok(None);
        }
        let drops_rows = policy == SchemaContract::DiscardRow;
        let (source, schema) = (now.clone(), Arc::new(Schema::new(fields)));
        Ok(Some(Self { drops_rows, source, schema, new, changed, discarded: AtomicU64::new(0) }))
    }

    /// The columns that go on.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns to read from the source for those that are asked for: them first, then what must be judged beside them.
    pub(crate) fn reads(&self, asked: &Schema) -> Result<SchemaRef> {
        let judged =
            self.new.iter().chain(&self.changed).filter(|name| self.drops_rows && asked.index_of(name).is_err());
        let names = asked.fields().iter().map(|field| field.name()).chain(judged);
        let fields = names.map(|name| {
            let field = self.source.field_with_name(name);
            field.cloned().map_err(|error| Error::internal(format!("`{name}` is not in the source")).cause(error))
        });
        Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
    }

    /// Rows as [`Self::reads`] says, made into rows of `asked`; and how many were left out.
    pub(crate) fn apply(&self, batch: &RecordBatch, asked: &SchemaRef) -> Result<(RecordBatch, usize)> {
        self.fitted(batch, asked).map_err(|error| Error::internal("rows cannot be held to their contract").cause(error))
    }

    fn fitted(&self, batch: &RecordBatch, asked: &SchemaRef) -> Result<(RecordBatch, usize), ArrowError> {
        let rows = batch.num_rows();
        let mut keep = BooleanBuffer::new_set(rows);
        let mut misfits = 0;
        let mut fits: Vec<(&str, ArrayRef)> = Vec::new();
        for name in &self.changed {
            let (Some(column), Ok(field)) = (batch.column_by_name(name), self.schema.field_with_name(name)) else {
                continue;
            };
            let (fitted, misfit) = fit(column, field.data_type())?;
            misfits += misfit.count_set_bits();
            keep = &keep & &!&misfit;
            fits.push((name, fitted));
        }
        if self.drops_rows {
            for column in self.new.iter().filter_map(|name| batch.column_by_name(name)) {
                if let Some(nulls) = column.logical_nulls() {
                    keep = &keep & &!nulls.inner();
                } else {
                    keep = BooleanBuffer::new_unset(rows);
                }
            }
            misfits = rows - keep.count_set_bits();
        }
        let columns = asked.fields().iter().map(|field| {
            let fitted = fits.iter().find(|(name, _)| name == field.name()).map(|(_, fitted)| fitted.clone());
            let column = fitted.or_else(|| batch.column_by_name(field.name()).cloned());
            column.ok_or_else(|| ArrowError::SchemaError(format!("`{}` was not read", field.name())))
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
        let fitted = RecordBatch::try_new_with_options(
            asked.clone(),
            columns,
            &datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows)),
        )?;
        self.discarded.fetch_add(misfits as u64, Ordering::Relaxed);
        if !self.drops_rows || misfits == 0 {
            return Ok((fitted, 0));
        }
        Ok((filter_record_batch(&fitted, &BooleanArray::new(keep, None))?, misfits))
    }

    /// What was left out, for people.
    pub(crate) fn describe(&self) -> String {
        let quoted = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let mut parts = Vec::new();
        if !self.new.is_empty() {
            let left = if self.drops_rows { "" } else { " and left out" };
            parts.push(format!("{} new{left}", quoted(&self.new)));
        }
        if !self.changed.is_empty() {
            parts.push(format!("{} of another type", quoted(&self.changed)));
        }
        let discarded = self.discarded.load(Ordering::Relaxed);
        let what = match (self.drops_rows, discarded) {
            (true, 1) => "row",
            (true, _) => "rows",
            (false, 1) => "value",
            (false, _) => "values",
        };
        format!("schema_contract: {}; {discarded} {what} discarded", parts.join(", "))
    }
}

/// Values as another type; and which of them cannot be that (they are NULL then).
fn fit(array: &ArrayRef, to: &DataType) -> Result<(ArrayRef, BooleanBuffer), ArrowError> {
    let present =
        array.logical_nulls().map_or_else(|| BooleanBuffer::new_set(array.len()), |nulls| nulls.inner().clone());
    if !can_cast_types(array.data_type(), to) {
        return Ok((new_null_array(to, array.len()), present));
    }
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_decimal = matches!(to, DataType::Decimal128(..) | DataType::Decimal256(..));
    if is_text(array.data_type()) && is_decimal {
        let wide = cast(array, &WIDE)?;
        let (fitted, rounded) = fit(&wide, to)?;
        let unread = &present & &!&valid(&wide);
        return Ok((fitted, &unread | &rounded));
    }
    // Values that cannot be cast become NULL.
    let fitted = cast(array, to)?;
    let mut misfit = &present & &!&valid(&fitted);
    if !is_text(array.data_type()) && !is_text(to) {
        let back = cast(&fitted, array.data_type())?;
        let same = not_distinct(&back, array)?;
        misfit = &misfit | &(&present & &!same.values());
    }
    let fitted = nullif(&fitted, &BooleanArray::new(misfit.clone(), None))?;
    Ok((fitted, misfit))
}

fn valid(array: &ArrayRef) -> BooleanBuffer {
    array.logical_nulls().map_or_else(|| BooleanBuffer::new_set(array.len()), |nulls| nulls.inner().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Float64Array, Int64Array, StringArray};
    use proptest::prelude::*;

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(
            fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>(),
        ))
    }

    fn before(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    }

    /// Three rows: `id`, `price` as text (it was a decimal), `tax`, which is new.
    fn rows() -> RecordBatch {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let price: ArrayRef = Arc::new(StringArray::from(vec![Some("1.50"), Some("much"), None]));
        let tax: ArrayRef = Arc::new(Float64Array::from(vec![None, None, Some(0.5)]));
        RecordBatch::try_from_iter_with_nullable([("id", id, true), ("price", price, true), ("tax", tax, true)])
            .unwrap()
    }

    fn contract(policy: SchemaContract) -> Contract {
        let before = before(&[("id", "bigint"), ("price", "decimal(10,2)"), ("gone", "text")]);
        Contract::new(policy, &before, &rows().schema()).unwrap().unwrap()
    }

    fn lines(batch: &RecordBatch) -> Vec<String> {
        let text = datafusion::arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch)).unwrap();
        let lines: Vec<String> = text.to_string().lines().map(|line| line.replace([' ', '|'], " ")).collect();
        let words = lines.iter().filter(|line| !line.starts_with('+')).skip(1);
        words.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn values_that_do_not_fit_are_left_out() {
        let contract = contract(SchemaContract::DiscardValue);
        let asked = contract.schema().clone();
        assert_eq!(asked, schema(&[("id", DataType::Int64), ("price", DataType::Decimal128(10, 2))]));
        assert_eq!(contract.reads(&asked).unwrap().fields().len(), 2, "the new column is not read");
        let batch = rows().project(&[0, 1]).unwrap();
        let (kept, dropped) = contract.apply(&batch, &asked).unwrap();
        assert_eq!((lines(&kept), dropped), (vec!["1 1.50".to_owned(), "2".to_owned(), "3".to_owned()], 0));
        let said = contract.describe();
        assert_eq!(said, "schema_contract: `tax` new and left out, `price` of another type; 1 value discarded");
    }

    #[test]
    fn rows_that_do_not_fit_are_left_out_whichever_columns_are_asked_for() {
        for asked in [&["id", "price"][..], &["id"]] {
            let contract = contract(SchemaContract::DiscardRow);
            let all = contract.schema().clone();
            let asked: Vec<usize> = asked.iter().map(|name| all.index_of(name).unwrap()).collect();
            let asked = Arc::new(all.project(&asked).unwrap());
            let read = contract.reads(&asked).unwrap();
            let at: Vec<usize> =
                read.fields().iter().map(|field| rows().schema().index_of(field.name()).unwrap()).collect();
            let (kept, dropped) = contract.apply(&rows().project(&at).unwrap(), &asked).unwrap();
            assert_eq!((kept.num_rows(), dropped, kept.schema()), (1, 2, asked));
            assert!(contract.describe().ends_with("`tax` new, `price` of another type; 2 rows discarded"));
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        let now = schema(&[("id", DataType::Int64)]);
        let same = Contract::new(SchemaContract::DiscardRow, &before(&[("id", "bigint"), ("gone", "text")]), &now);
        assert!(same.unwrap().is_none());
        let nested = before(&[("id", "List(Int64)")]);
        let error = Contract::new(SchemaContract::DiscardValue, &nested, &now).unwrap_err();
        assert!(error.message().contains("it was List(Int64)"), "{error}");
    }

    proptest! {
        /// A value is kept as it is, or left out.
        #[test]
        fn nothing_is_rounded(values in prop::collection::vec(prop::option::of(-1.0e6f64..1.0e6), 0..20), whole in any::<bool>()) {
            let values: Vec<Option<f64>> = values.into_iter().map(|value| value.map(|v| if whole { v.trunc() } else { v })).collect();
            let array: ArrayRef = Arc::new(Float64Array::from(values.clone()));
            for to in [DataType::Int32, DataType::Float32, DataType::Decimal128(10, 2), DataType::Utf8] {
                let (fitted, misfit) = fit(&array, &to).unwrap();
                let back = cast(&fitted, &DataType::Float64).unwrap();
                let back = back.as_any().downcast_ref::<Float64Array>().unwrap();
                for (row, value) in values.iter().enumerate() {
                    prop_assert_eq!(misfit.value(row), value.is_some() && fitted.is_null(row));
                    if fitted.is_valid(row) {
                        prop_assert_eq!(Some(back.value(row)), *value);
                    }
                }
            }
        }

        /// A text is read whole, or not at all.
        #[test]
        fn a_text_is_a_number_or_none(whole in -9999i64..9999, digits in "[0-9]{0,4}") {
            let text = if digits.is_empty() { whole.to_string() } else { format!("{whole}.{digits}") };
            let array: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
            let (_, misfit) = fit(&array, &DataType::Decimal128(10, 2)).unwrap();
            prop_assert_eq!(misfit.value(0), digits.trim_end_matches('0').len() > 2, "{}", text);
            let (_, misfit) = fit(&array, &DataType::Int64).unwrap();
            prop_assert!(misfit.value(0) || digits.is_empty());
        }
    }
}
