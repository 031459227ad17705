//! The units of one extract, claimed by its lanes.
//!
//! Each lane gets its share of the units with the plan. A lane that has read its own takes one that waits in another's
//! share; and when what waits is little for so many lanes, a unit is divided as it is claimed: the lane reads the first part,
//! the rest waits for whoever is idle. So the last unit, or one far larger than was thought, does not leave one connection
//! running alone. A part that is being read is never shortened: what is given away was not begun.

use gristmill_model::WorkUnit;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A claim takes at most this part of a lane's share of all that waits: the nearer the end, the smaller the parts.
const PART: u64 = 2;

/// The units that nobody has claimed yet.
#[derive(Debug)]
pub(crate) struct UnitQueue {
    state: Mutex<State>,
    /// Counts up when units come, or when a claim is settled.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// Units that wait, by the lane whose share they are.
    waiting: Vec<VecDeque<WorkUnit>>,
    /// Claims that may still give something back.
    open: usize,
}

/// A unit that one lane has taken. Until it is settled, other lanes wait for what it may give back.
#[derive(Debug)]
pub(crate) struct Claim {
    queue: Arc<UnitQueue>,
    lane: usize,
    unit: WorkUnit,
    most: Option<u64>,
}

impl UnitQueue {
    /// An empty queue for so many lanes.
    pub(crate) fn new(lanes: usize) -> Arc<Self> {
        let state = State { waiting: vec![VecDeque::new(); lanes.max(1)], open: 0 };
        Arc::new(Self { state: Mutex::new(state), changed: watch::channel(0).0 })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a lane's share of the units in.
    pub(crate) fn add(&self, lane: usize, units: Vec<WorkUnit>) {
        if let Some(share) = self.state().waiting.get_mut(lane) {
            share.extend(units);
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Takes the next unit for a lane: of its own share, else of the largest. None when nothing waits, and nothing can
    /// come back any more.
    pub(crate) async fn claim(self: &Arc<Self>, lane: usize) -> Option<Claim> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let mut state = self.state();
                if let Some(unit) = state.take(lane) {
                    state.open += 1;
                    let most = state.most(&unit);
                    return Some(Claim { queue: self.clone(), lane, unit, most });
                }
                if state.open == 0 {
                    return None;
                }
            }
            // The sender lives as long as this queue.
            changed.changed().await.ok()?;
        }
    }
}

fn weight(unit: &WorkUnit) -> u64 {
    unit.bytes.or(unit.rows).unwrap_or(1).max(1)
}

impl State {
    fn take(&mut self, lane: usize) -> Option<WorkUnit> {
        if let Some(own) = self.waiting.get_mut(lane).and_then(VecDeque::pop_front) {
            return Some(own);
        }
        let most_work = |share: &&mut VecDeque<WorkUnit>| share.iter().map(weight).fold(0, u64::saturating_add);
        // From the end: its own lane goes on from the beginning.
        self.waiting.iter_mut().filter(|share| !share.is_empty()).max_by_key(most_work)?.pop_back()
    }

    /// How many rows of a unit its lane should read at once, so that all lanes end at about the same time.
    fn most(&self, unit: &WorkUnit) -> Option<u64> {
        let lanes = self.waiting.len() as u64;
        let own = unit.rows.filter(|_| lanes > 1)?;
        let waiting = self.waiting.iter().flatten().filter_map(|unit| unit.rows).fold(own, u64::saturating_add);
        Some((waiting / (lanes * PART)).max(1))
    }
}

impl Claim {
    pub(crate) fn unit(&self) -> &WorkUnit {
        &self.unit
    }

    /// How many rows should be read at once, about; none when there is nobody to share with, or rows are not known.
    pub(crate) fn most(&self) -> Option<u64> {
        self.most
    }

    /// Keeps the first part of the unit; the rest waits again.
    pub(crate) fn divide(&mut self, first: WorkUnit, rest: WorkUnit) {
        self.unit = first;
        if let Some(share) = self.queue.state().waiting.get_mut(self.lane) {
            share.push_front(rest);
        }
    }

    /// The unit, to be read now: nothing is given back any more.
    pub(crate) fn settle(self) -> WorkUnit {
        self.unit.clone()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.queue.state().open -= 1;
        self.queue.changed.send_modify(|version| *version += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A unit of whole numbers from one up to another.
    fn unit(from: u64, to: u64) -> WorkUnit {
        WorkUnit {
            ordinal: 0,
            label: format!("{from} to {to}"),
            payload: serde_json::json!([from, to]),
            rows: Some(to - from),
            bytes: None,
        }
    }

    fn bounds(unit: &WorkUnit) -> (u64, u64) {
        (unit.payload[0].as_u64().unwrap(), unit.payload[1].as_u64().unwrap())
    }

    /// Reads everything with lanes that take turns in this order; gives the parts in the order in which they were read.
    async fn drain(shares: &[Vec<u64>], turns: &[usize], least: u64) -> Vec<(usize, u64, u64)> {
        let queue = UnitQueue::new(shares.len());
        let mut end = 0;
        for (lane, sizes) in shares.iter().enumerate() {
            let units = sizes.iter().map(|size| {
                end += size;
                unit(end - size, end)
            });
            queue.add(lane, units.collect());
        }
        let mut read = Vec::new();
        for turn in turns.iter().copied().cycle() {
            let lane = turn % shares.len();
            let Some(mut claim) = queue.claim(lane).await else { break };
            let (from, to) = bounds(claim.unit());
            if let Some(most) = claim.most().map(|most| most.max(least)).filter(|most| *most < to - from) {
                claim.divide(unit(from, from + most), unit(from + most, to));
            }
            let (from, to) = bounds(&claim.settle());
            read.push((lane, from, to));
        }
        read
    }

    proptest! {
        #[test]
        fn every_number_is_read_once_however_lanes_take_turns_and_units_are_divided(
            shares in prop::collection::vec(prop::collection::vec(1u64..500, 0..6), 1..5),
            turns in prop::collection::vec(0usize..5, 1..20),
            least in 1u64..50,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut parts = runtime.block_on(drain(&shares, &turns, least));
            parts.sort_unstable_by_key(|part| part.1);
            let mut end = 0;
            for (_, from, to) in parts {
                prop_assert_eq!(from, end);
                prop_assert!(to > from);
                end = to;
            }
            prop_assert_eq!(end, shares.iter().flatten().sum::<u64>());
        }
    }

    #[tokio::test]
    async fn one_large_unit_is_shared_by_all_lanes_and_parts_shrink_towards_the_end() {
        let parts = drain(&[vec![1000], vec![], vec![], vec![]], &[0, 1, 2, 3], 10).await;
        let of_lane = |lane: usize| parts.iter().filter(|part| part.0 == lane).map(|part| part.2 - part.1).sum::<u64>();
        assert!((0..4).all(|lane| (150..400).contains(&of_lane(lane))), "{parts:?}");
        assert!(parts.first().unwrap().2 == 125 && parts.iter().all(|part| part.2 - part.1 <= 125), "{parts:?}");
        // Alone, a lane reads units as they are.
        assert_eq!(drain(&[vec![1000, 20]], &[0], 1).await, [(0, 0, 1000), (0, 1000, 1020)]);
    }

    #[tokio::test]
    async fn an_idle_lane_waits_for_what_another_is_about_to_give_back() {
        let queue = UnitQueue::new(2);
        queue.add(0, vec![unit(0, 100)]);
        let mut claim = queue.claim(0).await.unwrap();
        let idle = tokio::spawn({
            let queue = queue.clone();
            async move { queue.claim(1).await.map(Claim::settle) }
        });
        tokio::task::yield_now().await;
        assert!(!idle.is_finished());
        claim.divide(unit(0, 50), unit(50, 100));
        assert_eq!(bounds(&claim.settle()), (0, 50));
        assert_eq!(bounds(&idle.await.unwrap().unwrap()), (50, 100));
        // A claim that is dropped (its lane was stopped) keeps nobody waiting.
        queue.add(0, vec![unit(0, 100)]);
        let claim = queue.claim(0).await.unwrap();
        let idle = tokio::spawn({
            let queue = queue.clone();
            async move { queue.claim(1).await.is_none() }
        });
        tokio::task::yield_now().await;
        drop(claim);
        assert!(idle.await.unwrap());
    }
}
