//! Dividing the pages that one unit takes into a first part and the rest. Pure.
//!
//! **Invariant:** whatever the sizes are believed to be, the two parts are disjoint and together they are the whole.

use super::share::{Blocks, Slice};

/// The pages of each range: what it says, or for ranges that are open above, their even share of what `pages`, all of the
/// unit's, leaves.
fn sizes(blocks: &[Blocks], pages: u64) -> Vec<u64> {
    let closed = |blocks: &Blocks| blocks.to.map(|to| to.saturating_sub(blocks.from));
    let known: u64 = blocks.iter().filter_map(closed).fold(0, u64::saturating_add);
    let open = blocks.iter().filter(|blocks| blocks.to.is_none()).count().max(1) as u64;
    let each = pages.saturating_sub(known) / open;
    blocks.iter().map(|blocks| closed(blocks).unwrap_or(each)).collect()
}

/// The first `first` pages or so of `pages`, and the rest; none where one of them would be nothing.
pub(crate) fn blocks(blocks: &[Blocks], pages: u64, first: u64) -> Option<(Slice, Slice)> {
    let mut left = first;
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for (range, size) in blocks.iter().zip(sizes(blocks, pages)) {
        if left == 0 {
            other.push(range.clone());
        } else if size <= left {
            left -= size;
            one.push(range.clone());
        } else {
            let at = range.from.checked_add(left)?;
            one.push(Blocks { to: Some(at), ..range.clone() });
            other.push(Blocks { from: at, ..range.clone() });
            left = 0;
        }
    }
    (!one.is_empty() && !other.is_empty()).then_some((Slice::Blocks(one), Slice::Blocks(other)))
}
