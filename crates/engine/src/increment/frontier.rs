//! How far the rows that are read go, where the source cannot tell it beforehand; and which of them were not asked for.
//!
//! A text is compared as what it says: a moment, a whole number, or else byte by byte. All texts of a column must be of one
//! kind, or an order that nobody meant would move the cursor past rows.

use super::memory::{below, check_lag, numbers};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, make_array,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options, filter, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_connect::moment;
use gristmill_model::spec::Lag;
use gristmill_model::{Error, ErrorKind, Result};
use serde_json::Value;
use std::sync::Arc;

/// What the texts of a column say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Texts {
    Moments,
    Numbers,
    Words,
}

/// A place in the order of a column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Number(i128),
    Word(String),
}

/// What has been seen of a column, and within which bounds rows are wanted.
#[derive(Debug)]
pub(super) struct Frontier {
    column: String,
    /// The cursor, and how far before it rows are wanted again.
    since: Option<Value>,
    lag: Option<Lag>,
    initial: Option<String>,
    end: Option<String>,
    /// Rows without a value are left out.
    no_nulls: bool,
    texts: Option<Texts>,
    bounds: Option<Bounds>,
    greatest: Option<(Place, Value)>,
    /// Rows that were not asked for.
    pub(super) beside: u64,
}

#[derive(Debug)]
struct Bounds {
    since: Option<Place>,
    from: Option<Place>,
    end: Option<Place>,
}

/// The values of a cursor: a column, or a field within one (`meta.updated_at`).
pub(super) fn cursor_of(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    if let Some(column) = batch.column_by_name(name) {
        return Ok(column.clone());
    }
    let missing = || Error::new(ErrorKind::Schema, format!("the extract has no column `{name}`"));
    let mut parts = name.split('.');
    let top = parts.next().unwrap_or_default();
    let mut found = batch.column_by_name(top).cloned().ok_or_else(missing)?;
    for part in parts {
        let outer = found.as_struct_opt().ok_or_else(missing)?;
        let inner = outer.column_by_name(part).ok_or_else(missing)?;
        let nulls = NullBuffer::union(outer.nulls(), inner.nulls());
        let data = inner.to_data().into_builder().nulls(nulls).build();
        found = make_array(data.map_err(|error| Error::internal(format!("`{name}` cannot be read")).cause(error))?);
    }
    Ok(found)
}

impl Frontier {
    pub(super) fn new(
        column: &str,
        since: Option<Value>,
        lag: Option<Lag>,
        (initial, end): (Option<String>, Option<String>),
        no_nulls: bool,
    ) -> Self {
        let column = column.to_owned();
        Self { column, since, lag, initial, end, no_nulls, texts: None, bounds: None, greatest: None, beside: 0 }
    }

    /// Leaves out rows that were not asked for, and moves on to the greatest of the others. Gives the rows, and their
    /// cursors as what they say.
    pub(super) fn pass(&mut self, batch: RecordBatch) -> Result<(RecordBatch, ArrayRef)> {
        let internal = |error| Error::internal("rows before the cursor cannot be told from others").cause(error);
        let written = cursor_of(&batch, &self.column)?;
        let cursor = self.as_said(&written)?;
        let places = self.places(&cursor)?;
        if self.bounds.is_none() && places.iter().any(Option::is_some) {
            self.bounds = Some(self.bounds_of(cursor.data_type())?);
        }
        let (mut keep, mut greatest) = (Vec::with_capacity(places.len()), None::<usize>);
        for (row, place) in places.iter().enumerate() {
            let is_wanted = match (place, &self.bounds) {
                (None, _) => !self.no_nulls,
                (Some(_), None) => true,
                (Some(place), Some(Bounds { from, end, .. })) => {
                    from.as_ref().is_none_or(|from| place >= from) && end.as_ref().is_none_or(|end| place < end)
                }
            };
            if is_wanted && place.is_some() && greatest.is_none_or(|known| places[known] < *place) {
                greatest = Some(row);
            }
            keep.push(is_wanted);
        }
        if let Some(row) = greatest
            && let Some(place) = &places[row]
            && self.greatest.as_ref().is_none_or(|(known, _)| known < place)
        {
            self.greatest = Some((place.clone(), value_at(&written, row)?));
        }
        let left_out = keep.iter().filter(|keep| !**keep).count();
        if left_out == 0 {
            return Ok((batch, cursor));
        }
        self.beside += left_out as u64;
        let keep = BooleanArray::from(keep);
        Ok((filter_record_batch(&batch, &keep).map_err(internal)?, filter(&cursor, &keep).map_err(internal)?))
    }

    /// The greatest value so far; that of the cursor where nothing goes beyond it.
    pub(super) fn greatest(&self) -> Option<Value> {
        let before = self.bounds.as_ref().and_then(|bounds| bounds.since.as_ref());
        match &self.greatest {
            Some((place, value)) if before.is_none_or(|before| before <= place) => Some(value.clone()),
            _ => self.since.clone(),
        }
    }

    /// Texts as what they say, so that they can be compared; everything else as it is.
    fn as_said(&mut self, written: &ArrayRef) -> Result<ArrayRef> {
        if !matches!(written.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Ok(written.clone());
        }
        let internal = |error| Error::internal("a column of texts cannot be read").cause(error);
        let plain = cast(written, &DataType::Utf8).map_err(internal)?;
        let texts = plain.as_string::<i32>();
        let kind = self.kind_of(texts)?;
        let odd = |text: &str| {
            Error::new(
                ErrorKind::Data,
                format!("`{}` holds both `{text}` and texts of another kind, so they have no order", self.column),
            )
            .hint(format!(
                "say what it holds, e.g. `schema: {{{}: timestamptz}}`, and what happens to other rows with `on_bad_row`",
                self.column
            ))
        };
        Ok(match kind {
            None | Some(Texts::Words) => plain.clone(),
            Some(Texts::Numbers) => {
                let number =
                    |text: Option<&str>| text.map(|text| text.parse::<i64>().map_err(|_| odd(text))).transpose();
                Arc::new(texts.iter().map(number).collect::<Result<Int64Array>>()?)
            }
            Some(Texts::Moments) => {
                let moment = |text: Option<&str>| {
                    let micros = |text: &str| -> Result<i64> {
                        Ok(moment::parse(text).ok_or_else(|| odd(text))?.timestamp_micros())
                    };
                    text.map(micros).transpose()
                };
                let moments = texts.iter().map(moment).collect::<Result<TimestampMicrosecondArray>>()?;
                Arc::new(moments.with_timezone("UTC"))
            }
        })
    }

    /// What texts say: decided by the first of them, together with the cursor.
    fn kind_of(&mut self, texts: &StringArray) -> Result<Option<Texts>> {
        if self.texts.is_none() {
            let before = self.since.as_ref().and_then(Value::as_str);
            let mut kinds = texts.iter().flatten().chain(before).map(one_kind);
            if let Some(first) = kinds.next() {
                self.texts = Some(kinds.fold(first, |all, one| match (all, one) {
                    (all, one) if all == one => all,
                    // What is not a moment is told by name when all are read.
                    (Texts::Moments, _) | (_, Texts::Moments) => Texts::Moments,
                    _ => Texts::Words,
                }));
            }
        }
        Ok(self.texts)
    }

    fn places(&self, cursor: &ArrayRef) -> Result<Vec<Option<Place>>> {
        if let Some(numbers) = numbers(cursor) {
            return Ok(numbers.into_iter().map(|number| number.map(Place::Number)).collect());
        }
        match cursor.data_type() {
            DataType::Utf8 => {
                let texts = cursor.as_string::<i32>().iter();
                Ok(texts.map(|text| text.map(|text| Place::Word(text.to_owned()))).collect())
            }
            other => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "`{}` is {}, which has no greatest value",
                    self.column,
                    gristmill_connect::types::type_name(other)
                ),
            )
            .hint("take a number, a time, a date or a text as `incremental_key`")),
        }
    }

    fn bounds_of(&self, kind: &DataType) -> Result<Bounds> {
        check_lag(self.lag, kind, &self.column)?;
        let place = |text: &str, what: &str| {
            place_of(text, kind).ok_or_else(|| {
                let kind = gristmill_connect::types::type_name(kind);
                Error::new(ErrorKind::Config, format!("{what} `{text}` cannot be compared with `{}`", self.column))
                    .cause(format!("the column is {kind}"))
            })
        };
        let since = match &self.since {
            Some(since) => {
                let text = since.as_str().map_or_else(|| since.to_string(), str::to_owned);
                Some(
                    place(&text, "the cursor")
                        .map_err(|error| error.hint("load everything again with `--full-refresh`"))?,
                )
            }
            None => None,
        };
        let from = match (&since, &self.initial) {
            (Some(Place::Number(number)), _) => Some(Place::Number(below(*number, self.lag, kind))),
            (Some(word), _) => Some(word.clone()),
            (None, Some(initial)) => Some(place(initial, "`initial_value`")?),
            (None, None) => None,
        };
        let end = self.end.as_deref().map(|end| place(end, "`end_value`")).transpose()?;
        Ok(Bounds { since, from, end })
    }
}

fn one_kind(text: &str) -> Texts {
    match text {
        text if text.parse::<i64>().is_ok() => Texts::Numbers,
        text if moment::parse(text).is_some() => Texts::Moments,
        _ => Texts::Words,
    }
}

/// The place of a text among values of a type.
fn place_of(text: &str, kind: &DataType) -> Option<Place> {
    let number = match kind {
        DataType::Utf8 => return Some(Place::Word(text.to_owned())),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let moment = moment::parse(text)?;
            let nanos = i128::from(moment.timestamp()) * 1_000_000_000 + i128::from(moment.timestamp_subsec_nanos());
            nanos.div_euclid(match kind {
                DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
                DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
                DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
                DataType::Date32 => 86_400_000_000_000,
                _ => 1_000_000,
            })
        }
        other => {
            let text: ArrayRef = Arc::new(StringArray::from(vec![text]));
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            (*numbers(&cast_with_options(&text, other, &strict).ok()?)?.first()?)?
        }
    };
    Some(Place::Number(number))
}

/// A value as the source wrote it, or as its type is written.
fn value_at(array: &ArrayRef, row: usize) -> Result<Value> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);
    let internal = |error| Error::internal("a cursor cannot be written").cause(error);
    let formatter = ArrayFormatter::try_new(array.as_ref(), &OPTIONS).map_err(internal)?;
    let text = formatter.value(row).try_to_string().map_err(internal)?;
    let number = array.data_type().is_integer() || array.data_type().is_floating();
    let number = number.then(|| text.parse::<serde_json::Number>().ok()).flatten();
    Ok(number.map_or(Value::String(text), Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::StructArray;
    use datafusion::arrow::datatypes::{Field, Fields};

    fn batch(array: impl Array + 'static) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("at", Arc::new(array) as ArrayRef, true)]).unwrap()
    }

    fn texts(texts: &[&str]) -> RecordBatch {
        batch(StringArray::from(texts.to_vec()))
    }

    fn frontier(since: Option<&str>, lag: Option<&str>) -> Frontier {
        let lag = lag.map(|lag| lag.parse().unwrap());
        Frontier::new("at", since.map(Value::from), lag, (None, None), false)
    }

    fn left(frontier: &mut Frontier, batch: RecordBatch) -> Result<usize> {
        Ok(frontier.pass(batch)?.0.num_rows())
    }

    #[test]
    fn texts_are_compared_as_what_they_say_and_kept_as_they_are_written() {
        for (values, greatest) in [
            (["2024-01-15T10:00:00+02:00", "2024-01-15T09:00:00Z", "2024-01-15T08:30Z"], "2024-01-15T09:00:00Z"),
            (["9", "10", "007"], "10"),
            (["evt_b", "evt_c", "evt_a"], "evt_c"),
            (["01HV", "123", "0ABC"], "123"),
        ] {
            let mut frontier = frontier(None, None);
            assert_eq!(left(&mut frontier, texts(&values)).unwrap(), 3);
            assert_eq!(frontier.greatest(), Some(Value::from(greatest)));
        }
    }

    #[test]
    fn texts_of_two_kinds_are_refused() {
        assert!(left(&mut frontier(None, None), texts(&["2024-01-15", "soon"])).is_err());
        let mut frontier = frontier(Some("2024-01-15"), None);
        let error = left(&mut frontier, texts(&["7"])).unwrap_err();
        assert!(error.message().contains("`7`"), "{error}");
    }

    #[test]
    fn rows_that_were_not_asked_for_are_left_out_and_the_cursor_never_goes_back() {
        let mut late = frontier(Some("2024-01-15T10:00:00Z"), Some("2h"));
        let rows = ["2024-01-15T07:59:59Z", "2024-01-15T08:00:00Z", "2024-01-14"];
        assert_eq!(left(&mut late, texts(&rows)).unwrap(), 1);
        assert_eq!((late.beside, late.greatest()), (2, Some(Value::from("2024-01-15T10:00:00Z"))));
        assert_eq!(left(&mut late, texts(&["2024-01-15T10:00:01Z"])).unwrap(), 1);
        assert_eq!(late.greatest(), Some(Value::from("2024-01-15T10:00:01Z")));

        let ends = (Some("5".to_owned()), Some("8".to_owned()));
        let mut between = Frontier::new("at", None, None, ends, false);
        let numbers = batch(Int64Array::from(vec![Some(4), Some(5), None, Some(7), Some(8)]));
        assert_eq!(left(&mut between, numbers.clone()).unwrap(), 3);
        assert_eq!(between.greatest(), Some(Value::from(7)));
        let mut strict = Frontier::new("at", Some(Value::from(5)), None, (None, None), true);
        assert_eq!(left(&mut strict, numbers).unwrap(), 3, "and none without a value");
    }

    #[test]
    fn a_field_within_a_column_is_none_where_the_column_is_none() {
        let fields: Fields = vec![Field::new("at", DataType::Int64, true)].into();
        let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None]));
        let outer = StructArray::new(fields, vec![inner], Some(NullBuffer::from(vec![true, false, true])));
        let batch = RecordBatch::try_from_iter_with_nullable([("meta", Arc::new(outer) as ArrayRef, true)]).unwrap();
        let cursor = cursor_of(&batch, "meta.at").unwrap();
        assert_eq!((cursor.null_count(), cursor.is_valid(0)), (2, true));
        assert!(cursor_of(&batch, "meta.no").is_err() && cursor_of(&batch, "at").is_err());
    }
}
