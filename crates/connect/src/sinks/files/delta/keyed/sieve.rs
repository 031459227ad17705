//! Which rows of the table a load has to do with: those whose key may come, and those that its scope gives into its hands.

use super::super::super::scope::Scope;
use super::codec::Codec;
use arrow::array::{BooleanArray, RecordBatch};
use gristmill_model::{Result, StagedFile};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bits for each key: of a hundred keys that do not come, less than one is taken for one that does.
const BITS_EACH: u64 = 16;
/// 32 MB, whatever the number of rows.
const MOST_BITS: u64 = 1 << 28;
const HASHES: u64 = 4;

/// Keys that have been seen, and a few that have not: a Bloom filter.
#[derive(Debug)]
pub(super) struct Seen {
    words: Vec<u64>,
}

impl Seen {
    pub(super) fn new(keys: u64) -> Self {
        let bits = keys.saturating_mul(BITS_EACH).clamp(1 << 10, MOST_BITS).next_power_of_two();
        Self { words: vec![0; usize::try_from(bits / 64).unwrap_or(1)] }
    }

    fn places(&self, key: &[u8]) -> impl Iterator<Item = (usize, u64)> + use<> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let (hash, bits) = (hasher.finish(), self.words.len() as u64 * 64);
        let step = hash.rotate_left(32) | 1;
        (0..HASHES).map(move |turn| {
            let bit = hash.wrapping_add(turn.wrapping_mul(step)) % bits;
            (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
        })
    }

    pub(super) fn add(&mut self, key: &[u8]) {
        for (word, bit) in self.places(key) {
            self.words[word] |= bit;
        }
    }

    fn may_have(&self, key: &[u8]) -> bool {
        self.places(key).all(|(word, bit)| self.words[word] & bit != 0)
    }
}

/// Tells rows apart.
#[derive(Debug)]
pub(super) struct Sieve {
    pub(super) seen: Seen,
    pub(super) scope: Option<Scope>,
    /// Rows go by their key.
    pub(super) by_key: bool,
    /// Rows go without one of their key coming: all of them, or those of the scope.
    pub(super) by_absence: bool,
}

impl Sieve {
    /// Which rows the load has to do with, and which of all are in its scope.
    pub(super) fn sort(&self, codec: &Codec, batch: &RecordBatch) -> Result<(BooleanArray, BooleanArray)> {
        let scoped = self.in_scope(batch)?;
        let keys = if self.by_key { codec.keys(batch)? } else { None };
        let comes = |at: usize| keys.as_ref().is_some_and(|keys| self.seen.may_have(keys.row(at).as_ref()));
        let concerns = (0..batch.num_rows()).map(|at| Some((self.by_absence && scoped.value(at)) || comes(at)));
        Ok((concerns.collect(), scoped))
    }

    fn in_scope(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        match &self.scope {
            Some(scope) => scope.rows(batch),
            None => Ok(BooleanArray::from(vec![true; batch.num_rows()])),
        }
    }
}

/// Whether a file of the table may have rows with one of the keys of the staged files, as far as their statistics tell.
/// `kinds`: columns of the key whose bounds can be compared.
pub(super) fn may_meet(stats: Option<&str>, staged: &[&StagedFile], kinds: &[&str]) -> bool {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let Some(old) = stats.and_then(parse) else { return true };
    let new: Option<Vec<Value>> = staged.iter().map(|file| parse(file.handle["stats"].as_str()?)).collect();
    let Some(new) = new else { return true };
    kinds.iter().all(|&column| {
        new.iter().any(|new| match (bounds(&old, column), bounds(new, column)) {
            // Bounds tell nothing of NULL, which `delete+insert` takes for a key like any other.
            _ if may_be_null(&old, column) && may_be_null(new, column) => true,
            (Some((least, most)), Some((first, last))) => overlap(least, most, first, last),
            _ => true,
        })
    })
}

fn bounds<'a>(stats: &'a Value, column: &str) -> Option<(&'a Value, &'a Value)> {
    Some((stats["minValues"].get(column)?, stats["maxValues"].get(column)?))
}

fn may_be_null(stats: &Value, column: &str) -> bool {
    stats["nullCount"].get(column).and_then(Value::as_u64) != Some(0)
}

fn overlap(least: &Value, most: &Value, first: &Value, last: &Value) -> bool {
    if let [Some(least), Some(most), Some(first), Some(last)] = [least, most, first, last].map(Value::as_i64) {
        return first <= most && last >= least;
    }
    match [least, most, first, last].map(Value::as_str) {
        [Some(least), Some(most), Some(first), Some(last)] => first <= most && last >= least,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn a_key_that_comes_is_always_seen(keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..200)) {
            let mut seen = Seen::new(keys.len() as u64);
            keys.iter().for_each(|key| seen.add(key));
            prop_assert!(keys.iter().all(|key| seen.may_have(key)));
        }

        #[test]
        fn a_file_that_may_have_a_key_is_never_left_out(old in (-9_i64..9, 0_i64..9), new in (-9_i64..9, 0_i64..9), key in -20_i64..20) {
            let stats = |(from, more): (i64, i64)| json!({
                "minValues": {"id": from}, "maxValues": {"id": from + more}, "nullCount": {"id": 0},
            }).to_string();
            let file = StagedFile {
                path: String::new(), partition: String::new(), rows: 1, bytes: 1, handle: json!({"stats": stats(new)}),
            };
            let holds = |(from, more): (i64, i64)| (from..=from + more).contains(&key);
            let met = may_meet(Some(&stats(old)), &[&file], &["id"]);
            prop_assert!(met || !(holds(old) && holds(new)));
            prop_assert!(!met || (old.0 <= new.0 + new.1 && new.0 <= old.0 + old.1));
        }
    }

    #[test]
    fn most_keys_that_do_not_come_are_not_seen() {
        let mut seen = Seen::new(1000);
        (0..1000_u32).for_each(|key| seen.add(&key.to_be_bytes()));
        let wrong = (1000..11_000_u32).filter(|key| seen.may_have(&key.to_be_bytes())).count();
        assert!(wrong < 100, "{wrong} of 10000");
    }
}
