//! Making values: a range of rows of one column as an arrow array.

use super::compile::Column;
use super::stream::{BLOCK_ROWS, Purpose, below, stream, unit, up_to_wide};
use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use chacha20::ChaCha8Rng;
use chacha20::rand_core::Rng;
use fake::Fake as _;
use fake::faker::{address, company, currency, job, lorem, name, phone_number};
use gristmill_model::{Error, ErrorKind, Result};
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

/// What is made of random bits and row numbers. Counts of 0 stand for 2^64.
#[derive(Debug, Clone)]
pub(super) enum Maker {
    Sequence {
        start: i64,
        count: Option<u64>,
    },
    Integer {
        min: i64,
        count: u64,
    },
    Float {
        min: f64,
        max: f64,
    },
    Decimal {
        min: i128,
        last: u128,
        precision: u8,
        scale: i8,
    },
    Boolean,
    Date {
        min: i32,
        count: u64,
    },
    /// Microseconds; `count` is in seconds.
    Timestamp {
        min: i64,
        count: u64,
    },
    /// Values, and the running sums of their weights.
    Choice(Choice, Option<Vec<f64>>),
    Pattern(Pattern),
    Uuid,
    Fake(Fake),
    /// The columns of the row's own names, where the table has them.
    Email {
        first: Option<String>,
        last: Option<String>,
    },
}

/// Values to choose from, all of one type.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Booleans(Vec<bool>),
    Texts(Vec<String>),
}

/// The kinds that come from the `fake` crate's lists (its English ones).
#[derive(Debug, Clone, Copy)]
pub(super) enum Fake {
    Name,
    FirstName,
    LastName,
    Phone,
    Street,
    City,
    Postcode,
    Country,
    CountryCode,
    Currency,
    Company,
    Job,
    Word,
    Sentence,
}

impl Fake {
    pub(super) fn from_kind(kind: &str) -> Option<Self> {
        Some(match kind {
            "name" => Self::Name,
            "first_name" => Self::FirstName,
            "last_name" => Self::LastName,
            "phone" => Self::Phone,
            "street" => Self::Street,
            "city" => Self::City,
            "postcode" => Self::Postcode,
            "country" => Self::Country,
            "country_code" => Self::CountryCode,
            "currency" => Self::Currency,
            "company" => Self::Company,
            "job" => Self::Job,
            "word" => Self::Word,
            "sentence" => Self::Sentence,
            _ => return None,
        })
    }

    fn write(self, random: &mut ChaCha8Rng, out: &mut String) {
        match self {
            Self::Name => {
                out.push_str(first_name(random));
                out.push(' ');
                out.push_str(last_name(random));
            }
            Self::FirstName => out.push_str(first_name(random)),
            Self::LastName => out.push_str(last_name(random)),
            Self::Phone => out.push_str(&phone_number::en::PhoneNumber().fake_with_rng::<String, _>(random)),
            Self::Street => {
                out.push_str(&address::en::BuildingNumber().fake_with_rng::<String, _>(random));
                out.push(' ');
                out.push_str(&address::en::StreetName().fake_with_rng::<String, _>(random));
            }
            Self::City => out.push_str(&address::en::CityName().fake_with_rng::<String, _>(random)),
            Self::Postcode => out.push_str(&address::en::PostCode().fake_with_rng::<String, _>(random)),
            Self::Country => out.push_str(address::en::CountryName().fake_with_rng::<&str, _>(random)),
            Self::CountryCode => out.push_str(address::en::CountryCode().fake_with_rng::<&str, _>(random)),
            Self::Currency => out.push_str(currency::en::CurrencyCode().fake_with_rng::<&str, _>(random)),
            Self::Company => out.push_str(&company::en::CompanyName().fake_with_rng::<String, _>(random)),
            Self::Job => out.push_str(&job::en::Title().fake_with_rng::<String, _>(random)),
            Self::Word => out.push_str(word(random)),
            Self::Sentence => {
                let words = 4 + below(random, 6);
                let start = out.len();
                for at in 0..words {
                    if at > 0 {
                        out.push(' ');
                    }
                    out.push_str(word(random));
                }
                if let Some(first) = out.get_mut(start..=start) {
                    first.make_ascii_uppercase();
                }
                out.push('.');
            }
        }
    }
}

fn first_name(random: &mut ChaCha8Rng) -> &'static str {
    name::en::FirstName().fake_with_rng::<&str, _>(random)
}

fn last_name(random: &mut ChaCha8Rng) -> &'static str {
    name::en::LastName().fake_with_rng::<&str, _>(random)
}

fn word(random: &mut ChaCha8Rng) -> &'static str {
    lorem::en::Word().fake_with_rng::<&str, _>(random)
}

/// Text with places for the row number.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
    start: i64,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    /// The row number, filled up with zeros to this many digits.
    Number(usize),
}

impl Pattern {
    /// Understands `{}` and `{:06}`; `{{` and `}}` are the braces themselves.
    pub(super) fn parse(pattern: &str, start: i64) -> Result<Self> {
        let wrong = |at: &str| {
            Error::new(ErrorKind::Config, format!("pattern `{pattern}` has `{at}` where `{{}}` or `{{:06}}` may stand"))
                .hint("a brace itself is written twice: `{{`")
        };
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = pattern;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some((brace, after)) = [("{", "{{"), ("}", "}}")]
                .iter()
                .find_map(|(brace, doubled)| Some((*brace, rest.strip_prefix(doubled)?)))
            {
                text.push_str(brace);
                rest = after;
                continue;
            }
            let Some(end) = rest.find('}').filter(|_| rest.starts_with('{')) else { return Err(wrong(rest)) };
            let place = &rest[..=end];
            let width = match &rest[1..end] {
                "" => 0,
                format => format
                    .strip_prefix(":0")
                    .and_then(|width| width.parse().ok())
                    .filter(|width| *width <= 20)
                    .ok_or_else(|| wrong(place))?,
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Number(width));
            rest = &rest[end + 1..];
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Number(_))) {
            return Err(Error::new(ErrorKind::Config, format!("pattern `{pattern}` has no `{{}}` for the row number"))
                .hint("for the same text in every row take `kind: constant`"));
        }
        Ok(Self { pieces, start })
    }

    fn write(&self, row: u64, out: &mut String) {
        let number = i128::from(self.start) + i128::from(row);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Number(width) => put(out, format_args!("{number:0width$}")),
            }
        }
    }
}

/// Writing into a `String` cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

impl Column {
    /// The values of a range of rows.
    ///
    /// # Errors
    /// More text than one array can hold.
    pub(super) fn make(&self, rows: &Range<u64>) -> Result<ArrayRef> {
        let nulls = self.null_buffer(rows);
        Ok(match &self.maker {
            Maker::Sequence { start, count: None } => {
                self.numbers::<Int64Array, _>(rows, nulls, |_, row| start.wrapping_add_unsigned(row))
            }
            Maker::Sequence { start, count: Some(count) } => {
                self.numbers::<Int64Array, _>(rows, nulls, |_, row| start.wrapping_add_unsigned(row % count))
            }
            Maker::Integer { min, count } => {
                self.numbers::<Int64Array, _>(rows, nulls, |random, _| min.wrapping_add_unsigned(below(random, *count)))
            }
            Maker::Float { min, max } => self.numbers::<Float64Array, _>(rows, nulls, |random, _| {
                // Rounding may carry a value one step over the end.
                (min + (max - min) * unit(random)).clamp(*min, *max)
            }),
            Maker::Decimal { min, last, precision, scale } => {
                let values = self.values(rows, |random, _| min.wrapping_add_unsigned(up_to_wide(random, *last)));
                let data_type = DataType::Decimal128(*precision, *scale);
                Arc::new(Decimal128Array::new(ScalarBuffer::from(values), nulls).with_data_type(data_type))
            }
            Maker::Boolean => {
                let bits: BooleanBuffer = self.values(rows, |random, _| random.next_u64() >> 63 == 1).into();
                Arc::new(BooleanArray::new(bits, nulls))
            }
            #[expect(clippy::cast_possible_truncation, reason = "the count is that of days between two dates")]
            Maker::Date { min, count } => self.numbers::<Date32Array, _>(rows, nulls, |random, _| {
                min.wrapping_add_unsigned(below(random, *count) as u32)
            }),
            Maker::Timestamp { min, count } => {
                self.numbers::<TimestampMicrosecondArray, _>(rows, nulls, |random, _| {
                    min.wrapping_add_unsigned(below(random, *count).wrapping_mul(1_000_000))
                })
            }
            Maker::Choice(Choice::Integers(values), weights) => {
                self.numbers::<Int64Array, _>(rows, nulls, |random, _| {
                    values[chosen(random, values.len(), weights.as_deref())]
                })
            }
            Maker::Choice(Choice::Floats(values), weights) => {
                self.numbers::<Float64Array, _>(rows, nulls, |random, _| {
                    values[chosen(random, values.len(), weights.as_deref())]
                })
            }
            Maker::Choice(Choice::Booleans(values), weights) => {
                let made = self.values(rows, |random, _| values[chosen(random, values.len(), weights.as_deref())]);
                Arc::new(BooleanArray::new(made.into(), nulls))
            }
            Maker::Choice(Choice::Texts(values), weights) => self.texts(rows, nulls, |random, _, out| {
                out.push_str(&values[chosen(random, values.len(), weights.as_deref())]);
            })?,
            Maker::Pattern(pattern) => self.texts(rows, nulls, |_, row, out| pattern.write(row, out))?,
            Maker::Uuid => self.texts(rows, nulls, |random, _, out| {
                let bits = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
                let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
                out.push_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
            })?,
            Maker::Fake(fake) => self.texts(rows, nulls, |random, _, out| fake.write(random, out))?,
            Maker::Email { first, last } => self.emails(rows, nulls, first.as_deref(), last.as_deref())?,
        })
    }

    /// Draws one value a row, block by block.
    fn each(&self, rows: &Range<u64>, purpose: Purpose, mut draw: impl FnMut(&mut ChaCha8Rng, u64, bool)) {
        for_each_row(self.seed, &self.name, rows, purpose, |random, row, wanted| draw(random, row, wanted));
    }

    fn values<T>(&self, rows: &Range<u64>, mut value: impl FnMut(&mut ChaCha8Rng, u64) -> T) -> Vec<T> {
        let mut values = Vec::with_capacity(length(rows));
        self.each(rows, Purpose::Values, |random, row, wanted| {
            let value = value(random, row);
            if wanted {
                values.push(value);
            }
        });
        values
    }

    fn numbers<A, T>(
        &self,
        rows: &Range<u64>,
        nulls: Option<NullBuffer>,
        value: impl FnMut(&mut ChaCha8Rng, u64) -> T,
    ) -> ArrayRef
    where
        A: FromValues<T>,
    {
        A::from_values(self.values(rows, value), nulls)
    }

    fn texts(
        &self,
        rows: &Range<u64>,
        nulls: Option<NullBuffer>,
        mut write: impl FnMut(&mut ChaCha8Rng, u64, &mut String),
    ) -> Result<ArrayRef> {
        let mut texts = Texts::new(&self.name, length(rows), nulls);
        self.each(rows, Purpose::Values, |random, row, wanted| {
            texts.push(wanted, |out| write(random, row, out));
        });
        texts.finish()
    }

    /// `first.last17@example.com`: the names are drawn again from their own columns' streams, so that they agree with
    /// those columns without the columns having to be made; the row number keeps addresses apart.
    fn emails(
        &self,
        rows: &Range<u64>,
        nulls: Option<NullBuffer>,
        first: Option<&str>,
        last: Option<&str>,
    ) -> Result<ArrayRef> {
        let redraw = |column: Option<&str>, pick: fn(&mut ChaCha8Rng) -> &'static str| {
            column.map(|column| {
                let mut names = Vec::with_capacity(length(rows));
                for_each_row(self.seed, column, rows, Purpose::Values, |random, _, wanted| {
                    let name = pick(random);
                    if wanted {
                        names.push(name);
                    }
                });
                names
            })
        };
        let (firsts, lasts) = (redraw(first, first_name), redraw(last, last_name));
        let mut texts = Texts::new(&self.name, length(rows), nulls);
        let from = rows.start;
        self.each(rows, Purpose::Values, |random, row, wanted| {
            let (own_first, own_last) = (first_name(random), last_name(random));
            let place = ["com", "net", "org"][chosen(random, 3, None)];
            texts.push(wanted, |out| {
                let at = usize::try_from(row.saturating_sub(from)).unwrap_or(usize::MAX);
                let given = |names: &Option<Vec<&'static str>>| names.as_ref().and_then(|names| names.get(at)).copied();
                push_plain(out, given(&firsts).unwrap_or(own_first));
                out.push('.');
                push_plain(out, given(&lasts).unwrap_or(own_last));
                put(out, format_args!("{}@example.{place}", row + 1));
            });
        });
        texts.finish()
    }

    fn null_buffer(&self, rows: &Range<u64>) -> Option<NullBuffer> {
        if self.nulls <= 0.0 {
            return None;
        }
        let mut valid = Vec::with_capacity(length(rows));
        self.each(rows, Purpose::Nulls, |random, _, wanted| {
            let is_valid = unit(random) >= self.nulls;
            if wanted {
                valid.push(is_valid);
            }
        });
        Some(NullBuffer::from(valid))
    }
}

/// Only the letters and digits of a name, in lower case: `O'Keefe` is no part of an address.
fn push_plain(out: &mut String, name: &str) {
    out.extend(name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()));
}

fn length(rows: &Range<u64>) -> usize {
    usize::try_from(rows.end.saturating_sub(rows.start)).unwrap_or(0)
}

/// Calls `draw` for every row of the blocks that hold `rows`, from the start of each block, since a value takes as many
/// bits as it takes; the last argument says whether the row is one of `rows`.
#[inline]
fn for_each_row(
    seed: u64,
    column: &str,
    rows: &Range<u64>,
    purpose: Purpose,
    mut draw: impl FnMut(&mut ChaCha8Rng, u64, bool),
) {
    let mut start = rows.start - rows.start % BLOCK_ROWS;
    while start < rows.end {
        let mut random = stream(seed, column, purpose, start / BLOCK_ROWS);
        let end = start.saturating_add(BLOCK_ROWS).min(rows.end);
        for row in start..end {
            draw(&mut random, row, row >= rows.start);
        }
        start = end;
    }
}

/// Which of `count` values, evenly or by the running sums of their weights. The index is in range: `count` is not 0.
#[expect(clippy::cast_possible_truncation, reason = "an index below the length of a list in memory")]
fn chosen(random: &mut ChaCha8Rng, count: usize, weights: Option<&[f64]>) -> usize {
    match weights.and_then(|sums| Some((sums, *sums.last()?))) {
        None => below(random, count as u64) as usize,
        Some((sums, total)) => {
            let mark = unit(random) * total;
            // Rounding may put the mark on the very end: then it is the first value that reaches the total.
            let at = sums.partition_point(|sum| *sum <= mark);
            if at < count { at } else { sums.partition_point(|sum| *sum < total) }
        }
    }
}

/// An array of texts while it grows.
struct Texts<'a> {
    column: &'a str,
    text: String,
    ends: Vec<i32>,
    nulls: Option<NullBuffer>,
    full: bool,
}

impl<'a> Texts<'a> {
    fn new(column: &'a str, rows: usize, nulls: Option<NullBuffer>) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self { column, text: String::with_capacity(rows.saturating_mul(16)), ends, nulls, full: false }
    }

    /// Appends what `write` writes, where the row is wanted and not NULL.
    fn push(&mut self, wanted: bool, write: impl FnOnce(&mut String)) {
        let before = self.text.len();
        write(&mut self.text);
        let at = self.ends.len() - 1;
        if !wanted || self.full || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(at)) {
            self.text.truncate(before);
        }
        if wanted {
            if let Ok(end) = i32::try_from(self.text.len()) {
                self.ends.push(end);
            } else {
                // `finish` says so; until then nothing more is kept.
                self.full = true;
                self.text.truncate(before);
                self.ends.push(self.ends[at]);
            }
        }
    }

    fn finish(self) -> Result<ArrayRef> {
        if self.full {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "column `{}` has more than 2 GiB of text in a batch of {} rows",
                    self.column,
                    self.ends.len() - 1
                ),
            )
            .hint("make smaller batches"));
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        Ok(Arc::new(StringArray::new(offsets, arrow::buffer::Buffer::from_vec(self.text.into_bytes()), self.nulls)))
    }
}

/// An array of numbers from its values.
trait FromValues<T> {
    fn from_values(values: Vec<T>, nulls: Option<NullBuffer>) -> ArrayRef;
}

impl<P: arrow::datatypes::ArrowPrimitiveType> FromValues<P::Native> for arrow::array::PrimitiveArray<P> {
    fn from_values(values: Vec<P::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(Self::new(ScalarBuffer::from(values), nulls))
    }
}
