//! What the files of a target must have in common, so that whoever reads the folder reads all of them: their format, what
//! their folders are named by, and what CSV files do not say themselves. Each load notes it in the log (types of columns
//! are beside it, `Entry::columns`), and the next one looks whether its files go with those that are there.

use super::config::Dialect;
use super::encoding::Encoding;
use super::layout::{partition_values, split};
use super::log::Entry;
use crate::sources::files::split_name;
use arrow::datatypes::Schema;
use gristmill_model::spec::{FileFormat, PartitionBy, PartitionTransform};
use gristmill_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// The way out of every difference.
const OR: &str = "load with `strategy: replace`, or choose another `path`";

/// What is noted of the files of a load. What is not there was not noted, by an older version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    /// As a text: a later version may know more formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    /// The entries of `partition_by`, each written in one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_by: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    csv: Option<Csv>,
}

/// How CSV files are written, as far as nobody can read two ways in one folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Csv {
    delimiter: String,
    quote: String,
    /// None: a quote is doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escape: Option<String>,
    /// The columns in their order, where the files have no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
}

impl Shape {
    /// What a load notes whose files hold `stored`. `partition_by`: as the load says it.
    pub(super) fn new(encoding: &Encoding, stored: &Schema, partition_by: &[PartitionBy]) -> Self {
        let csv = match encoding {
            Encoding::Csv { dialect, .. } => Some(Csv::new(dialect, stored)),
            _ => None,
        };
        Self {
            format: Some(encoding.format().as_str().to_owned()),
            partition_by: Some(partition_by.iter().map(text_of).collect()),
            csv,
        }
    }

    /// Nothing is noted.
    pub(super) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Looks whether files of this shape can be read together with those of an earlier load. What that did not note is
    /// derived of its files' paths: the format by their endings, the names of partition columns (not what they are computed
    /// of) by their folders. What cannot be derived is let pass.
    ///
    /// # Errors
    /// What differs, and what to do.
    pub(super) fn check(&self, before: &Entry, path: &str) -> Result<()> {
        self.check_format(before, path)?;
        self.check_partitions(before, path)?;
        match (&self.csv, &before.shape.csv) {
            (Some(ours), Some(theirs)) => ours.check(theirs, path),
            _ => Ok(()),
        }
    }

    fn check_format(&self, before: &Entry, path: &str) -> Result<()> {
        let by_ending = || {
            let name = split(&before.publish.first()?.path).1;
            let ending = split_name(name).0.rsplit_once('.')?.1;
            FileFormat::from_extension(ending).map(|format| format.as_str().to_owned())
        };
        let (Some(ours), Some(theirs)) = (&self.format, before.shape.format.clone().or_else(by_ending)) else {
            return Ok(());
        };
        if *ours == theirs {
            return Ok(());
        }
        let message = format!("the load writes files of format `{ours}`, and those of `{path}` are `{theirs}`");
        Err(Error::new(ErrorKind::Config, message).hint(format!("write `format: {theirs}`, {OR}")))
    }

    fn check_partitions(&self, before: &Entry, path: &str) -> Result<()> {
        let Some(ours) = &self.partition_by else { return Ok(()) };
        let (theirs, alike) = match &before.shape.partition_by {
            Some(theirs) => (theirs.clone(), theirs == ours),
            None => match names_in_folders(before) {
                Some(names) => {
                    let own =
                        ours.iter().map(|text| PartitionBy::parse(text).map_or_else(|_| text.clone(), |by| by.name));
                    let alike = own.eq(names.iter().cloned());
                    (names, alike)
                }
                None => return Ok(()),
            },
        };
        if alike {
            return Ok(());
        }
        let listed = |entries: &[String]| format!("`{}`", entries.join("`, `"));
        let given = match ours.as_slice() {
            [] => "the load has no `partition_by`".to_owned(),
            ours => format!("`partition_by` says {}", listed(ours)),
        };
        let there = match theirs.as_slice() {
            [] => "are not partitioned".to_owned(),
            theirs => format!("are partitioned by {}", listed(theirs)),
        };
        Err(Error::new(ErrorKind::Schema, format!("{given}, and the files of `{path}` {there}")).hint(OR))
    }
}

/// The names of the partition columns of an entry's files; none where it has no files.
fn names_in_folders(entry: &Entry) -> Option<Vec<String>> {
    match entry.publish.first()?.partition.as_str() {
        "" => Some(Vec::new()),
        folder => Some(partition_values(folder)?.into_iter().map(|(column, _)| column).collect()),
    }
}

impl Csv {
    fn new(dialect: &Dialect, stored: &Schema) -> Self {
        let text = |byte: u8| char::from(byte).to_string();
        let columns = || stored.fields().iter().map(|field| field.name().clone()).collect();
        Self {
            delimiter: text(dialect.delimiter),
            quote: text(dialect.quote),
            escape: dialect.escape.map(text),
            columns: (!dialect.header).then(columns),
        }
    }

    fn check(&self, theirs: &Self, path: &str) -> Result<()> {
        let escape = |csv: &Self| csv.escape.clone().unwrap_or_else(|| csv.quote.clone());
        let header = |csv: &Self| csv.columns.is_none().to_string();
        for (key, ours, theirs) in [
            ("delimiter", self.delimiter.clone(), theirs.delimiter.clone()),
            ("quote", self.quote.clone(), theirs.quote.clone()),
            ("escape", escape(self), escape(theirs)),
            ("header", header(self), header(theirs)),
        ] {
            if ours != theirs {
                let (ours, theirs) = (shown(&ours), shown(&theirs));
                let message = format!(
                    "the load writes CSV with `{key}: {ours}`, and the files of `{path}` have `{key}: {theirs}`"
                );
                return Err(Error::new(ErrorKind::Config, message).hint(format!("write them alike under `csv`, {OR}")));
            }
        }
        let (Some(ours), Some(theirs)) = (&self.columns, &theirs.columns) else { return Ok(()) };
        if ours == theirs {
            return Ok(());
        }
        let listed = |names: &[String]| format!("`{}`", names.join("`, `"));
        let message = format!(
            "the rows have the columns {}, and the files of `{path}`, which have no header, hold {}",
            listed(ours),
            listed(theirs)
        );
        Err(Error::new(ErrorKind::Schema, message)
            .hint(format!("select the same columns in the same order in the step before, {OR}")))
    }
}

/// A text in which tabs and their like can be seen.
fn shown(text: &str) -> String {
    let shown =
        |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.to_string() };
    text.chars().map(shown).collect()
}

/// An entry of `partition_by`, written in one way.
fn text_of(by: &PartitionBy) -> String {
    let is_plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let name = |name: &str| {
        if is_plain(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    };
    let of = |function: &str| format!("{function}({})", name(&by.column));
    let short = match by.transform {
        None => return name(&by.column),
        Some(PartitionTransform::Year) => of("year"),
        Some(PartitionTransform::Month) => of("month"),
        Some(PartitionTransform::Day) => of("day"),
        Some(PartitionTransform::Hour) => of("hour"),
        Some(PartitionTransform::Date) => of("date"),
        Some(PartitionTransform::Bucket(count)) => format!("{} % {count}", of("hash")),
    };
    if PartitionBy::parse(&short).is_ok_and(|short| short == *by) {
        return short;
    }
    format!("{short} as {}", name(&by.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_written_in_one_way() {
        for (given, written) in [
            ("day", "day"),
            ("order date", "\"order date\""),
            ("\"a(b)\"", "\"a(b)\""),
            (" YEAR( \"sold\" ) as year", "year(sold)"),
            ("hash(id)%4 AS \"b\"", "hash(id) % 4 as b"),
            ("date(at) as \"the day\"", "date(at) as \"the day\""),
        ] {
            assert_eq!(text_of(&PartitionBy::parse(given).unwrap()), written);
        }
    }

    proptest! {
        #[test]
        fn an_entry_that_was_written_is_read_as_it_was(column in "\\PC{1,12}", name in "\\PC{1,12}", count in 1u32..1000, which in 0usize..7) {
            use PartitionTransform as T;
            let all = [None, Some(T::Year), Some(T::Month), Some(T::Day), Some(T::Hour), Some(T::Date), Some(T::Bucket(count))];
            let name = if which == 0 { column.clone() } else { name };
            let by = PartitionBy { column, transform: all[which], name };
            prop_assert_eq!(PartitionBy::parse(&text_of(&by)).unwrap(), by);
        }
    }
}
