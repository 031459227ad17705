//! The log beside a target's files as a function of bytes; see [`crate::fuzzing`].

use super::log::Entry;

/// An entry, and what is told of it.
pub(crate) fn ledger_entry(bytes: &[u8]) {
    let Ok(entry) = serde_json::from_slice::<Entry>(bytes) else { return };
    let committed = entry.committed(true);
    assert_eq!(committed.key, entry.key);
    assert!(!entry.key.short().is_empty());
    let again = serde_json::to_vec(&entry).ok().and_then(|text| serde_json::from_slice::<Entry>(&text).ok());
    let noted = |entry: Entry| (entry.checkpoint, entry.columns, entry.shape);
    assert_eq!(again.map(noted), Some(noted(entry)));
}
