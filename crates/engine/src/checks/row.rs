//! Row checks: one boolean column per check, computed in the plan; the pipe sorts the rows by them.

use super::Tally;
use super::sample::Sample;
use crate::error::from_datafusion;
use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{filter_record_batch, kernels::boolean};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::functions::expr_fn::{coalesce, isnan, regexp_like};
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::scalar::ScalarValue;
use gristmill_model::spec::{CheckKind, Literal, OnFail};
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::sync::Arc;

/// Adds a column per row check to a view: true where the row breaks it. Returns the columns' order.
pub(crate) async fn flag_rows(
    session: &SessionContext,
    view: DataFrame,
    tallies: &[Arc<Tally>],
    now: chrono::DateTime<chrono::Utc>,
) -> Result<DataFrame> {
    let columns: Vec<String> = view.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut frame = view;
    let mut flags: Vec<Expr> = Vec::new();
    for (position, tally) in tallies.iter().filter(|tally| tally.check.kind.is_row_check()).enumerate() {
        let schema = frame.schema().clone();
        let broken = match &tally.check.kind {
            CheckKind::NotNull { columns } => {
                let mut broken: Option<Expr> = None;
                for column in columns {
                    let is_null = resolve(&schema, column)?.0.is_null();
                    broken = Some(match broken {
                        Some(broken) => broken.or(is_null),
                        None => is_null,
                    });
                }
                broken.unwrap_or_else(|| lit(false))
            }
            CheckKind::Between { column, min, max, strict_min, strict_max } => {
                let (value, data_type) = resolve(&schema, column)?;
                for bound in [min, max].into_iter().flatten() {
                    refuse_letters(bound, &data_type, column)?;
                }
                let mut fine: Option<Expr> = None;
                if let Some(min) = min {
                    let bound = literal(min, &data_type, column, now)?;
                    fine = Some(if *strict_min { value.clone().gt(bound) } else { value.clone().gt_eq(bound) });
                }
                if let Some(max) = max {
                    let bound = literal(max, &data_type, column, now)?;
                    let below = if *strict_max { value.lt(bound) } else { value.lt_eq(bound) };
                    fine = Some(match fine {
                        Some(fine) => fine.and(below),
                        None => below,
                    });
                }
                let broken = Expr::Not(Box::new(fine.unwrap_or_else(|| lit(true))));
                // To a comparison NaN is larger than every number; between two bounds it is not.
                if data_type.is_floating() { broken.or(isnan(resolve(&schema, column)?.0)) } else { broken }
            }
            CheckKind::InSet { column, values } => {
                let (value, data_type) = resolve(&schema, column)?;
                let values =
                    values.iter().map(|value| literal(value, &data_type, column, now)).collect::<Result<Vec<_>>>()?;
                value.in_list(values, true)
            }
            CheckKind::Matches { column, pattern } => {
                let (value, _) = resolve(&schema, column)?;
                let text = cast(value, DataType::Utf8);
                Expr::Not(Box::new(regexp_like(text, lit(pattern.as_str()), None)))
            }
            CheckKind::Relationships { column, to_step, to_column } => {
                let (value, data_type) = resolve(&schema, column)?;
                let known = format!("__known_{position}");
                let other = session.table(to_step.as_str()).await.map_err(from_datafusion)?;
                let (key, key_type) =
                    resolve(other.schema(), to_column).map_err(|error| error.context(format!("step `{to_step}`")))?;
                // The join finds the type that holds the values of both. Text and numbers have none that a value could
                // not fail to fit, so these are compared as text.
                let (value_text, key_text) = (is_text(&data_type), is_text(&key_type));
                let key = if value_text && !key_text { cast(key, DataType::Utf8) } else { key };
                let compared =
                    if key_text && !value_text { cast(value.clone(), DataType::Utf8) } else { value.clone() };
                let keys =
                    other.select(vec![key.alias(&known)]).and_then(DataFrame::distinct).map_err(from_datafusion)?;
                let known_column = Expr::Column(Column::new_unqualified(known.clone()));
                frame = frame
                    .join_on(keys, JoinType::Left, [compared.eq(known_column.clone())])
                    .map_err(from_datafusion)?;
                value.is_not_null().and(known_column.is_null())
            }
            CheckKind::Unique { .. } | CheckKind::RowCount { .. } => continue,
        };
        // A comparison with NULL is neither true nor false; NULL passes.
        flags.push(coalesce(vec![broken, lit(false)]).alias(format!("__broken_{position}")));
    }
    let schema = frame.schema().clone();
    let mut selected: Vec<Expr> = Vec::with_capacity(columns.len() + flags.len());
    for column in &columns {
        selected.push(resolve(&schema, column)?.0.alias(column));
    }
    selected.extend(flags);
    frame.select(selected).map_err(from_datafusion)
}

/// The column of that name, as an expression, and its type.
pub(crate) fn resolve(schema: &DFSchema, name: &str) -> Result<(Expr, DataType)> {
    let mut found = schema.iter().filter(|(_, field)| field.name() == name);
    match (found.next(), found.next()) {
        (Some((qualifier, field)), None) => {
            Ok((Expr::Column(Column::new(qualifier.cloned(), name)), field.data_type().clone()))
        }
        (Some(_), Some(_)) => Err(Error::new(ErrorKind::Query, format!("column `{name}` occurs more than once"))
            .hint("give one of them another name with `AS`")),
        (None, _) => {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            Err(Error::new(ErrorKind::Schema, format!("column `{name}` does not exist")).hint(one_of(name, names)))
        }
    }
}

/// A value of a check as a literal of the column's type.
fn literal(value: &Literal, data_type: &DataType, column: &str, now: chrono::DateTime<chrono::Utc>) -> Result<Expr> {
    let scalar = match value {
        Literal::Bool(value) => ScalarValue::Boolean(Some(*value)),
        Literal::Int(value) => ScalarValue::Int64(Some(*value)),
        Literal::Float(value) => ScalarValue::Float64(Some(*value)),
        Literal::Text(text) if text == "now" && is_time(data_type) => {
            let micros = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), None);
            let target = match data_type {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                    return Ok(lit(now.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()));
                }
                DataType::Timestamp(unit, Some(zone)) => {
                    // The same instant, told in the column's zone.
                    return Ok(cast(
                        lit(ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), Some("UTC".into()))),
                        DataType::Timestamp(*unit, Some(zone.clone())),
                    ));
                }
                other => other.clone(),
            };
            return micros.cast_to(&target).map(lit).map_err(from_datafusion);
        }
        Literal::Text(text) => ScalarValue::Utf8(Some(text.clone())),
    };
    // Comparing a decimal with an integer needs no cast of the literal; the planner widens both.
    if matches!((value, data_type), (Literal::Int(_) | Literal::Float(_), kind) if kind.is_numeric()) {
        return Ok(lit(scalar));
    }
    scalar.cast_to(data_type).map(lit).map_err(|_| {
        Error::new(ErrorKind::Schema, format!("`{value}` is not a {data_type}, which column `{column}` is"))
            .hint("write the bound as a value of the column's type")
    })
}

/// A number as a bound of text would compare letters: to them `9` is above `10`.
fn refuse_letters(bound: &Literal, data_type: &DataType, column: &str) -> Result<()> {
    if !is_text(data_type) || !matches!(bound, Literal::Int(_) | Literal::Float(_)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Schema, format!("column `{column}` is text, and the bound `{bound}` is a number")).hint(
        format!(
            "make it a number in a `sql` step (`try_cast({column} AS double) AS {column}`) or in the extract's `schema`, or \
             write the bound in quotes to compare text"
        ),
    ))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(..)
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
    )
}

/// Sorts the rows of flagged batches into good and bad ones.
#[derive(Debug)]
pub(crate) struct Judge {
    /// How many columns the view has; flags come after them.
    columns: usize,
    row_checks: Vec<Arc<Tally>>,
    /// The columns that tell rows apart, for people.
    keys: Vec<String>,
}

/// A batch, judged.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Rows that go on, without the flags.
    pub(crate) good: RecordBatch,
    /// Rows that are left out.
    pub(crate) rejected: usize,
    /// Those of them that are kept as dead letters, with the name of the first check each broke.
    pub(crate) dead: Option<(RecordBatch, Vec<String>)>,
}

impl Judge {
    pub(crate) fn new(columns: usize, tallies: &[Arc<Tally>], keys: Vec<String>) -> Self {
        let row_checks = tallies.iter().filter(|tally| tally.check.kind.is_row_check()).cloned().collect();
        Self { columns, row_checks, keys }
    }

    pub(crate) fn judge(&self, batch: &RecordBatch) -> Result<Judged> {
        let all: Vec<usize> = (0..self.columns).collect();
        let arrow = |error: datafusion::arrow::error::ArrowError| Error::internal(error.to_string());
        let rows = batch.project(&all).map_err(arrow)?;
        let mut leave_out: Option<BooleanArray> = None;
        let mut keep_aside: Vec<(&Tally, BooleanArray)> = Vec::new();
        for (position, tally) in self.row_checks.iter().enumerate() {
            let flags = batch.column(self.columns + position);
            let flags = flags.as_any().downcast_ref::<BooleanArray>();
            let flags = flags.ok_or_else(|| Error::internal("a check is not a boolean"))?;
            let broken = flags.true_count();
            if broken == 0 {
                continue;
            }
            tally.count(broken as u64, self.samples(tally, &rows, flags));
            match tally.check.on_fail {
                OnFail::Fail | OnFail::Warn => {}
                OnFail::Drop | OnFail::DeadLetter => {
                    leave_out = Some(match leave_out {
                        Some(earlier) => boolean::or(&earlier, flags).map_err(arrow)?,
                        None => flags.clone(),
                    });
                    if tally.check.on_fail == OnFail::DeadLetter {
                        keep_aside.push((tally, flags.clone()));
                    }
                }
            }
        }
        let Some(leave_out) = leave_out else { return Ok(Judged { good: rows, rejected: 0, dead: None }) };
        let keep = boolean::not(&leave_out).map_err(arrow)?;
        let good = filter_record_batch(&rows, &keep).map_err(arrow)?;
        let dead = if keep_aside.is_empty() {
            None
        } else {
            let mut reasons: Vec<Option<&str>> = vec![None; rows.num_rows()];
            for (tally, flags) in &keep_aside {
                for row in flags.values().set_indices() {
                    reasons[row].get_or_insert(tally.check.name.as_str());
                }
            }
            let mask = BooleanArray::new(BooleanBuffer::from_iter(reasons.iter().map(Option::is_some)), None);
            let names = reasons.into_iter().flatten().map(str::to_owned).collect();
            Some((filter_record_batch(&rows, &mask).map_err(arrow)?, names))
        };
        Ok(Judged { rejected: leave_out.true_count(), good, dead })
    }

    fn samples(&self, tally: &Tally, rows: &RecordBatch, flags: &BooleanArray) -> Vec<Sample> {
        if !tally.wants_samples() {
            return Vec::new();
        }
        let broken = flags.values().set_indices().take(super::SAMPLES);
        broken.filter_map(|row| Sample::of_row(&tally.check.kind, &self.keys, rows, row)).collect()
    }
}

/// One value for people, shortened.
pub(crate) fn shown(values: &ArrayRef, row: usize) -> Option<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(values, &options).ok()?;
    let text = formatter.value(row).try_to_string().ok()?;
    Some(if text.chars().count() > 40 { format!("{}…", text.chars().take(40).collect::<String>()) } else { text })
}
