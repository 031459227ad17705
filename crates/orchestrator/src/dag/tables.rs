//! Which tables a query reads.

use sqlparser::ast::{Cte, Ident, ObjectName, ObjectNamePart, Query, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// A table as a query names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TableName {
    /// One word, as it is looked up: lower case unless it was quoted.
    Simple(String),
    /// Several words, as written: `schema.table`.
    Compound(String),
}

/// Why the tables of a query cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlMistake {
    pub(super) message: String,
    /// Line and column in the text, from 1, where they are known.
    pub(super) place: Option<(usize, usize)>,
}

/// The tables a query reads, names of its own WITH clauses and table functions left out.
pub(super) fn tables(sql: &str) -> Result<BTreeSet<TableName>, SqlMistake> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| mistake(&error.to_string()))?;
    let refuse = |message: String| Err(SqlMistake { message, place: None });
    match statements.as_slice() {
        [Statement::Query(query)] => {
            let mut reader = Reader::default();
            let _ = query.visit(&mut reader);
            Ok(reader.found)
        }
        [] => refuse("the query is empty".to_owned()),
        [_] => {
            refuse("a sql step is a query (`SELECT …` or `WITH … SELECT …`), and this is another statement".to_owned())
        }
        several => refuse(format!("a sql step is one query, and this text has {}", several.len())),
    }
}

fn mistake(text: &str) -> SqlMistake {
    let text = text.trim_start_matches("sql parser error: ");
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => {
            let place = place.split_once(", Column: ");
            (message, place.and_then(|(line, column)| Some((line.parse().ok()?, column.trim().parse().ok()?))))
        }
        None => (text, None),
    };
    let mut chars = message.chars();
    let lower = chars.next().map(|first| first.to_lowercase().chain(chars).collect::<String>()).unwrap_or_default();
    SqlMistake { message: lower, place }
}

/// Walks a query and knows at each place which names its WITH clauses have defined.
#[derive(Default)]
struct Reader {
    found: BTreeSet<TableName>,
    /// Names of WITH clauses that are in scope, innermost last.
    defined: Vec<String>,
}

impl Visitor for Reader {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for Cte { alias, query: inner, .. } in query.with.iter().flat_map(|with| &with.cte_tables) {
            // A name is not in scope inside its own definition: in `WITH t AS (SELECT * FROM t) SELECT * FROM t` the
            // first `t` is a step. So the definition is visited before its name is known; that the walk visits it
            // again afterwards finds nothing new.
            if !query.with.as_ref().is_some_and(|with| with.recursive) {
                let _ = inner.visit(self);
            }
            self.defined.push(folded(&alias.name));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let count = query.with.as_ref().map_or(0, |with| with.cte_tables.len());
        self.defined.truncate(self.defined.len().saturating_sub(count));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        // With arguments it is a function: `generate_series(1, 10)`.
        if let TableFactor::Table { name: ObjectName(parts), args: None, .. } = factor {
            match parts.as_slice() {
                [ObjectNamePart::Identifier(ident)] => {
                    let name = folded(ident);
                    if !self.defined.contains(&name) {
                        self.found.insert(TableName::Simple(name));
                    }
                }
                _ => {
                    let shown: Vec<String> = parts.iter().map(ToString::to_string).collect();
                    self.found.insert(TableName::Compound(shown.join(".")));
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// As DataFusion looks names up: without quotes they are folded to lower case.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(sql: &str) -> Vec<String> {
        tables(sql)
            .unwrap()
            .into_iter()
            .map(|table| match table {
                TableName::Simple(name) => name,
                TableName::Compound(name) => format!("({name})"),
            })
            .collect()
    }

    #[test]
    fn tables_are_found_wherever_a_query_may_name_them() {
        let cases: &[(&str, &[&str])] = &[
            ("SELECT 1", &[]),
            ("SELECT * FROM Orders o JOIN \"rates\" r ON o.c = r.c;", &["orders", "rates"]),
            ("SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.x = a.x) l", &["a", "b"]),
            (
                "SELECT (SELECT max(x) FROM b) FROM a WHERE EXISTS (SELECT 1 FROM c) AND y IN (SELECT y FROM d)",
                &["a", "b", "c", "d"],
            ),
            ("SELECT * FROM a UNION ALL (SELECT * FROM b EXCEPT SELECT * FROM c)", &["a", "b", "c"]),
            ("WITH t AS (SELECT * FROM a), u AS (SELECT * FROM t) SELECT * FROM u JOIN b USING (x)", &["a", "b"]),
            ("WITH a AS (SELECT * FROM a) SELECT * FROM a", &["a"]),
            ("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n", &[]),
            ("SELECT * FROM (WITH t AS (SELECT * FROM a) SELECT * FROM t) s JOIN t ON true", &["a", "t"]),
            ("SELECT * FROM generate_series(1, 10) g, unnest([1, 2]) u, a", &["a"]),
            ("SELECT * FROM lake.products", &["(lake.products)"]),
            ("SELECT \"Orders\".x FROM \"Orders\"", &["Orders"]),
            ("SELECT * FROM a WHERE x = 'FROM b' -- FROM c\n", &["a"]),
            (
                "SELECT DISTINCT ON (id) id, row_number() OVER (PARTITION BY id ORDER BY t DESC) FROM a ORDER BY id",
                &["a"],
            ),
        ];
        for (sql, wanted) in cases {
            assert_eq!(simple(sql), *wanted, "{sql}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused_with_its_line() {
        assert_eq!(tables("SELECT *\nFROM a\nORDER x").unwrap_err().place.map(|(line, _)| line), Some(3));
        assert_eq!(tables("SELECT 'x").unwrap_err().place.map(|(line, _)| line), Some(1));
        assert!(tables("DELETE FROM a").unwrap_err().message.contains("another statement"));
        assert!(tables("SELECT 1; SELECT 2").unwrap_err().message.contains("has 2"));
        assert!(tables("-- nothing").unwrap_err().message.contains("empty"));
        let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(tables(&deep).is_err());
    }
}
