//! JSON has no NaN and no infinities: what would silently become null is refused.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use gristmill_model::{Error, ErrorKind, Result};

/// Looks for floats that JSON has no word for, within lists and structs too.
///
/// # Errors
/// [`ErrorKind::Data`], naming the column.
pub(super) fn only_finite(batch: &RecordBatch) -> Result<()> {
    for (array, field) in batch.columns().iter().zip(batch.schema().fields()) {
        if let Some(word) = not_finite(array) {
            return Err(Error::new(
                ErrorKind::Data,
                format!("column `{}` holds {word}, which JSON has no word for", field.name()),
            )
            .hint(format!(
                "make it NULL in a `sql` step: `CASE WHEN isnan({0}) THEN NULL ELSE {0} END`, or write Parquet",
                field.name()
            )));
        }
    }
    Ok(())
}

fn not_finite(array: &ArrayRef) -> Option<String> {
    let found = |value: Option<f64>| value.map(|value| value.to_string());
    match array.data_type() {
        DataType::Float64 => {
            found(array.as_primitive::<Float64Type>().iter().flatten().find(|value| !value.is_finite()))
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().iter().flatten();
            found(values.map(f64::from).find(|value| !value.is_finite()))
        }
        DataType::Float16 => {
            let values = array.as_primitive::<Float16Type>().iter().flatten();
            found(values.map(f64::from).find(|value| !value.is_finite()))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().find_map(not_finite),
        DataType::Map(..) => not_finite(array.as_map().values()),
        // Only the items that the rows have; a slice's list still holds those of the others.
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (from, to) = (list.value_offsets().first()?, list.value_offsets().last()?);
            let (from, to) = (usize::try_from(*from).ok()?, usize::try_from(*to).ok()?);
            not_finite(&list.values().slice(from, to - from))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let (from, to) = (list.value_offsets().first()?, list.value_offsets().last()?);
            let (from, to) = (usize::try_from(*from).ok()?, usize::try_from(*to).ok()?);
            not_finite(&list.values().slice(from, to - from))
        }
        DataType::FixedSizeList(..) => not_finite(array.as_fixed_size_list().values()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Float64Array, ListArray, StructArray};
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn what_json_has_no_word_for_is_found_wherever_it_is() {
        let refused = |array: ArrayRef| {
            let batch = RecordBatch::try_from_iter_with_nullable([("x", array, true)]).unwrap();
            only_finite(&batch).err().map(|error| error.message().to_owned())
        };
        let text = |word: &str| Some(format!("column `x` holds {word}, which JSON has no word for"));
        let floats = |values: Vec<Option<f64>>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
        assert_eq!(refused(floats(vec![Some(1.5), None])), None);
        assert_eq!(refused(floats(vec![Some(1.5), Some(f64::NAN)])), text("NaN"));
        assert_eq!(refused(Arc::new(Float32Array::from(vec![f32::NEG_INFINITY]))), text("-inf"));
        let inner = Arc::new(Field::new("y", DataType::Float64, true));
        assert_eq!(refused(Arc::new(StructArray::from(vec![(inner, floats(vec![Some(f64::INFINITY)]))]))), text("inf"));
        let list = |values: Vec<Option<f64>>| {
            ListArray::from_iter_primitive::<Float64Type, _, _>(values.into_iter().map(|value| Some(vec![value])))
        };
        assert_eq!(refused(Arc::new(list(vec![Some(1.0), Some(f64::NAN)]))), text("NaN"));
        assert_eq!(refused(Arc::new(list(vec![Some(1.0), Some(f64::NAN)]).slice(0, 1))), None);
    }
}
