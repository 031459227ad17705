//! Asking the server where the keys are.
//!
//! MySQL keeps no histogram that one could rely on. What it has for every index is an estimate of the rows between two
//! keys, by a look at the pages where they would be (`EXPLAIN`). So for keys that can be computed with, the range from the
//! least to the greatest is divided evenly, and parts in which the server expects too many rows are divided again, until
//! they are small enough. Other keys (texts, bytes) are found by walking along their index: every so many entries a cut.

use crate::sources::mysql::connect::{Failure, Session, server_error};
use crate::sources::mysql::names::{literal, quoted};
use crate::sources::mysql::types::{Column, Form};
use crate::sources::mysql::wanted::{Wanted, unknown_column};
use crate::units::decide::MOST_UNITS;
use crate::units::keys::{Cut, KeyKind, Mass, ascending, between, cuts};
use crate::units::share::Edge;
use arrow::datatypes::DataType;
use gristmill_model::{Error, ErrorKind, Result};
use mysql_async::consts::{ColumnFlags, ColumnType};

/// So many ranges are estimated by one statement.
const AT_ONCE: usize = 50;
/// A part with too many rows is divided into at most so many.
const PARTS: u64 = 16;
/// How often parts are divided again: enough to find a thousand keys in a corner of all 64-bit numbers.
const ROUNDS: usize = 16;
/// At most so many ranges are estimated. Each is a look at an index, a fraction of a millisecond.
const MOST_LOOKS: usize = 4000;

/// A column that units go by.
#[derive(Debug, Clone)]
pub(in super::super) struct Key {
    column: String,
    pub(in super::super) kind: KeyKind,
    /// Bytes that are no text.
    binary: bool,
    /// The index that begins with it.
    pub(in super::super) index: Option<String>,
}

/// A part of the keys: from one value up to another (the last includes it), and about how many rows.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    low: String,
    high: String,
    rows: Option<f64>,
}

impl Wanted {
    fn unplannable(&self, error: &Failure) -> Error {
        server_error(error, &self.config, &format!("cannot plan how to read `{}`", self.label()))
    }

    /// The key that units go by.
    ///
    /// # Errors
    /// A column that is not there, or whose values have no order that units could go by.
    pub(in super::super) async fn key(&self, session: &mut Session, column: &str) -> Result<Key> {
        let all = self.described(session).await?;
        let Some(found) = all.iter().find(|known| known.name_str() == column) else {
            let names: Vec<String> = all.iter().map(|known| known.name_str().into_owned()).collect();
            return Err(unknown_column(column, &self.label(), names.iter().map(String::as_str)).context("units"));
        };
        let own = Column::new(found, None);
        let unordered = found.flags().intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG)
            || matches!(found.column_type(), ColumnType::MYSQL_TYPE_GEOMETRY | ColumnType::MYSQL_TYPE_JSON)
            || own.form == Form::Bits;
        if unordered {
            // An enum, for one, is sorted by its number and compared by its text.
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{}` cannot be divided by ranges of `{column}`", self.label()),
            )
            .cause("its type has no order that ranges could follow")
            .hint(format!("use `units: {{strategy: hash, by: {column}}}`, `predicates`, or `strategy: none`")));
        }
        let kind = match &own.kind {
            DataType::Decimal128(..) | DataType::Decimal256(..) => KeyKind::Numeric,
            DataType::Float32 | DataType::Float64 => KeyKind::Float,
            DataType::Date32 => KeyKind::Date,
            DataType::Timestamp(..) => KeyKind::Timestamp { zoned: false },
            DataType::Utf8 | DataType::Binary => KeyKind::Other,
            _ => KeyKind::Integer,
        };
        let index = match self.in_schema() {
            None => None,
            Some(place) => {
                let sql = format!(
                    "SELECT index_name FROM information_schema.statistics WHERE {place} AND column_name = {} \
                     AND seq_in_index = 1 AND sub_part IS NULL AND index_type = 'BTREE' \
                     ORDER BY index_name <> 'PRIMARY', non_unique LIMIT 1",
                    literal(column)
                );
                session.value(&sql).await.map_err(|error| self.unplannable(&error))?
            }
        };
        Ok(Key { column: column.to_owned(), kind, binary: own.kind == DataType::Binary, index })
    }

    /// Cuts between keys so that about `target` rows lie between any two, in the server's order, and the rows without a
    /// key. `share` is the part of the table's rows that the condition leaves.
    ///
    /// # Errors
    /// Keys that cannot be computed with, and that no index has.
    pub(in super::super) async fn cuts(
        &self,
        session: &mut Session,
        key: &Key,
        rows: f64,
        share: f64,
        target: f64,
    ) -> Result<(Vec<Cut>, f64)> {
        let nulls = self.nulls(session, key).await?;
        let found = match key.kind {
            KeyKind::Other => self.walk(session, key, target, share).await?,
            kind => {
                let Some((low, high)) = self.extremes(session, key).await? else { return Ok((Vec::new(), nulls)) };
                let mut parts = self.parts(session, key, low, high, target / share.max(1e-6)).await?;
                let known: f64 = parts.iter().filter_map(|part| part.rows).sum();
                if known < 1.0 {
                    // Nothing was estimated: evenly, then.
                    let even = rows / parts.len().max(1) as f64;
                    parts.iter_mut().for_each(|part| part.rows = Some(even));
                }
                let scale = if known < 1.0 { 1.0 } else { share };
                let masses: Vec<Mass> = parts
                    .into_iter()
                    .map(|part| Mass::Between(part.low, part.high, part.rows.unwrap_or(0.0) * scale))
                    .collect();
                ascending(kind, cuts(&masses, kind, target))
            }
        };
        let shown = found
            .into_iter()
            .map(|cut| Cut { edge: Edge { value: key.shown(&cut.edge.value), after: cut.edge.after }, ..cut })
            .collect();
        Ok((shown, nulls * share))
    }

    async fn extremes(&self, session: &mut Session, key: &Key) -> Result<Option<(String, String)>> {
        let column = quoted(&key.column);
        let mut conditions: Vec<String> = Vec::new();
        if key.kind.is_time() {
            // What is no date sorts before all of them, and is part of the first unit.
            conditions.push(format!("{column} >= '0001-01-01'"));
        }
        if key.index.is_none() {
            // It will be a scan anyway.
            conditions.extend(self.filter.as_ref().map(|filter| format!("(\n{filter}\n)")));
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let sql = format!("SELECT MIN({column}), MAX({column}) FROM {}{condition}", self.relation_sql());
        let rows = session.ask(&sql).await.map_err(|error| self.unplannable(&error))?;
        Ok(match rows.into_iter().next().and_then(|row| <[Option<String>; 2]>::try_from(row).ok()) {
            Some([Some(low), Some(high)]) => Some((low, high)),
            _ => None,
        })
    }

    /// Rows without a key, about.
    async fn nulls(&self, session: &mut Session, key: &Key) -> Result<f64> {
        if key.index.is_none() {
            return Ok(0.0);
        }
        let condition = format!("{} IS NULL", quoted(&key.column));
        let found = self.estimates(session, key, &[condition]).await?;
        Ok(found.first().copied().flatten().unwrap_or(0.0))
    }

    /// The keys from `low` to `high`, divided until no part has much more than `target` rows.
    async fn parts(
        &self,
        session: &mut Session,
        key: &Key,
        low: String,
        high: String,
        target: f64,
    ) -> Result<Vec<Part>> {
        let whole = Part { low, high, rows: None };
        if key.index.is_none() {
            return Ok(vec![whole]);
        }
        let mut parts = split(key.kind, &whole, u64::from(MOST_UNITS));
        let mut looks = 0;
        for _ in 0..ROUNDS {
            let unknown: Vec<usize> = (0..parts.len()).filter(|index| parts[*index].rows.is_none()).collect();
            looks += unknown.len();
            for some in unknown.chunks(AT_ONCE) {
                let conditions: Vec<String> =
                    some.iter().map(|index| key.condition(&parts[*index], index + 1 == parts.len())).collect();
                let found = self.estimates(session, key, &conditions).await?;
                for (index, rows) in some.iter().zip(found.into_iter().chain(std::iter::repeat(None))) {
                    parts[*index].rows = Some(rows.unwrap_or(0.0));
                }
            }
            let (next, divided) = divide_again(key.kind, parts, target);
            parts = next;
            if !divided || looks >= MOST_LOOKS {
                break;
            }
        }
        Ok(parts)
    }

    /// How many rows the server expects for each condition on the key.
    async fn estimates(&self, session: &mut Session, key: &Key, conditions: &[String]) -> Result<Vec<Option<f64>>> {
        let Some(index) = &key.index else { return Ok(Vec::new()) };
        let selects: Vec<String> = conditions
            .iter()
            .map(|condition| {
                format!("SELECT 1 FROM {} FORCE INDEX ({}) WHERE {condition}", self.relation_sql(), quoted(index))
            })
            .collect();
        let sql = format!("EXPLAIN {}", selects.join(" UNION ALL "));
        let rows = session.ask_named(&sql).await.map_err(|error| self.unplannable(&error))?;
        let found = rows
            .iter()
            .filter(|row| row.get("select_type").and_then(Option::as_deref).is_none_or(|kind| kind != "UNION RESULT"));
        Ok(found.map(|row| row.get("rows").and_then(Option::as_deref).and_then(|text| text.parse().ok())).collect())
    }

    /// Every so many entries of the index a cut.
    async fn walk(&self, session: &mut Session, key: &Key, target: f64, share: f64) -> Result<Vec<Cut>> {
        let Some(index) = &key.index else {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`{}` cannot be divided by ranges of `{}`", self.label(), key.column),
            )
            .cause("no index begins with it, and nothing can be computed between two of its values")
            .hint(format!("use `units: {{strategy: hash, by: {}}}`, or `strategy: none`", key.column)));
        };
        let column = quoted(&key.column);
        let step = (target / share.max(1e-6)).round().max(1.0) as u64;
        let value = key.value();
        let mut found: Vec<Cut> = Vec::new();
        while found.len() < MOST_UNITS as usize * 4 {
            let from = match found.last() {
                None => format!("{column} IS NOT NULL"),
                Some(cut) => format!("{column} >= {}", key.sql(&cut.edge.value)),
            };
            let next = |condition: &str, offset: u64| {
                format!(
                    "SELECT {value} FROM {} FORCE INDEX ({}) WHERE {condition} ORDER BY {column} LIMIT 1 OFFSET {offset}",
                    self.relation_sql(),
                    quoted(index)
                )
            };
            let ask = session.value(&next(&from, step)).await.map_err(|error| self.unplannable(&error))?;
            let Some(mut text) = ask else { break };
            if let Some(last) = found.last()
                && last.edge.value == text
            {
                // One key alone has more rows than a unit should: the next one, then.
                let above = format!("{column} > {}", key.sql(&last.edge.value));
                match session.value(&next(&above, 0)).await.map_err(|error| self.unplannable(&error))? {
                    Some(other) => text = other,
                    None => break,
                }
            }
            found.push(Cut { edge: Edge { value: text, after: false }, rows: target });
        }
        Ok(found)
    }
}

impl Key {
    /// A value as [`super::super::names::Mysql`] takes it, and people see it.
    pub(in super::super) fn shown(&self, value: &str) -> String {
        match self.kind {
            KeyKind::Other if self.binary => format!("x'{}'", value.to_ascii_lowercase()),
            KeyKind::Integer | KeyKind::Numeric | KeyKind::Float => value.to_owned(),
            _ => format!("'{value}'"),
        }
    }

    /// What to select so that [`Self::shown`] understands it.
    pub(in super::super) fn value(&self) -> String {
        let column = quoted(&self.column);
        if self.binary { format!("HEX({column})") } else { format!("CAST({column} AS CHAR)") }
    }

    fn sql(&self, value: &str) -> String {
        use crate::units::share::Dialect as _;
        crate::sources::mysql::names::Mysql.literal(&self.shown(value))
    }

    fn condition(&self, part: &Part, is_last: bool) -> String {
        let (column, sign) = (quoted(&self.column), if is_last { "<=" } else { "<" });
        format!("{column} >= {} AND {column} {sign} {}", self.sql(&part.low), self.sql(&part.high))
    }
}

/// A part as several of the same width; itself alone where nothing lies between its ends.
fn split(kind: KeyKind, part: &Part, into: u64) -> Vec<Part> {
    let mut inside = Vec::new();
    let mut into = into;
    // Where there are fewer values than that, fewer parts.
    while into >= 2 && inside.is_empty() {
        let places: Vec<f64> = (1..into).map(|place| place as f64 / into as f64).collect();
        inside = between(kind, &part.low, &part.high, &places);
        into /= 2;
    }
    inside.dedup();
    let lows = std::iter::once(part.low.clone()).chain(inside.clone());
    let highs = inside.iter().cloned().chain(std::iter::once(part.high.clone()));
    lows.zip(highs).map(|(low, high)| Part { low, high, rows: None }).collect()
}

/// Divides the parts that have too many rows; whether there were any.
fn divide_again(kind: KeyKind, parts: Vec<Part>, target: f64) -> (Vec<Part>, bool) {
    let mut next = Vec::with_capacity(parts.len());
    let mut divided = false;
    for part in parts {
        let rows = part.rows.unwrap_or(0.0);
        if rows <= target * 1.5 {
            next.push(part);
            continue;
        }
        let wanted = (rows / target).ceil() as u64 + 1;
        let pieces = split(kind, &part, wanted.clamp(2, PARTS));
        if pieces.len() > 1 {
            divided = true;
            next.extend(pieces);
        } else {
            next.push(part);
        }
    }
    (next, divided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Divides as `parts` does, with a server that knows exactly.
    fn divided(values: &[i128], target: f64) -> Vec<Part> {
        let whole = Part { low: values[0].to_string(), high: values[values.len() - 1].to_string(), rows: None };
        let mut parts = split(KeyKind::Integer, &whole, 8);
        for _ in 0..ROUNDS {
            let last = parts.len() - 1;
            for (index, part) in parts.iter_mut().enumerate() {
                let (low, high): (i128, i128) = (part.low.parse().unwrap(), part.high.parse().unwrap());
                let inside = values.iter().filter(|value| **value >= low && (**value < high || index == last));
                part.rows = Some(inside.count() as f64);
            }
            let (next, again) = divide_again(KeyKind::Integer, parts, target);
            parts = next;
            if !again {
                break;
            }
        }
        parts
    }

    proptest! {
        #[test]
        fn parts_meet_and_no_part_with_many_keys_is_large(
            corner in any::<i64>(),
            near in prop::collection::btree_set(0i128..3000, 2..300),
            far in prop::collection::vec(any::<u64>(), 0..5),
        ) {
            let mut values: Vec<i128> = near.iter().map(|value| i128::from(corner) + value).collect();
            values.extend(far.iter().map(|value| i128::from(*value)));
            values.sort_unstable();
            values.dedup();
            let parts = divided(&values, 20.0);
            for pair in parts.windows(2) {
                prop_assert_eq!(&pair[0].high, &pair[1].low);
            }
            prop_assert!(parts.iter().all(|part| part.rows.unwrap_or(0.0) <= 30.0), "{:?}", parts);
        }
    }

    #[test]
    fn what_has_nothing_between_stays_one_part() {
        let part = |low: &str, high: &str| Part { low: low.into(), high: high.into(), rows: Some(1e6) };
        assert_eq!(split(KeyKind::Integer, &part("5", "5"), 16).len(), 1);
        assert_eq!(split(KeyKind::Integer, &part("5", "6"), 16).len(), 1);
        assert!(split(KeyKind::Integer, &part("5", "12"), 16).len() > 1);
        assert_eq!(divide_again(KeyKind::Integer, vec![part("5", "6")], 10.0), (vec![part("5", "6")], false));
    }
}
