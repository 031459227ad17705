//! `retention: {keep: 90d}`: partitions that are old go, in the commit of a load.
//!
//! How old is counted from the end of the run's interval, not from now: a run for an earlier date drops what was old
//! then, and doing it again decides the same. Partitions that get rows in the same commit stay: they are wanted.

use super::config::{Config, wrong};
use super::layout::{partition_values, split};
use super::place::Place;
use arrow::datatypes::{DataType, Field};
use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{Duration, Error, ErrorKind, Result, StagedFile, one_of};
use std::collections::BTreeSet;

/// Which partitions are old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retention {
    column: String,
    keep: Duration,
}

impl Retention {
    /// What `load` says of partitions by `columns`.
    ///
    /// # Errors
    /// Strategies and partitions that it means nothing to.
    pub(super) fn new(load: &LoadSpec, columns: &[&Field]) -> Result<Option<Self>> {
        let Some(retention) = &load.retention else { return Ok(None) };
        if let Strategy::Replace | Strategy::TruncateInsert = load.strategy {
            let strategy = load.strategy.as_str();
            return Err(wrong(format!("`retention` means nothing to `strategy: {strategy}`, which keeps nothing"))
                .hint("remove `retention`"));
        }
        let example = "partition by a date: `partition_by: [date(created_at)]`";
        let column = match &retention.column {
            Some(name) => columns.iter().find(|field| field.name() == name).ok_or_else(|| {
                let message = format!("`retention` names `{name}`, which is no partition column");
                Error::new(ErrorKind::Schema, message)
                    .hint(one_of(name, columns.iter().map(|field| field.name().as_str())))
            })?,
            None => match columns.iter().filter(|field| is_time(field.data_type())).collect::<Vec<_>>().as_slice() {
                [one] => one,
                [] => return Err(wrong("`retention` needs a partition column that holds dates").hint(example)),
                _ => return Err(wrong("`retention` does not say which partition column counts").hint("add `column`")),
            },
        };
        if !is_time(column.data_type()) && !is_text(column.data_type()) {
            return Err(wrong(format!(
                "`retention` cannot count by `{}` of type {}",
                column.name(),
                column.data_type()
            ))
            .hint(example));
        }
        Ok(Some(Self { column: column.name().clone(), keep: retention.keep }))
    }

    /// Whether everything in the partition is from before the time that is kept, at the end of an interval. A value that is
    /// no date is kept, NULL too.
    fn is_old(&self, folder: &str, end: DateTime<Utc>) -> bool {
        self.drops(&partition_values(folder).unwrap_or_default(), end)
    }

    /// The same for a partition that is given by its values.
    pub(super) fn drops(&self, values: &[(String, Option<String>)], end: DateTime<Utc>) -> bool {
        let Some(limit) = self.limit(end) else { return false };
        let value = values.iter().find(|(column, _)| *column == self.column).and_then(|(_, value)| value.as_ref());
        value.and_then(|value| end_of(value)).is_some_and(|end| end <= limit)
    }

    fn limit(&self, end: DateTime<Utc>) -> Option<NaiveDateTime> {
        let keep = chrono::Duration::from_std(self.keep.0).ok()?;
        end.naive_utc().checked_sub_signed(keep)
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

/// The first moment behind what a partition's value stands for: a date is a whole day, a timestamp a moment.
fn end_of(value: &str) -> Option<NaiveDateTime> {
    if let Ok(date) = value.parse::<NaiveDate>() {
        return Some(date.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN));
    }
    // With a zone it is written with a `T` and an offset, without one with a space.
    let of_zone = DateTime::parse_from_rfc3339(value).ok().map(|moment| moment.naive_utc());
    let plain = |format: &str| NaiveDateTime::parse_from_str(value.trim_end_matches('Z'), format).ok();
    let moment = of_zone.or_else(|| plain("%Y-%m-%d %H:%M:%S%.f")).or_else(|| plain("%Y-%m-%dT%H:%M:%S%.f"))?;
    moment.checked_add_signed(chrono::Duration::nanoseconds(1))
}

/// The files of old partitions, but for those of partitions that `publish` writes to.
///
/// # Errors
/// A place that cannot be listed.
pub(super) async fn expired(
    place: &Place,
    config: &Config,
    publish: &[StagedFile],
    end: DateTime<Utc>,
) -> Result<Vec<String>> {
    let Some(retention) = &config.retention else { return Ok(Vec::new()) };
    let written: BTreeSet<&str> = publish.iter().map(|file| file.partition.as_str()).collect();
    let mut files = place.data_files().await?;
    files.retain(|path| {
        let folder = split(path).0;
        !written.contains(folder) && retention.is_old(folder, end)
    });
    Ok(files)
}

/// What the next commit would drop, for people.
///
/// # Errors
/// A place that cannot be listed.
pub(super) async fn announced(place: &Place, config: &Config, end: DateTime<Utc>) -> Result<Vec<String>> {
    let Some(retention) = &config.retention else { return Ok(Vec::new()) };
    let files = expired(place, config, &[], end).await?;
    let folders = files.iter().map(|path| split(path).0.to_owned()).collect();
    Ok(retention.told(&folders, &config.path, end).into_iter().collect())
}

impl Retention {
    /// What it drops, for people; none where that is nothing.
    pub(super) fn told(&self, folders: &BTreeSet<String>, path: &str, end: DateTime<Utc>) -> Option<String> {
        let (first, last, limit) = (folders.first()?, folders.last()?, self.limit(end)?);
        let which = if first == last { format!("`{first}`") } else { format!("`{first}` to `{last}`") };
        Some(format!("drops {} of `{path}`, older than {limit}: {which}", count(folders.len())))
    }
}

fn count(partitions: usize) -> String {
    if partitions == 1 { "1 partition".to_owned() } else { format!("{partitions} partitions") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::spec;

    fn retention(keep: &str, column: Option<&str>, columns: &[(&str, DataType)]) -> Result<Option<Retention>> {
        let mut load = LoadSpec::new("a".into(), "b".into(), Strategy::Append);
        load.retention = Some(spec::Retention { keep: keep.parse().unwrap(), column: column.map(str::to_owned) });
        let fields: Vec<Field> = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect();
        Retention::new(&load, &fields.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_partition_is_old_when_all_of_it_is() {
        let end = "2024-01-16T00:00:00Z".parse().unwrap();
        let by_date = retention("7d", None, &[("city", DataType::Utf8), ("date", DataType::Date32)]).unwrap().unwrap();
        for (folder, is_old) in [
            ("city=x/date=2024-01-08", true),
            ("city=x/date=2024-01-09", false),
            ("date=2024-01-15", false),
            ("date=2030-01-01", false),
            ("date=__HIVE_DEFAULT_PARTITION__", false),
            ("date=soon", false),
            ("day=2020-01-01", false),
            ("", false),
            ("date=2024-01-08 23%3A59%3A59", true),
            ("date=2024-01-09 00%3A00%3A00", false),
        ] {
            assert_eq!(by_date.is_old(folder, end), is_old, "{folder}");
        }
    }

    #[test]
    fn what_says_no_age_is_refused() {
        let number = ("n", DataType::Int32);
        let (one, two) = (("a", DataType::Date32), ("b", DataType::Date32));
        assert!(
            retention("7d", None, std::slice::from_ref(&number))
                .unwrap_err()
                .message()
                .contains("needs a partition column")
        );
        assert!(
            retention("7d", None, &[one.clone(), two.clone()]).unwrap_err().message().contains("does not say which")
        );
        assert!(retention("7d", Some("b"), &[one.clone(), two]).unwrap().is_some());
        assert!(retention("7d", Some("t"), &[("t", DataType::Utf8)]).unwrap().is_some());
        assert!(retention("7d", Some("n"), &[number]).unwrap_err().message().contains("cannot count by `n`"));
        assert!(retention("7d", Some("c"), &[one]).unwrap_err().message().contains("no partition column"));
    }
}
