//! What the planner may expect of rows nobody has read yet.

use datafusion::arrow::datatypes::Schema;

/// What a value of a type without a fixed width is taken for, in bytes.
const USUAL_WIDTH: usize = 32;

/// Bytes of a row of `schema`, about; at least one.
pub(crate) fn row_width(schema: &Schema) -> usize {
    let widths = schema.fields().iter().map(|field| field.data_type().primitive_width().unwrap_or(USUAL_WIDTH));
    widths.sum::<usize>().max(1)
}
