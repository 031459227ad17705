//! Columns that become wider, where the rows need it: in the transaction of the load, so that a load that fails leaves the column
//! as it was.
//!
//! A column is changed only where the load could not be done otherwise, and only to a type that holds every value it had: whole
//! numbers to longer ones or to numbers with a fraction, `real` to `double precision`, `numeric` to more digits on either side of
//! the point. Where the server looks at each value (a bigint for an integer) the column stays as it is until one does not fit. A
//! length (`varchar(20)`) is what somebody has decided, and stays.

use super::PostgresSink;
use super::target::{Column, Target};
use super::types::{Kind, Outgoing, staged_name};
use crate::sinks::staged_table::Payload;
use crate::sinks::widen;
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::quoted;
use gristmill_model::{Error, ErrorKind, Result};

/// Digits that a `numeric` may have.
const MOST_DIGITS: i32 = 1000;

/// Digits before and after the point that a column holds whatever they are; none where it is no such number, or has no limit.
fn digits(base: &str, modifier: i32) -> Option<(i32, i32)> {
    match base {
        "int2" => Some((4, 0)),
        "int4" => Some((9, 0)),
        "int8" => Some((18, 0)),
        "numeric" if modifier >= 4 => {
            let scale = (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
            Some((((modifier - 4) >> 16) - scale, scale))
        }
        _ => None,
    }
}

/// Digits that values of a kind may have.
fn digits_of(kind: &Kind) -> Option<(i32, i32)> {
    match kind {
        Kind::Int2 => Some((5, 0)),
        Kind::Int4 => Some((10, 0)),
        Kind::Int8 => Some((19, 0)),
        Kind::Numeric(precision, scale) | Kind::WideNumeric(precision, scale) => {
            Some((i32::from(*precision) - i32::from(*scale), i32::from(*scale).max(0)))
        }
        _ => None,
    }
}

/// The type that holds what a column has and all values of a kind, where the column itself does not hold them all.
fn wider(base: &str, modifier: i32, kind: &Kind) -> Option<String> {
    match (base, kind) {
        ("int2", Kind::Int4) => return Some("integer".to_owned()),
        ("int2" | "int4", Kind::Int8) => return Some("bigint".to_owned()),
        ("float4", Kind::Float8 | Kind::Int4) => return Some("double precision".to_owned()),
        // Each of these holds the other.
        ("int2", Kind::Int2) | ("int4", Kind::Int2 | Kind::Int4) | ("int8", Kind::Int2 | Kind::Int4 | Kind::Int8) => {
            return None;
        }
        _ => {}
    }
    let ((whole, scale), (new_whole, new_scale)) = (digits(base, modifier)?, digits_of(kind)?);
    if new_whole <= whole && new_scale <= scale {
        return None;
    }
    // One more than is certain, since a smallint may be of five digits.
    let own = if base == "numeric" { whole } else { whole + 1 };
    let (whole, scale) = (own.max(new_whole), scale.max(new_scale));
    (scale >= 0 && whole + scale <= MOST_DIGITS).then(|| format!("numeric({},{scale})", whole + scale))
}

/// A condition that holds for a staged value which the column does not take as it is.
fn does_not_fit(base: &str, modifier: i32, staged: &str) -> Option<String> {
    let beyond = |least: i64, greatest: i64| format!("CAST({staged} AS numeric) NOT BETWEEN {least} AND {greatest}");
    Some(match base {
        "int2" => beyond(i16::MIN.into(), i16::MAX.into()),
        "int4" => beyond(i32::MIN.into(), i32::MAX.into()),
        "int8" => beyond(i64::MIN, i64::MAX),
        _ => {
            let (whole, _) = digits(base, modifier)?;
            format!("abs(CAST({staged} AS numeric)) >= 1e{}::numeric", whole.max(0))
        }
    })
}

impl Column {
    /// What it has to become for all values of a kind, if it can.
    fn wider(&self, kind: &Kind) -> Option<String> {
        let is_plain = self.item.is_none() && !self.is_enum && !self.is_domain && !self.generated;
        is_plain.then(|| wider(&self.base, self.modifier, kind)).flatten()
    }

    /// Whether a value of a kind may be too great for it, though it takes the kind.
    pub(super) fn may_overflow(&self, kind: &Kind) -> bool {
        self.takes(kind) && self.wider(kind).is_some()
    }
}

impl Target {
    /// Marks the columns that no row would fit as they are, and that can be made wider.
    pub(super) fn widen(&mut self, columns: &[Outgoing]) {
        for column in columns {
            let Some(known) = self.column_mut(&column.name) else { continue };
            if !known.takes(&column.kind) {
                known.becomes = known.wider(&column.kind);
            }
        }
    }

    /// Columns that become wider: their names, what they are and what they become.
    pub(super) fn widened(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let columns = self.existing.iter().flat_map(|existing| &existing.columns);
        columns.filter_map(|column| Some((column.name.as_str(), column.declared.as_str(), column.becomes.as_deref()?)))
    }

    /// What is said of them.
    pub(super) fn notes_of_wider(&self) -> impl Iterator<Item = String> {
        self.widened().map(move |(name, from, to)| widen::widened(&self.name, name, from, to))
    }
}

impl PostgresSink {
    /// The target, with the columns marked that become wider.
    pub(super) async fn target(&self, session: &Session) -> Result<Target> {
        let mut target = Target::find(session, &self.config, &self.options).await?;
        target.widen(&self.columns);
        Ok(target)
    }

    /// As [`Self::target`], for rows that are staged: columns that one of them does not fit become wider as well.
    pub(super) async fn target_of(&self, session: &Session, tables: &[Payload]) -> Result<Target> {
        let mut target = self.target(session).await?;
        let mut asked = Vec::new();
        for (place, column) in self.columns.iter().enumerate() {
            let Some(known) = target.column_mut(&column.name) else { continue };
            if known.becomes.is_none() && known.may_overflow(&column.kind) {
                let condition = does_not_fit(&known.base, known.modifier, &staged_name(place));
                asked.extend(condition.map(|condition| (column, format!("coalesce(bool_or({condition}), false)"))));
            }
        }
        if asked.is_empty() || tables.is_empty() {
            return Ok(target);
        }
        for table in tables {
            // What is said of rows that are gone is said by the commit.
            if !self.is_there(session, table).await? {
                return Ok(target);
            }
        }
        let all: Vec<String> = tables.iter().map(|table| format!("SELECT * FROM {}", self.rows_of(table))).collect();
        let conditions: Vec<&str> = asked.iter().map(|(_, condition)| condition.as_str()).collect();
        let sql = format!("SELECT {} FROM ({}) AS staged", conditions.join(", "), all.join(" UNION ALL "));
        let failed = |error| {
            server_error(&error, &self.config, &format!("cannot look at the rows for `{}`", self.options.table))
        };
        let row = session.query_one(&sql, &[]).await.map_err(failed)?;
        for (place, (column, _)) in asked.iter().enumerate() {
            let Some(known) = target.column_mut(&column.name) else { continue };
            if row.try_get::<_, bool>(place).map_err(failed)? {
                known.becomes = known.wider(&column.kind);
            }
        }
        Ok(target)
    }

    /// Columns that views are made of cannot be changed beneath them.
    ///
    /// # Errors
    /// A column that must become wider, and a view that stands on it.
    pub(super) async fn check_wider(&self, session: &Session, target: &Target) -> Result<()> {
        let (Some(oid), Some(_)) = (target.oid(), target.widened().next()) else { return Ok(()) };
        let failed = |error| server_error(&error, &self.config, &format!("cannot look up `{}`", self.options.table));
        let sql = "SELECT a.attname::text, min(r.ev_class::regclass::text) FROM pg_depend d \
                   JOIN pg_rewrite r ON r.oid = d.objid \
                   JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
                   WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 \
                   AND r.ev_class <> d.refobjid GROUP BY 1";
        for row in session.query(sql, &[&oid]).await.map_err(failed)? {
            let (column, view): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            if let Some((_, from, to)) = target.widened().find(|(name, ..)| *name == column) {
                return Err(Error::new(
                    ErrorKind::Schema,
                    format!(
                        "the column `{column}` of `{}` must become {to} (it is {from}) for the rows, and the view `{view}` is made of it",
                        self.options.table
                    ),
                )
                .hint(format!(
                    "drop the view, run: alter table {} alter column {} type {to}; and make it again. Or cast the column in the step's SQL",
                    target.sql(),
                    quoted(&column)
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | scale) + 4
    }

    #[test]
    fn a_wider_type_holds_both() {
        let becomes = |base: &str, modifier: i32, kind: Kind| wider(base, modifier, &kind).unwrap_or_default();
        assert_eq!(becomes("int2", -1, Kind::Int4), "integer");
        assert_eq!(becomes("int2", -1, Kind::Int8), "bigint");
        assert_eq!(becomes("int4", -1, Kind::Int8), "bigint");
        assert_eq!(becomes("int8", -1, Kind::Int4), "");
        assert_eq!(becomes("float4", -1, Kind::Float8), "double precision");
        assert_eq!(becomes("float4", -1, Kind::Int4), "double precision");
        assert_eq!(becomes("float8", -1, Kind::Float4), "");
        assert_eq!(becomes("int2", -1, Kind::Numeric(5, 2)), "numeric(7,2)");
        assert_eq!(becomes("int4", -1, Kind::Numeric(20, 0)), "numeric(20,0)");
        assert_eq!(becomes("int4", -1, Kind::Numeric(9, 0)), "");
        assert_eq!(becomes("int8", -1, Kind::WideNumeric(60, 10)), "numeric(60,10)");
        assert_eq!(becomes("numeric", numeric(10, 2), Kind::Numeric(12, 3)), "numeric(12,3)");
        assert_eq!(becomes("numeric", numeric(10, 2), Kind::Numeric(8, 4)), "numeric(12,4)");
        assert_eq!(becomes("numeric", numeric(10, 4), Kind::Numeric(12, 2)), "numeric(14,4)");
        assert_eq!(becomes("numeric", numeric(12, 2), Kind::Numeric(10, 2)), "");
        assert_eq!(becomes("numeric", numeric(5, 2), Kind::Int8), "numeric(21,2)");
        assert_eq!(becomes("numeric", numeric(1000, 2), Kind::Numeric(10, 5)), "");
        assert_eq!(becomes("numeric", -1, Kind::Numeric(10, 5)), "");
        // What would be another meaning, or lose something, is not wider.
        for (base, kind) in [
            ("int4", Kind::Float8),
            ("float8", Kind::Int8),
            ("float8", Kind::Numeric(5, 2)),
            ("date", Kind::Timestamp),
            ("varchar", Kind::Text),
            ("int4", Kind::Text),
            ("bool", Kind::Int2),
        ] {
            assert_eq!(wider(base, -1, &kind), None, "{base} {kind:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_beyond_the_digits() {
        assert_eq!(does_not_fit("numeric", numeric(5, 2), "c0").unwrap(), "abs(CAST(c0 AS numeric)) >= 1e3::numeric");
        assert_eq!(does_not_fit("int2", -1, "c0").unwrap(), "CAST(c0 AS numeric) NOT BETWEEN -32768 AND 32767");
        assert_eq!(does_not_fit("text", -1, "c0"), None);
    }
}
