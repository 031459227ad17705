//! Delta tables, read by their log and by nothing of ours.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a table's log says.
#[derive(Default)]
pub(super) struct Log {
    /// The files of the table now.
    pub(super) now: BTreeSet<PathBuf>,
    /// Every file that it has ever had.
    ever: BTreeSet<PathBuf>,
    /// Which records the application transactions name.
    records: BTreeSet<u64>,
}

impl Log {
    /// Reads the entries below a table, in order.
    pub(super) fn read(table: &Path) -> Result<Self, String> {
        let mut log = Self::default();
        let entries = std::fs::read_dir(table.join("_delta_log")).into_iter().flatten().flatten();
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_entry(path)).collect();
        entries.sort();
        for (at, path) in entries.iter().enumerate() {
            let broken = |error: &dyn std::fmt::Display| format!("`{}` is broken: {error}", path.display());
            if !path.ends_with(format!("{at:020}.json")) {
                return Err(broken(&format!("version {at} is missing")));
            }
            let text = std::fs::read_to_string(path).map_err(|error| broken(&error))?;
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).map_err(|error| broken(&error))?;
                let file = |action: &str| Some(table.join(line[action]["path"].as_str()?));
                if let Some(path) = file("remove") {
                    log.now.remove(&path);
                }
                if let Some(path) = file("add") {
                    log.now.insert(path.clone());
                    log.ever.insert(path);
                }
                log.records.extend(line["txn"]["version"].as_u64().map(|version| version & 0xffff_ffff));
            }
        }
        Ok(log)
    }

    /// Whether a file below the table is one that stays: of some version of it, of the log, or a record of a load that
    /// the log knows.
    pub(super) fn keeps(&self, table: &Path, path: &Path) -> bool {
        let below = path.strip_prefix(table).unwrap_or(path);
        let is_record = below.strip_prefix("_gristmill/loads").is_ok_and(|name| {
            let name = name.to_string_lossy();
            let first = name.split('.').nth(5).and_then(|unique| u64::from_str_radix(unique.get(..8)?, 16).ok());
            first.is_some_and(|first| self.records.contains(&first))
        });
        let is_log = below.starts_with("_delta_log") && is_entry(path);
        is_record || is_log || below == Path::new("_gristmill/lock") || self.ever.contains(path)
    }
}

fn is_entry(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".json").is_some_and(|number| number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit()))
}
