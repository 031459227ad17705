//! Pages of heaps, packed into ctid ranges of about the same size. Pure.

use super::share::Blocks;

/// A table that holds rows itself: a plain table, a materialized view, or a leaf of a partitioned one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heap {
    /// The name in SQL, to be read with `ONLY`; none for the relation that the extract names, read as it stands.
    pub(crate) relation: Option<String>,
    /// Its pages now.
    pub(crate) pages: u64,
    /// Its rows, about.
    pub(crate) rows: f64,
}

/// A unit: ranges of pages, and about how much there is in them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packed {
    pub(crate) blocks: Vec<Blocks>,
    pub(crate) pages: u64,
    pub(crate) rows: f64,
}

/// Cuts the pages of all heaps, one after the other, into `units` shares of the same number of pages (or fewer units,
/// when there are fewer pages). The last range of each heap is open above: pages may be added while units are read, and
/// what the snapshot sees of them belongs to it. Every heap is in it, also one without pages.
pub(crate) fn pack(heaps: &[Heap], units: u32) -> Vec<Packed> {
    let total: u64 = heaps.iter().map(|heap| heap.pages).sum();
    let units = u64::from(units.max(1)).min(total.max(1));
    // Where share `index` ends; widened, since pages times units may be large.
    let end_of = |index: u64| {
        let end = u128::from(total) * u128::from(index + 1) / u128::from(units);
        u64::try_from(end).unwrap_or(total)
    };
    let mut packed = vec![Packed { blocks: Vec::new(), pages: 0, rows: 0.0 }];
    let mut passed = 0;
    for heap in heaps {
        let density = if heap.pages == 0 { 0.0 } else { heap.rows / heap.pages as f64 };
        let mut from = 0;
        loop {
            let room = end_of(packed.len() as u64 - 1).saturating_sub(passed);
            let is_last_share = packed.len() as u64 == units;
            let rest = heap.pages - from;
            let take = if is_last_share { rest } else { rest.min(room) };
            let ends_heap = take == rest;
            if let Some(share) = packed.last_mut()
                && (take > 0 || ends_heap)
            {
                let to = if ends_heap { None } else { Some(from + take) };
                share.blocks.push(Blocks { relation: heap.relation.clone(), from, to });
                share.pages += take;
                share.rows += density * take as f64;
            }
            passed += take;
            from += take;
            if !is_last_share && passed >= end_of(packed.len() as u64 - 1) && passed < total {
                packed.push(Packed { blocks: Vec::new(), pages: 0, rows: 0.0 });
            }
            if ends_heap {
                break;
            }
        }
    }
    packed
}
