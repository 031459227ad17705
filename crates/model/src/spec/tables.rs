//! Many tables at once: `extract: {tables: "public.*"}`. Which tables a pattern takes is decided here, by names alone.

use super::shapes::OneOrMany;
use crate::{Error, ErrorKind, Result, one_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The schema that a database without schemas (SQLite) is said to have.
const ONLY_SCHEMA: &str = "main";

/// A table of a database, as far as a pipeline must know it to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundTable {
    /// The schema it is in (MySQL: the database); none where a database has but one.
    pub schema: Option<String>,
    /// Its name, as the database has it.
    pub name: String,
    /// As `table:` of an extract names it.
    pub reference: String,
    /// Whether it is in the schema that a name without one means.
    pub is_own: bool,
    /// Whether it is a view.
    pub is_view: bool,
    /// The columns of its primary key.
    pub key: Vec<String>,
    /// Its columns, in order.
    pub columns: Vec<String>,
}

impl FoundTable {
    /// What its steps are told apart by: `public.orders`. Letters that a file's name cannot hold, and dots within a name,
    /// are written as `%2E`, so that no two tables have the same.
    #[must_use]
    pub fn label(&self) -> String {
        let name = file_safe(&self.name, false);
        match &self.schema {
            Some(schema) => format!("{}.{name}", file_safe(schema, false)),
            None => name,
        }
    }

    /// The schema, for a template.
    #[must_use]
    pub fn schema_name(&self) -> &str {
        self.schema.as_deref().unwrap_or(ONLY_SCHEMA)
    }
}

/// A name as a part of a path: one folder's or file's, whatever is in it. Different names stay different.
#[must_use]
pub fn path_safe(name: &str) -> String {
    file_safe(name, true)
}

fn file_safe(name: &str, dots: bool) -> String {
    let mut safe = String::with_capacity(name.len());
    for (at, letter) in name.char_indices() {
        // Readers of folders leave out what begins with a dot; `..` is the folder above.
        let is_plain =
            letter.is_alphanumeric() || matches!(letter, '_' | '-' | '$') || (letter == '.' && dots && at > 0);
        if is_plain {
            safe.push(letter);
        } else {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                let _ = write!(safe, "%{byte:02X}");
            }
        }
    }
    safe
}

/// A pattern of names: `orders`, `order_*`, `public.*`. `*` stands for any letters, `?` for one; what is between quotes
/// (`"` or `` ` ``) stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TablePattern {
    schema: Option<Glob>,
    table: Glob,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Glob(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Letter(char),
}

impl TablePattern {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("`{text}` is not a pattern of tables: {what}"));
        let mut parts = vec![Glob::default()];
        let mut quote: Option<char> = None;
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            let piece = match (letter, quote) {
                ('\0', _) => return wrong("it holds a NUL"),
                (letter, Some(open)) if letter == open => {
                    if letters.peek() != Some(&open) {
                        quote = None;
                        continue;
                    }
                    letters.next();
                    Piece::Letter(letter)
                }
                (letter, Some(_)) => Piece::Letter(letter),
                ('"' | '`', None) => {
                    quote = Some(letter);
                    continue;
                }
                ('.', None) => {
                    parts.push(Glob::default());
                    continue;
                }
                ('*', None) => Piece::Any,
                ('?', None) => Piece::One,
                (letter, None) => Piece::Letter(letter),
            };
            if let Some(part) = parts.last_mut() {
                part.0.push(piece);
            }
        }
        if quote.is_some() {
            return wrong("a quote is open");
        }
        if parts.iter().any(|part| part.0.is_empty()) {
            return wrong("a part is empty");
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => Ok(Self { schema: None, table }),
            (Some(schema), Some(table), None) => Ok(Self { schema: Some(schema), table }),
            _ => wrong("it has more than two parts; one with dots stands between quotes"),
        }
    }

    /// Whether it names one table.
    fn is_name(&self) -> bool {
        self.table.is_plain() && self.schema.as_ref().is_none_or(Glob::is_plain)
    }

    fn takes(&self, table: &FoundTable) -> bool {
        let in_schema = match &self.schema {
            Some(schema) => schema.matches(table.schema_name()),
            None => table.is_own,
        };
        in_schema && self.table.matches(&table.name)
    }
}

impl Glob {
    fn is_plain(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Letter(_)))
    }

    fn matches(&self, name: &str) -> bool {
        let letters: Vec<char> = name.chars().collect();
        let (mut piece, mut at) = (0, 0);
        // Where the last `*` stands, and up to where it reaches so far.
        let mut star: Option<(usize, usize)> = None;
        while at < letters.len() {
            match self.0.get(piece) {
                Some(Piece::Any) => {
                    star = Some((piece, at));
                    piece += 1;
                }
                Some(Piece::One) => (piece, at) = (piece + 1, at + 1),
                Some(Piece::Letter(letter)) if *letter == letters[at] => (piece, at) = (piece + 1, at + 1),
                _ => match star {
                    Some((place, reach)) => {
                        star = Some((place, reach + 1));
                        (piece, at) = (place + 1, reach + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0[piece..].iter().all(|piece| *piece == Piece::Any)
    }
}

/// What is wrong with patterns.
pub(super) fn mistakes(patterns: &OneOrMany) -> Vec<String> {
    if patterns.0.is_empty() {
        return vec!["a list of tables is empty".to_owned()];
    }
    patterns.0.iter().filter_map(|text| TablePattern::parse(text).err()).collect()
}

/// The tables that patterns take, sorted. A pattern takes tables; a view only where it is named in full.
///
/// # Errors
/// A pattern that takes nothing, with what may have been meant; patterns of which `exclude` leaves nothing.
pub fn pick(tables: &OneOrMany, exclude: Option<&OneOrMany>, found: Vec<FoundTable>) -> Result<Vec<FoundTable>> {
    let parsed = |patterns: &OneOrMany| -> Result<Vec<TablePattern>> {
        let parse = |text: &String| TablePattern::parse(text).map_err(|wrong| Error::new(ErrorKind::Config, wrong));
        patterns.0.iter().map(parse).collect()
    };
    let (wanted, left_out) = (parsed(tables)?, exclude.map(parsed).transpose()?.unwrap_or_default());
    let takes =
        |pattern: &TablePattern, table: &FoundTable| pattern.takes(table) && (!table.is_view || pattern.is_name());
    for (pattern, text) in wanted.iter().zip(&tables.0) {
        if !found.iter().any(|table| takes(pattern, table)) {
            return Err(nothing(pattern, text, &found));
        }
    }
    let mut picked: Vec<FoundTable> = found
        .into_iter()
        .filter(|table| wanted.iter().any(|pattern| takes(pattern, table)))
        .filter(|table| !left_out.iter().any(|pattern| pattern.takes(table)))
        .collect();
    if picked.is_empty() {
        return Err(Error::new(ErrorKind::Config, "`exclude` leaves no table to extract"));
    }
    picked.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(picked)
}

fn nothing(pattern: &TablePattern, text: &str, found: &[FoundTable]) -> Error {
    let error = Error::new(ErrorKind::NotFound, format!("no table matches `{text}`"));
    if found.iter().any(|table| pattern.takes(table)) {
        return error.hint("it matches views only; name each of those that are to be extracted");
    }
    if found.is_empty() {
        return error.hint("there are no tables that this user may see");
    }
    let names: BTreeSet<&str> = match &pattern.schema {
        Some(schema) if !found.iter().any(|table| schema.matches(table.schema_name())) => {
            let schemas: BTreeSet<&str> = found.iter().map(FoundTable::schema_name).collect();
            let schemas: Vec<String> = schemas.iter().map(|schema| format!("`{schema}`")).collect();
            return error.hint(format!("there are the schemas {}", schemas.join(", ")));
        }
        Some(schema) => {
            found.iter().filter(|table| schema.matches(table.schema_name())).map(|table| table.name.as_str()).collect()
        }
        None => found.iter().filter(|table| table.is_own).map(|table| table.name.as_str()).collect(),
    };
    if names.is_empty() {
        return error.hint("no table is in the schema that a name without one means; write `schema.table`");
    }
    let name: String = text.rsplit('.').next().unwrap_or(text).to_owned();
    error.hint(one_of(&name, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(text: &str) -> FoundTable {
        let (schema, name) = text.split_once('/').unwrap_or(("public", text));
        FoundTable {
            schema: Some(schema.to_owned()),
            name: name.trim_end_matches('!').to_owned(),
            reference: format!("{schema}.{name}"),
            is_own: schema == "public",
            is_view: name.ends_with('!'),
            key: Vec::new(),
            columns: Vec::new(),
        }
    }

    fn picked(tables: &[&str], exclude: &[&str]) -> Result<String> {
        let many = |words: &[&str]| OneOrMany(words.iter().map(|word| (*word).to_owned()).collect());
        let found = ["orders", "order_items", "Customers", "tmp_1", "a.b", "recent!", "sales/orders", "sales/old?"];
        let found = found.into_iter().map(table).collect();
        let picked = pick(&many(tables), Some(&many(exclude)), found)?;
        Ok(picked.iter().map(FoundTable::label).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_pattern_takes_the_tables_it_matches() {
        for (tables, exclude, wanted) in [
            (&["*"][..], &[][..], "public.Customers public.a%2Eb public.order_items public.orders public.tmp_1"),
            (&["public.*"], &["tmp_*"], "public.Customers public.a%2Eb public.order_items public.orders"),
            (&["order*", "sales.*"], &["sales.ol?*"], "public.order_items public.orders sales.orders"),
            (&["*.orders"], &[], "public.orders sales.orders"),
            (&["recent", "tmp_?"], &["not_there"], "public.recent public.tmp_1"),
            (&["\"a.b\"", "sales.\"old?\""], &[], "public.a%2Eb sales.old%3F"),
            (&["orders", "o*"], &[], "public.order_items public.orders"),
        ] {
            assert_eq!(picked(tables, exclude).unwrap(), wanted, "{tables:?}");
        }
    }

    #[test]
    fn a_pattern_that_takes_nothing_is_an_error_with_what_is_there() {
        for (tables, exclude, message, hint) in [
            (&["pubic.*"][..], &[][..], "no table matches `pubic.*`", "the schemas `public`, `sales`"),
            (&["*", "ordres"], &[], "no table matches `ordres`", "did you mean `orders`?"),
            (&["rec*"], &[], "no table matches `rec*`", "views only"),
            (&["orders"], &["*"], "`exclude` leaves no table", ""),
        ] {
            let error = picked(tables, exclude).unwrap_err();
            assert!(error.message().starts_with(message), "{error}");
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{error}");
        }
        for wrong in ["", "a.", ".b", "a.b.c", "\"a", "a\0"] {
            assert_eq!(mistakes(&OneOrMany(vec![wrong.to_owned()])).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for (name, safe) in [("orders", "orders"), ("a.b", "a.b"), ("..", "%2E."), (".x", "%2Ex"), ("a/b", "a%2Fb")] {
            assert_eq!(path_safe(name), safe);
        }
        assert_eq!(path_safe("Größe 1%"), "Größe%201%25");
    }

    proptest! {
        #[test]
        fn a_quoted_name_takes_itself_and_nothing_else(name in "[a-c.\"`*? ]{1,6}", other in "[a-c.\"`*? ]{1,6}") {
            let quoted = format!("\"{}\"", name.replace('"', "\"\""));
            let pattern = TablePattern::parse(&quoted).unwrap();
            prop_assert!(pattern.is_name());
            prop_assert_eq!(pattern.table.matches(&other), name == other);
        }

        #[test]
        fn different_tables_have_different_labels_and_paths(one in "\\PC{1,6}", other in "\\PC{1,6}") {
            prop_assert_eq!(path_safe(&one) == path_safe(&other), one == other);
            let label = |name: &str| FoundTable { name: name.to_owned(), ..table("x") }.label();
            prop_assert_eq!(label(&one) == label(&other), one == other);
            prop_assert!(!path_safe(&one).contains('/') && !label(&one).contains(['/', '[', ']']));
        }

        #[test]
        fn a_star_stands_for_any_letters(before in "[ab]{0,3}", middle in "[ab]{0,4}", after in "[ab]{0,3}") {
            let text = format!("{before}*{after}");
            let pattern = TablePattern::parse(&text).unwrap();
            let name = format!("{before}{middle}{after}");
            prop_assert!(pattern.table.matches(&name));
        }
    }
}
