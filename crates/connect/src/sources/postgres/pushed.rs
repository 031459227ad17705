//! Conditions of queries over an extract that the server decides, too.
//!
//! Only where its answer is certainly ours: whole numbers, dates and booleans, which have one order; text that is equal byte
//! by byte, as PostgreSQL compares it under every deterministic collation; and whether there is a value. A column that is cast
//! on its way is another value here than there.

use super::connect::Session;
use super::names::{literal, quoted};
use super::wanted::{Relation, Wanted};
use crate::{Filter, Literal, Test};
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// What a column can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparable {
    Integers,
    Booleans,
    Dates,
    /// For equality alone.
    Texts,
}

/// The columns that conditions may be on. Nothing is an error: what is not known is not pushed down.
pub(super) async fn comparable(wanted: &Wanted, session: &Session) -> BTreeMap<String, Comparable> {
    let sql = format!("SELECT * FROM {}", wanted.relation_sql());
    let Ok(statement) = session.prepare(&sql).await else { return BTreeMap::new() };
    let texts = deterministic(wanted, session).await;
    let columns = statement.columns().iter().filter(|column| !wanted.is_retyped(column.name()));
    columns
        .filter_map(|column| {
            let kind = match *column.type_() {
                Type::INT2 | Type::INT4 | Type::INT8 => Comparable::Integers,
                Type::BOOL => Comparable::Booleans,
                Type::DATE => Comparable::Dates,
                Type::TEXT | Type::VARCHAR if texts.iter().any(|name| name == column.name()) => Comparable::Texts,
                _ => return None,
            };
            Some((column.name().to_owned(), kind))
        })
        .collect()
}

/// The text columns of a table that are compared byte by byte. Servers before 12 know no other collations, but neither do
/// they say so.
async fn deterministic(wanted: &Wanted, session: &Session) -> Vec<String> {
    let Relation::Table(table) = &wanted.relation else { return Vec::new() };
    let sql = format!(
        "SELECT a.attname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
         WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND c.collisdeterministic \
         AND current_setting('server_encoding') = 'UTF8'",
        literal(&table.sql())
    );
    let Ok(rows) = session.query(&sql, &[]).await else { return Vec::new() };
    rows.iter().filter_map(|row| row.try_get(0).ok()).collect()
}

/// Whether the server may decide a condition on such a column.
pub(super) fn may(filter: &Filter, column: Comparable) -> bool {
    filter.literals().iter().all(|literal| match (column, literal) {
        (Comparable::Integers, Literal::Integer(_)) | (Comparable::Booleans, Literal::Boolean(_)) => true,
        (Comparable::Dates, Literal::Date(days)) => Literal::date(*days).is_some(),
        (Comparable::Texts, Literal::Text(text)) => filter.is_equality() && !text.contains('\0'),
        _ => false,
    })
}

/// Conditions in SQL.
pub(super) fn sql(filters: &[Filter]) -> String {
    let value = |value: &Literal| match value {
        Literal::Integer(number) => format!("'{number}'::int8"),
        Literal::Boolean(truth) => truth.to_string(),
        Literal::Date(days) => Literal::date(*days).map_or_else(String::new, |date| format!("'{date}'::date")),
        Literal::Text(text) => literal(text),
    };
    let all: Vec<String> = filters
        .iter()
        .map(|filter| match &filter.test {
            // Without values there is no `IN`.
            Test::OneOf(values) if values.is_empty() => "false".to_owned(),
            _ => filter.sql(&quoted(&filter.column), value),
        })
        .collect();
    all.join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Comparison;

    #[test]
    fn only_what_the_server_answers_alike_is_pushed_down() {
        let is = |comparison, literal| Filter { column: "c".into(), test: Test::Is(comparison, literal) };
        let text = |text: &str| Literal::Text(text.to_owned());
        let (less, equal) = (Comparison::Less, Comparison::Equal);
        for (filter, column, wanted) in [
            (is(less, Literal::Integer(5)), Comparable::Integers, true),
            (is(less, Literal::Date(0)), Comparable::Dates, true),
            (is(less, Literal::Date(i32::MAX)), Comparable::Dates, false),
            (is(less, Literal::Integer(5)), Comparable::Dates, false),
            (is(equal, text("x")), Comparable::Texts, true),
            (is(less, text("x")), Comparable::Texts, false),
            (is(Comparison::NotEqual, text("x")), Comparable::Texts, false),
            (is(equal, text("x\0")), Comparable::Texts, false),
            (Filter { column: "c".into(), test: Test::Null }, Comparable::Texts, true),
            (
                Filter { column: "c".into(), test: Test::OneOf(vec![text("a"), Literal::Integer(1)]) },
                Comparable::Texts,
                false,
            ),
        ] {
            assert_eq!(may(&filter, column), wanted, "{filter} {column:?}");
        }
        let all = [is(less, Literal::Integer(i64::MIN)), is(equal, text("o'k")), is(equal, Literal::Boolean(true))];
        assert_eq!(sql(&all), "\"c\" < '-9223372036854775808'::int8 AND \"c\" = 'o''k' AND \"c\" = true");
    }
}
