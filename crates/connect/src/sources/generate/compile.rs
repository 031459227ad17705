//! From rules to columns: everything that can be wrong with a rule is found here, before a row is made.

use super::kinds::{Kind, kinds};
use super::values::{Choice, Fake, Maker, Pattern};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, TimeUnit};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use gristmill_model::spec::{ColumnRule, GenerateSpec, Literal};
use gristmill_model::{Error, ErrorKind, one_of};
use std::collections::HashSet;

/// A column that can be made: its name, where its random bits come from, and what is made of them.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) seed: u64,
    pub(super) nulls: f64,
    pub(super) maker: Maker,
}

impl Column {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn field(&self) -> Field {
        Field::new(&self.name, self.maker.data_type(), self.nulls > 0.0)
    }

    /// Bytes of a value in memory, about.
    pub(super) fn width(&self) -> u64 {
        self.maker.data_type().primitive_width().map_or(20, |width| width as u64)
    }
}

impl Maker {
    /// The type of the values it makes.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Sequence { .. } | Self::Integer { .. } | Self::Choice(Choice::Integers(_), _) => DataType::Int64,
            Self::Float { .. } | Self::Choice(Choice::Floats(_), _) => DataType::Float64,
            Self::Decimal { precision, scale, .. } => DataType::Decimal128(*precision, *scale),
            Self::Boolean | Self::Choice(Choice::Booleans(_), _) => DataType::Boolean,
            Self::Date { .. } => DataType::Date32,
            Self::Timestamp { .. } => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Choice(Choice::Texts(_), _) | Self::Pattern(_) | Self::Uuid | Self::Fake(_) | Self::Email { .. } => {
                DataType::Utf8
            }
        }
    }
}

/// Compiles every rule, or says everything that is wrong.
pub(super) fn compile(spec: &GenerateSpec) -> Result<Vec<Column>, Vec<Error>> {
    let ready;
    let rules = match (spec.table, spec.columns.as_slice()) {
        (Some(table), []) => {
            ready = super::table_rules(table);
            ready.as_slice()
        }
        (None, []) => {
            return Err(vec![
                Error::new(ErrorKind::Config, "nothing says what to generate")
                    .hint("`table: people`, `table: transactions`, or `columns:` with a name and a kind each"),
            ]);
        }
        (Some(_), _) => {
            return Err(vec![
                Error::new(ErrorKind::Config, "`table` and `columns` exclude each other")
                    .hint("leave one of them out; the columns of a ready-made table cannot be changed"),
            ]);
        }
        (None, rules) => rules,
    };
    let mut errors = Vec::new();
    let mut columns = Vec::with_capacity(rules.len());
    let mut names = HashSet::new();
    for rule in rules {
        if rule.name.is_empty() {
            errors.push(Error::new(ErrorKind::Config, "a column has no name").hint("give it a `name`"));
        } else if !names.insert(rule.name.to_lowercase()) {
            // Names that differ in case only would be one column to most databases.
            errors.push(
                Error::new(ErrorKind::Config, format!("column `{}` is there twice", rule.name))
                    .hint("rename one of them"),
            );
        }
        match column(rule, rules, spec.seed) {
            Ok(column) => {
                if let Maker::Sequence { start, count: None } = column.maker
                    && start.checked_add_unsigned(spec.rows.saturating_sub(1)).is_none()
                {
                    errors.push(
                        wrong(format!("a sequence of {} rows that begins at {start} goes beyond 64 bits", spec.rows))
                            .hint("begin at a smaller `min`, or name a `max` after which it starts over")
                            .context(format!("column `{}`", rule.name)),
                    );
                }
                columns.push(column);
            }
            Err(problems) => {
                errors.extend(problems.into_iter().map(|error| error.context(format!("column `{}`", rule.name))));
            }
        }
    }
    if errors.is_empty() { Ok(columns) } else { Err(errors) }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn column(rule: &ColumnRule, rules: &[ColumnRule], seed: u64) -> Result<Column, Vec<Error>> {
    let Some(kind) = kinds().iter().find(|kind| kind.name == rule.kind) else {
        let names = kinds().iter().map(|kind| kind.name);
        return Err(vec![wrong(format!("unknown kind `{}`", rule.kind)).hint(one_of(&rule.kind, names))]);
    };
    let mut errors = unused_keys(rule, kind);
    if !(0.0..=1.0).contains(&rule.nulls) {
        errors.push(
            wrong(format!("`nulls` is a share between 0 and 1, not `{}`", rule.nulls))
                .hint("`nulls: 0.05` leaves one value in twenty out"),
        );
    }
    match maker(rule, rules) {
        Ok(maker) if errors.is_empty() => Ok(Column { name: rule.name.clone(), seed, nulls: rule.nulls, maker }),
        Ok(_) => Err(errors),
        Err(error) => {
            errors.push(error);
            Err(errors)
        }
    }
}

/// A key that a kind would ignore is an error: whoever wrote it expects something of it.
fn unused_keys(rule: &ColumnRule, kind: &Kind) -> Vec<Error> {
    let written = [
        ("min", rule.min.is_some()),
        ("max", rule.max.is_some()),
        ("values", !rule.values.is_empty()),
        ("weights", !rule.weights.is_empty()),
        ("precision", rule.precision.is_some()),
        ("scale", rule.scale.is_some()),
        ("pattern", rule.pattern.is_some()),
    ];
    let unused = written.iter().filter(|(key, there)| *there && !kind.takes.contains(key));
    unused
        .map(|(key, _)| {
            let takes: Vec<String> = kind.takes.iter().map(|key| format!("`{key}`")).collect();
            let hint =
                if takes.is_empty() { "`nulls` only".to_owned() } else { format!("{} and `nulls`", takes.join(", ")) };
            wrong(format!("a `{}` takes no `{key}`", kind.name)).hint(format!("it takes {hint}"))
        })
        .collect()
}

fn maker(rule: &ColumnRule, rules: &[ColumnRule]) -> Result<Maker, Error> {
    Ok(match rule.kind.as_str() {
        "sequence" => {
            let start = bound(rule.min.as_ref(), "min", 1, integer)?;
            let count = match rule.max.as_ref() {
                None => None,
                Some(_) => {
                    let last = bound(rule.max.as_ref(), "max", i64::MAX, integer)?;
                    ordered(rule, start, last)?;
                    // Zero where all 2^64 numbers are meant: the same as no end.
                    Some(last.wrapping_sub(start).cast_unsigned().wrapping_add(1)).filter(|count| *count > 0)
                }
            };
            Maker::Sequence { start, count }
        }
        "integer" => {
            let min = bound(rule.min.as_ref(), "min", 0, integer)?;
            let max = bound(rule.max.as_ref(), "max", 1_000_000, integer)?;
            ordered(rule, min, max)?;
            Maker::Integer { min, count: max.wrapping_sub(min).cast_unsigned().wrapping_add(1) }
        }
        "float" => {
            let min = bound(rule.min.as_ref(), "min", 0.0, float)?;
            let max = bound(rule.max.as_ref(), "max", 1.0, float)?;
            ordered(rule, min, max)?;
            if !(max - min).is_finite() {
                return Err(wrong("`min` and `max` are too far apart").hint("their difference must be a finite number"));
            }
            Maker::Float { min, max }
        }
        "decimal" => decimal(rule)?,
        "boolean" => Maker::Boolean,
        "date" => {
            let min = bound(rule.min.as_ref(), "min", first_day(), date)?;
            let max = bound(rule.max.as_ref(), "max", last_day(), date)?;
            ordered(rule, min, max)?;
            let (first, last) = (days(min), days(max));
            Maker::Date { min: first, count: u64::from(last.abs_diff(first)) + 1 }
        }
        "timestamp" => {
            let min = bound(rule.min.as_ref(), "min", first_day().and_time(NaiveTime::MIN), |text| time(text, false))?;
            let max = bound(rule.max.as_ref(), "max", end_of(last_day()), |text| time(text, true))?;
            ordered(rule, min, max)?;
            let seconds = max.and_utc().timestamp().abs_diff(min.and_utc().timestamp());
            let micros = min.and_utc().timestamp_micros();
            Maker::Timestamp { min: micros, count: seconds + 1 }
        }
        "choice" => choice(rule)?,
        "constant" => {
            if rule.values.len() != 1 {
                return Err(wrong(format!("a `constant` has one value, not {}", rule.values.len()))
                    .hint("`values: [open]`; for several values take `choice`"));
            }
            Maker::Choice(Choice::new(&rule.values)?, None)
        }
        "pattern" => {
            let start = bound(rule.min.as_ref(), "min", 1, integer)?;
            let Some(pattern) = &rule.pattern else {
                return Err(wrong("a `pattern` column needs the key `pattern`").hint("`pattern: \"ORD-{:06}\"`"));
            };
            Maker::Pattern(Pattern::parse(pattern, start)?)
        }
        "uuid" => Maker::Uuid,
        "email" => {
            let named = |kind: &str| rules.iter().find(|rule| rule.kind == kind).map(|rule| rule.name.clone());
            Maker::Email { first: named("first_name"), last: named("last_name") }
        }
        fake => Maker::Fake(
            Fake::from_kind(fake).ok_or_else(|| Error::internal(format!("kind `{fake}` is listed but not made")))?,
        ),
    })
}

/// A bound of a rule as text, understood by `parse` (whose error says what it should have been).
fn bound<T>(
    literal: Option<&Literal>,
    key: &str,
    default: T,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<T, Error> {
    let Some(literal) = literal else { return Ok(default) };
    // A template renders to text, so text is read like the value it spells; a double prints as it was written.
    let text = literal.to_string();
    parse(text.trim()).map_err(|what| wrong(format!("`{key}` is `{text}`, which is not {what}")))
}

fn ordered<T: PartialOrd>(rule: &ColumnRule, min: T, max: T) -> Result<(), Error> {
    if min <= max {
        return Ok(());
    }
    let say = |literal: Option<&Literal>| literal.map_or_else(|| "its default".to_owned(), |text| format!("`{text}`"));
    Err(wrong(format!("`min` ({}) is greater than `max` ({})", say(rule.min.as_ref()), say(rule.max.as_ref())))
        .hint("give both `min` and `max`, the lesser first"))
}

fn integer(text: &str) -> Result<i64, &'static str> {
    text.parse().map_err(|_| "a whole number of 64 bits")
}

fn float(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or("a finite number")
}

fn date(text: &str) -> Result<NaiveDate, &'static str> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .filter(|day| day.and_time(NaiveTime::MIN).and_utc().timestamp() >= YEAR_1)
        .ok_or("a day such as `2024-01-31`")
}

/// 0001-01-01 in seconds: what comes before is not a date in most databases.
const YEAR_1: i64 = -62_135_596_800;

fn time(text: &str, end: bool) -> Result<NaiveDateTime, &'static str> {
    if let Ok(day) = date(text) {
        return Ok(if end { end_of(day) } else { day.and_time(NaiveTime::MIN) });
    }
    ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), format).ok())
        .filter(|time| time.nanosecond() == 0 && time.and_utc().timestamp() >= YEAR_1)
        .ok_or("a time such as `2024-01-31 18:30:00`")
}

fn end_of(day: NaiveDate) -> NaiveDateTime {
    day.and_time(NaiveTime::MIN) + chrono::TimeDelta::seconds(86_399)
}

fn first_day() -> NaiveDate {
    NaiveDate::from_ymd_opt(2020, 1, 1).unwrap_or_default()
}

fn last_day() -> NaiveDate {
    NaiveDate::from_ymd_opt(2024, 12, 31).unwrap_or_default()
}

fn days(day: NaiveDate) -> i32 {
    day.to_epoch_days()
}

fn decimal(rule: &ColumnRule) -> Result<Maker, Error> {
    let precision = rule.precision.unwrap_or(12);
    let scale = rule.scale.unwrap_or(2);
    if precision == 0 || precision > DECIMAL128_MAX_PRECISION {
        return Err(wrong(format!("`precision` is `{precision}`")).hint("1 to 38"));
    }
    let Some(digits) = u8::try_from(scale).ok().filter(|scale| *scale <= precision) else {
        return Err(wrong(format!("`scale` is `{scale}`, with a `precision` of {precision}"))
            .hint("from 0 up to the precision"));
    };
    let limit = 10_i128.pow(u32::from(precision)) - 1;
    let parse =
        |text: &str| unscaled(text, digits).ok_or("a number with at most as many digits after the point as `scale`");
    let default_max = 10_000_i128.checked_mul(10_i128.pow(u32::from(digits))).map_or(limit, |max| max.min(limit));
    let min = bound(rule.min.as_ref(), "min", 0, parse)?;
    let max = bound(rule.max.as_ref(), "max", default_max, parse)?;
    ordered(rule, min, max)?;
    for (key, value) in [("min", min), ("max", max)] {
        if value.abs() > limit {
            return Err(wrong(format!("`{key}` does not fit decimal({precision},{scale})")).hint("raise `precision`"));
        }
    }
    Ok(Maker::Decimal { min, last: max.abs_diff(min), precision, scale })
}

/// A decimal number in units of its last digit; `None` if it is not one, or has more digits after the point.
fn unscaled(text: &str, digits: u8) -> Option<i128> {
    let (negative, number) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    let only_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !only_digits(whole) || !only_digits(fraction) {
        return None;
    }
    let missing = usize::from(digits).checked_sub(fraction.len())?;
    let all = format!("0{whole}{fraction}{}", "0".repeat(missing));
    let value: i128 = all.parse().ok()?;
    Some(if negative { -value } else { value })
}

fn choice(rule: &ColumnRule) -> Result<Maker, Error> {
    if rule.values.is_empty() {
        return Err(wrong("a `choice` needs `values`").hint("`values: [open, closed]`"));
    }
    let values = Choice::new(&rule.values)?;
    if rule.weights.is_empty() {
        return Ok(Maker::Choice(values, None));
    }
    if rule.weights.len() != rule.values.len() {
        return Err(wrong(format!("{} weights for {} values", rule.weights.len(), rule.values.len()))
            .hint("one weight for each value, in the same order"));
    }
    if let Some(weight) = rule.weights.iter().find(|weight| !weight.is_finite() || **weight < 0.0) {
        return Err(
            wrong(format!("a weight is `{weight}`")).hint("weights are 0 or more; only their proportions count")
        );
    }
    let mut sum = 0.0;
    let bounds: Vec<f64> = rule
        .weights
        .iter()
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    if sum <= 0.0 || !sum.is_finite() {
        return Err(
            wrong("the weights add up to nothing that can be divided").hint("give at least one a weight above 0")
        );
    }
    Ok(Maker::Choice(values, Some(bounds)))
}

impl Choice {
    /// Values of one type: whole numbers become doubles where a double is among them.
    fn new(values: &[Literal]) -> Result<Self, Error> {
        let all = |test: fn(&Literal) -> bool| values.iter().all(test);
        if all(|value| matches!(value, Literal::Int(_))) {
            return Ok(Self::Integers(
                values
                    .iter()
                    .filter_map(|value| if let Literal::Int(value) = value { Some(*value) } else { None })
                    .collect(),
            ));
        }
        if all(|value| matches!(value, Literal::Int(_) | Literal::Float(_))) {
            #[expect(clippy::cast_precision_loss, reason = "a list that holds doubles is a list of doubles")]
            return Ok(Self::Floats(
                values
                    .iter()
                    .filter_map(|value| match value {
                        Literal::Int(value) => Some(*value as f64),
                        Literal::Float(value) => Some(*value),
                        Literal::Bool(_) | Literal::Text(_) => None,
                    })
                    .collect(),
            ));
        }
        if all(|value| matches!(value, Literal::Bool(_))) {
            return Ok(Self::Booleans(values.iter().map(|value| *value == Literal::Bool(true)).collect()));
        }
        if all(|value| matches!(value, Literal::Text(_))) {
            return Ok(Self::Texts(values.iter().map(ToString::to_string).collect()));
        }
        Err(wrong("the `values` are of different types").hint("put quotes around all of them to make them text"))
    }
}
