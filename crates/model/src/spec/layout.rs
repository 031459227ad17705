//! How files of a load are laid out inside.

use super::shapes::OneOrMany;
use crate::{ByteSize, Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The layout of Parquet files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParquetOptions {
    /// Bytes of a row group before it is encoded; 64 MB by default, less where the memory is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_group_size: Option<ByteSize>,
    /// Whether values are kept in dictionaries: `true` in every column, until one grows beyond 1 MB; `false` in none; by
    /// default where the first rows say that it pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<bool>,
    /// What is written of least and greatest values and NULLs: of each page, of each row group, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
    /// Whether the pages have an index, by which readers skip them; true by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_index: Option<bool>,
    /// The columns with a bloom filter, by which readers that look for single values skip row groups.
    #[serde(default)]
    pub bloom_filter: OneOrMany,
    /// How often a bloom filter may say that a value is there which is not: 0.01 (the default) is once in a hundred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bloom_filter_fpp: Option<f64>,
}

/// Which partitions are dropped once they are old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// How long a partition is kept, counted back from the end of the run's interval: `90d`.
    pub keep: Duration,
    /// The partition column that says how old it is; by default the only one that holds dates or timestamps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

/// What statistics are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// Of each page, and of each row group.
    #[default]
    Page,
    /// Of each row group.
    RowGroup,
    /// None.
    None,
}

/// One entry of `sort_by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortBy {
    /// The column.
    pub column: String,
    /// The greatest value first.
    pub descending: bool,
    /// NULLs before all values; otherwise behind them.
    pub nulls_first: bool,
}

impl SortBy {
    /// Understands `column [asc|desc] [nulls first|last]`. As in PostgreSQL, NULL is greater than every value.
    ///
    /// # Errors
    /// What is wrong with it and what to do, in words.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let mut rest = text.trim();
        let mut cut = |word: &str| {
            let at = rest.len().checked_sub(word.len()).filter(|&at| rest.is_char_boundary(at))?;
            let found = rest[at..].eq_ignore_ascii_case(word) && rest[..at].ends_with(char::is_whitespace);
            found.then(|| rest = rest[..at].trim_end())
        };
        let nulls = ["first", "last"].into_iter().find(|place| cut(place).is_some());
        if nulls.is_some() && cut("nulls").is_none() {
            return Err((
                format!("`sort_by` cannot be `{text}`"),
                "write e.g. `customer_id`, `total desc` or `total desc nulls last`".to_owned(),
            ));
        }
        let descending = cut("desc").is_some();
        if !descending {
            cut("asc");
        }
        let column = rest.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(rest);
        if column.is_empty() {
            return Err(("`sort_by` names no column".to_owned(), "write e.g. `customer_id`".to_owned()));
        }
        let nulls_first = nulls.map_or(descending, |place| place == "first");
        Ok(Self { column: column.to_owned(), descending, nulls_first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_a_direction_and_the_place_of_null_are_understood() {
        let of = |column: &str, descending, nulls_first| SortBy { column: column.to_owned(), descending, nulls_first };
        for (text, sorted) in [
            ("a", of("a", false, false)),
            ("a b asc", of("a b", false, false)),
            ("total DESC", of("total", true, true)),
            ("total desc nulls last", of("total", true, false)),
            ("a nulls FIRST", of("a", false, true)),
            ("\"a desc\" desc", of("a desc", true, true)),
            ("description", of("description", false, false)),
        ] {
            assert_eq!(SortBy::parse(text).unwrap(), sorted, "{text}");
        }
        for text in ["", "a first", "\"\""] {
            assert!(SortBy::parse(text).is_err(), "{text}");
        }
    }
}
