//! Which columns of a table may do as `incremental_key`: told by names and types, for people who choose.

/// Words in the names of columns that say when a row last changed, and when it came.
const CHANGED: [&str; 5] = ["updat", "modif", "chang", "_upd", "last_"];
const CAME: [&str; 5] = ["creat", "insert", "added", "ingest", "load"];

/// The columns that may do, the likeliest first: times of changes, times of coming, other moments, other days, and a key of
/// one whole number, which only grows where rows are only added. `types` are the database's own words.
pub(crate) fn candidates(columns: &[(String, String)], key: &[String]) -> Vec<String> {
    let mut found: Vec<(u8, &str)> = columns
        .iter()
        .filter_map(|(name, kind)| Some((rank(name, &kind.to_lowercase(), key)?, name.as_str())))
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, name)| name.to_owned()).collect()
}

fn rank(name: &str, kind: &str, key: &[String]) -> Option<u8> {
    let name_says = |words: &[&str]| words.iter().any(|word| name.to_lowercase().contains(word));
    if kind.starts_with("timestamp") || kind.starts_with("datetime") {
        let kinds = [name_says(&CHANGED), name_says(&CAME), true];
        return kinds.iter().position(|fits| *fits).and_then(|at| u8::try_from(at).ok());
    }
    if kind == "date" {
        return Some(3);
    }
    let whole = ["int", "bigint", "smallint", "mediumint", "tinyint", "serial", "bigserial", "uint", "ubigint"];
    let word = kind.split(['(', ' ']).next().unwrap_or_default();
    (key == [name] && (whole.contains(&word) || word == "integer")).then_some(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_changes_come_first_and_a_key_last() {
        let column = |(name, kind): &(&str, &str)| ((*name).to_owned(), (*kind).to_owned());
        let columns = [
            ("id", "bigint(20) unsigned"),
            ("born", "date"),
            ("seen_at", "datetime(6)"),
            ("created", "timestamp without time zone"),
            ("LastModified", "timestamptz"),
            ("amount", "integer"),
            ("updated_by", "text"),
            ("interval", "interval"),
        ];
        let columns: Vec<(String, String)> = columns.iter().map(column).collect();
        let key = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(candidates(&columns, &key(&["id"])), ["LastModified", "created", "seen_at", "born", "id"]);
        assert_eq!(candidates(&columns, &key(&["id", "amount"])).last().map(String::as_str), Some("born"));
        assert!(candidates(&columns[6..], &[]).is_empty());
    }
}
