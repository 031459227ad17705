//! Records of an API's pages, as files again: of each page one, with the columns of the parent in each record. Pure.

use gristmill_model::spec::{ExtractSpec, FileFormat, OneOrMany};
use std::collections::HashMap;

/// The folder they are in.
const FOLDER: &str = "pages/";

/// The files of pages, by their requests: those are no names of files.
#[derive(Debug)]
pub(super) struct Pages {
    ending: &'static str,
    names: HashMap<String, String>,
}

impl Pages {
    /// For the pages of an extract.
    pub(super) fn new(extract: &ExtractSpec) -> Self {
        let ending = match extract.format.unwrap_or(FileFormat::Json) {
            FileFormat::Csv => "csv",
            FileFormat::Ndjson => "ndjson",
            _ => "json",
        };
        Self { ending, names: HashMap::new() }
    }

    /// The file of a page.
    pub(super) fn file(&mut self, page: &str) -> String {
        if let Some(name) = self.names.get(page) {
            return name.clone();
        }
        let name = format!("{FOLDER}{}.{}", self.names.len(), self.ending);
        self.names.insert(page.to_owned(), name.clone());
        name
    }

    /// Whether a record can be told the columns of its parent.
    pub(super) fn can_have_parents(&self) -> bool {
        self.ending != "csv"
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The extract of these files.
    pub(super) fn read_by(&self, extract: &mut ExtractSpec) {
        extract.format = extract.format.or(Some(FileFormat::Json));
        extract.path = Some(OneOrMany(vec![FOLDER.to_owned()]));
        (extract.http, extract.units) = (None, None);
    }
}

/// Puts the columns that stand beside a record, an object of JSON, into the record. What is no object is no row either,
/// whatever stands beside it.
pub(super) fn beside(record: &str, columns: &str) -> String {
    let inner = |text: &str| Some(text.trim().strip_prefix('{')?.strip_suffix('}')?.trim().to_owned());
    match (inner(record), inner(columns)) {
        (Some(own), Some(more)) if own.is_empty() || more.is_empty() => format!("{{{own}{more}}}"),
        (Some(own), Some(more)) => format!("{{{own},{more}}}"),
        _ => record.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_record_comes_into_it() {
        for (record, columns, wanted) in [
            (r#" {"a": 1} "#, r#"{"p":"x"}"#, r#"{"a": 1,"p":"x"}"#),
            ("{}", r#"{"p":1}"#, r#"{"p":1}"#),
            (r#"{"a": {}}"#, "{}", r#"{"a": {}}"#),
            ("[1]", r#"{"p":1}"#, "[1]"),
            (r#"{"a": 1"#, r#"{"p":1}"#, r#"{"a": 1"#),
        ] {
            assert_eq!(beside(record, columns), wanted);
        }
    }

    #[test]
    fn each_page_is_a_file() {
        let mut pages = Pages::new(&ExtractSpec::new("api".into()));
        assert!(pages.is_empty());
        assert_eq!(
            (pages.file("GET /a?page=1").as_str(), pages.file("GET /a?page=2").as_str()),
            ("pages/0.json", "pages/1.json")
        );
        assert_eq!(pages.file("GET /a?page=1"), "pages/0.json");
    }
}
