//! Columns that become wider, where the rows need it: with the other changes of the table, before the transaction of the load.
//!
//! The rules are those of PostgreSQL: a column is changed only where the load could not be done otherwise, and only to a type that
//! holds every value it had. A column is said anew as a whole by MODIFY, so what else is said of it is taken from the server's own
//! words (`SHOW CREATE TABLE`): where those are not understood, it is left alone, and the load refused as before.

use super::MysqlSink;
use super::column::Column;
use super::target::Target;
use super::types::{Kind, Outgoing, staged_name, whole};
use crate::sinks::staged_table::Payload;
use crate::sinks::widen;
use crate::sources::mysql::connect::{Failure, Session, server_error};
use crate::sources::mysql::names::quoted;
use gristmill_model::Result;

/// Digits that a decimal may have, and after the point, in every version.
const MOST_DIGITS: u32 = 65;
const MOST_SCALE: u32 = 30;

/// A number's type, as far as it can be wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Whole { bits: u8, signed: bool },
    Float,
    Decimal { whole: u32, scale: u32 },
}

impl Number {
    fn of_column(declared: &str) -> Option<Self> {
        // MySQL 5.7 and MariaDB say `int(11)`; a `tinyint(1)` is a boolean.
        let (name, rest) = declared.split_at(declared.find(['(', ' ']).unwrap_or(declared.len()));
        let signed = match rest.split_once(')').map_or(rest, |(_, after)| after).trim() {
            "" => true,
            "unsigned" => false,
            _ => return None,
        };
        let of = |bits| Some(Self::Whole { bits, signed });
        match name {
            "tinyint" if rest.starts_with("(1)") => None,
            "tinyint" => of(8),
            "smallint" => of(16),
            "mediumint" => of(24),
            "int" => of(32),
            "bigint" => of(64),
            "float" if rest.is_empty() => Some(Self::Float),
            "decimal" if signed => {
                let (precision, scale) = rest.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
                let (precision, scale): (u32, u32) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                Some(Self::Decimal { whole: precision.checked_sub(scale)?, scale })
            }
            _ => None,
        }
    }

    /// Digits before and after the point that it holds whatever they are; those that its own values may have.
    fn digits(self) -> Option<((u32, u32), u32)> {
        match self {
            Self::Whole { bits, signed } => {
                let (certain, most) = match (bits, signed) {
                    (8, _) => (2, 3),
                    (16, _) => (4, 5),
                    (24, true) => (6, 7),
                    (24, false) => (7, 8),
                    (32, _) => (9, 10),
                    (_, true) => (18, 19),
                    (_, false) => (19, 20),
                };
                Some(((certain, 0), most))
            }
            Self::Decimal { whole, scale } => Some(((whole, scale), whole)),
            Self::Float => None,
        }
    }
}

/// Digits before and after the point that values of a kind may have.
fn digits_of(kind: &Kind) -> Option<(u32, u32)> {
    match kind {
        Kind::Whole { bits, signed } => {
            Number::Whole { bits: *bits, signed: *signed }.digits().map(|(_, most)| (most, 0))
        }
        Kind::Decimal(precision, scale) => Some((u32::from(precision.saturating_sub(*scale)), u32::from(*scale))),
        _ => None,
    }
}

/// The type that holds what a column has and all values of a kind, where the column itself does not hold them all.
fn wider(declared: &str, kind: &Kind) -> Option<String> {
    let number = Number::of_column(declared)?;
    match (number, kind) {
        (Number::Whole { bits, signed }, Kind::Whole { bits: new, signed: new_signed }) => {
            if signed == *new_signed {
                return (*new > bits).then(|| whole(*new, signed));
            }
            // Numbers without a sign fit twice as many bits with one; a column without a sign stays so.
            return match (signed, *new) {
                (true, 8 | 16 | 32) if *new >= bits => Some(whole(*new * 2, true)),
                _ => None,
            };
        }
        (Number::Float, Kind::Double | Kind::Whole { bits: 0..=32, .. }) => return Some("double".to_owned()),
        _ => {}
    }
    let (((whole, scale), own), (new_whole, new_scale)) = (number.digits()?, digits_of(kind)?);
    if new_whole <= whole && new_scale <= scale {
        return None;
    }
    let (whole, scale) = (own.max(new_whole), scale.max(new_scale));
    (whole + scale <= MOST_DIGITS && scale <= MOST_SCALE).then(|| format!("decimal({},{scale})", whole + scale))
}

/// A condition that holds for a staged value which the column does not take as it is.
fn does_not_fit(declared: &str, staged: &str) -> Option<String> {
    Some(match Number::of_column(declared)? {
        Number::Whole { bits, signed: true } => {
            let greatest = (1_i128 << (bits - 1)) - 1;
            format!("({staged} < {} OR {staged} > {greatest})", -greatest - 1)
        }
        Number::Whole { bits, signed: false } => format!("({staged} < 0 OR {staged} > {})", (1_i128 << bits) - 1),
        Number::Decimal { whole, .. } => {
            let limit = format!("1{}", "0".repeat(usize::try_from(whole).unwrap_or_default()));
            format!("({staged} >= {limit} OR {staged} <= -{limit})")
        }
        Number::Float => return None,
    })
}

impl Column {
    /// What it has to become for all values of a kind, if it can.
    fn wider(&self, kind: &Kind) -> Option<String> {
        if self.generated { None } else { wider(&self.declared, kind) }
    }
}

impl Target {
    /// Marks the columns that no row would fit as they are, and that can be made wider.
    pub(super) fn widen(&mut self, columns: &[Outgoing]) {
        for column in columns {
            let Some(known) = self.column_mut(&column.name) else { continue };
            if !known.takes(column) {
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

impl MysqlSink {
    /// The target, with the columns marked that become wider.
    pub(super) async fn target(&self, session: &mut Session) -> Result<Target> {
        let mut target = Target::find(session, &self.config, &self.options).await?;
        target.widen(&self.columns);
        self.say_anew(session, &mut target).await?;
        Ok(target)
    }

    /// The target for rows that are staged: columns that one of them does not fit become wider as well.
    pub(super) async fn target_of(
        &self,
        session: &mut Session,
        mut target: Target,
        tables: &[Payload],
    ) -> Result<Target> {
        let mut asked = Vec::new();
        for (place, column) in self.columns.iter().enumerate() {
            let Some(known) = target.column(&column.name) else { continue };
            if known.becomes.is_none() && known.takes(column) && known.wider(&column.kind).is_some() {
                let condition = does_not_fit(&known.declared, &staged_name(place));
                asked.extend(condition.map(|condition| (column, format!("MAX({condition})"))));
            }
        }
        if asked.is_empty() {
            return Ok(target);
        }
        self.must_be_there(session, tables).await?;
        let conditions: Vec<&str> = asked.iter().map(|(_, condition)| condition.as_str()).collect();
        let doing = format!("cannot look at the rows for `{}`", self.options.table);
        for table in tables {
            let sql = format!("SELECT {} FROM {}", conditions.join(", "), table.in_backticks());
            let row = session.ask(&sql).await.map_err(|error| self.refused(&error, &doing))?.into_iter().next();
            for ((column, _), is_beyond) in asked.iter().zip(row.unwrap_or_default()) {
                if let (Some("1"), Some(known)) = (is_beyond.as_deref(), target.column_mut(&column.name)) {
                    known.becomes = known.wider(&column.kind);
                }
            }
        }
        self.say_anew(session, &mut target).await?;
        Ok(target)
    }

    /// Finds the words for columns that become wider; those for which there are none stay as they are.
    async fn say_anew(&self, session: &mut Session, target: &mut Target) -> Result<()> {
        if target.widened().next().is_none() {
            return Ok(());
        }
        let sql = format!("SHOW CREATE TABLE {}", target.sql());
        let failed = |error: Failure| {
            server_error(&error, &self.config, &format!("cannot look up the columns of `{}`", self.options.table))
        };
        let made = session.ask(&sql).await.map_err(failed)?.into_iter().next();
        let made = made.and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_default();
        for column in target.existing.iter_mut().flat_map(|existing| &mut existing.columns) {
            let Some(to) = &column.becomes else { continue };
            column.anew = definition(&made, &column.name, &column.declared, to);
            if column.anew.is_none() {
                column.becomes = None;
            }
        }
        Ok(())
    }
}

/// A column as the server says it in `CREATE TABLE`, with another type.
fn definition(made: &str, column: &str, declared: &str, to: &str) -> Option<String> {
    let name = format!("{} ", quoted(column));
    let line = made.lines().map(str::trim).find_map(|line| line.strip_prefix(&name))?;
    let line = line.strip_suffix(',').unwrap_or(line);
    let rest = line.get(declared.len()..).filter(|rest| rest.is_empty() || rest.starts_with(' '))?;
    let is_type = line.get(..declared.len()).is_some_and(|said| said.eq_ignore_ascii_case(declared));
    is_type.then(|| format!("{name}{to}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_type_holds_both() {
        let of = |bits: u8, signed: bool| Kind::Whole { bits, signed };
        for (declared, kind, becomes) in [
            ("smallint(6)", of(32, true), Some("int")),
            ("int", of(64, true), Some("bigint")),
            ("int(10) unsigned", of(64, false), Some("bigint unsigned")),
            ("int(11)", of(32, false), Some("bigint")),
            ("int(11)", of(16, false), None),
            ("int(10) unsigned", of(64, true), None),
            ("bigint(20)", of(64, false), None),
            ("int(10) unsigned zerofill", of(64, false), None),
            ("bigint(20)", of(32, true), None),
            ("tinyint(1)", of(32, true), None),
            ("tinyint(4)", of(16, true), Some("smallint")),
            ("float", Kind::Double, Some("double")),
            ("float(7,2)", Kind::Double, None),
            ("double", Kind::Float, None),
            ("decimal(10,2)", Kind::Decimal(12, 3), Some("decimal(12,3)")),
            ("decimal(10,2)", Kind::Decimal(8, 4), Some("decimal(12,4)")),
            ("decimal(12,2)", Kind::Decimal(10, 2), None),
            ("decimal(5,2)", of(64, true), Some("decimal(21,2)")),
            ("decimal(60,2)", Kind::Decimal(20, 10), None),
            ("decimal(10,2) unsigned", Kind::Decimal(12, 3), None),
            ("int(11)", Kind::Decimal(10, 2), Some("decimal(12,2)")),
            ("int(11)", Kind::Decimal(9, 0), None),
            ("int(11)", Kind::Double, None),
            ("double", Kind::Decimal(10, 2), None),
            ("varchar(20)", Kind::Text, None),
            ("date", Kind::DateTime, None),
        ] {
            assert_eq!(wider(declared, &kind).as_deref(), becomes, "{declared} {kind:?}");
        }
    }

    #[test]
    fn all_else_that_is_said_of_a_column_stays() {
        let made = "CREATE TABLE `t` (\n  `a``b` int(11) NOT NULL DEFAULT 5 COMMENT 'it''s, `b`',\n  `n` decimal(10,2) DEFAULT NULL\n) ENGINE=InnoDB";
        assert_eq!(
            definition(made, "a`b", "int(11)", "bigint").as_deref(),
            Some("`a``b` bigint NOT NULL DEFAULT 5 COMMENT 'it''s, `b`'")
        );
        assert_eq!(
            definition(made, "n", "decimal(10,2)", "decimal(12,3)").as_deref(),
            Some("`n` decimal(12,3) DEFAULT NULL")
        );
        assert_eq!(definition(made, "n", "decimal(10,3)", "decimal(12,3)"), None);
        assert_eq!(definition(made, "x", "int(11)", "bigint"), None);
    }

    #[test]
    fn what_does_not_fit_is_beyond_the_digits() {
        assert_eq!(does_not_fit("int(11)", "`c0`").unwrap(), "(`c0` < -2147483648 OR `c0` > 2147483647)");
        assert_eq!(does_not_fit("tinyint(3) unsigned", "`c0`").unwrap(), "(`c0` < 0 OR `c0` > 255)");
        assert_eq!(does_not_fit("decimal(5,2)", "`c0`").unwrap(), "(`c0` >= 1000 OR `c0` <= -1000)");
        assert_eq!(does_not_fit("double", "`c0`"), None);
    }
}
