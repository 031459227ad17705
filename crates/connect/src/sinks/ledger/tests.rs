use super::*;
use proptest::prelude::*;

fn at(day: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + day * 86_400, 0).unwrap()
}

/// A load of `series/interval#generation` on a day, with a sequence.
fn load(number: u64, text: &str, sequence: u64, day: i64) -> Known {
    let (slot, generation) = text.split_once('#').unwrap();
    let series = slot.split_once('/').unwrap().0.to_owned();
    let generation = generation.parse().unwrap();
    Known { number, kind: Kind::Load, slot: slot.to_owned(), series, generation, sequence, at: at(day) }
}

fn of_kind(kind: Kind, known: Known) -> Known {
    Known { kind, ..known }
}

#[test]
fn what_may_be_forgotten() {
    let compaction = |number, day| of_kind(Kind::Compaction, load(number, "c/now#1", 0, day));
    let given_up = |number, text, day| of_kind(Kind::GivenUp, load(number, text, 0, day));
    let pending = |number, text, day| of_kind(Kind::Pending, load(number, text, 0, day));
    // All that is from before day 10 is old.
    let cases: [(&str, Vec<Known>, &[u64]); 16] = [
        ("nothing is known", vec![], &[]),
        ("the only entry is the newest", vec![load(1, "a/x#1", 0, 0)], &[]),
        ("old intervals go", vec![load(1, "a/x#1", 0, 0), load(2, "a/y#1", 0, 5), load(3, "a/z#1", 0, 20)], &[1, 2]),
        ("young ones stay", vec![load(1, "a/x#1", 0, 10), load(2, "a/y#1", 0, 20)], &[]),
        ("an earlier generation goes", vec![load(1, "a/x#1", 0, 0), load(2, "a/x#2", 0, 20)], &[1]),
        (
            "a later generation does not go before an earlier one, whatever the clock said",
            vec![load(1, "a/x#1", 0, 15), load(2, "a/x#2", 0, 0), load(3, "a/y#1", 0, 20)],
            &[],
        ),
        (
            "nor does what came later and is of an earlier generation",
            vec![load(1, "a/x#2", 0, 15), load(2, "a/x#1", 0, 0), load(3, "a/y#1", 0, 20)],
            &[],
        ),
        (
            "one that is held back holds back the next",
            vec![
                load(1, "a/x#3", 0, 15),
                load(2, "a/x#2", 0, 0),
                load(3, "a/x#4", 0, 0),
                load(4, "a/y#1", 0, 20),
                load(5, "a/x#1", 0, 0),
            ],
            &[],
        ),
        (
            "each series keeps its newest load",
            vec![load(1, "a/x#1", 0, 0), load(2, "b/x#1", 0, 0), load(3, "b/y#1", 0, 1), load(4, "a/y#1", 0, 20)],
            &[1, 2],
        ),
        (
            "a series keeps its cursor, though loads without one came after it",
            vec![load(1, "a/x#1", 1, 0), load(2, "a/y#1", 2, 1), load(3, "a/z#1", 0, 2), load(4, "a/w#1", 0, 20)],
            &[1, 3],
        ),
        (
            "the greatest sequence and the newest one",
            vec![load(1, "a/x#1", 7, 0), load(2, "a/y#1", 2, 1), load(3, "a/z#1", 1, 2), load(4, "a/w#1", 0, 20)],
            &[2],
        ),
        (
            "what is kept for its cursor keeps the later generations of its slot",
            vec![load(1, "a/x#1", 1, 0), load(2, "a/x#2", 0, 1), load(3, "a/y#1", 0, 20)],
            &[],
        ),
        ("what is not done stays", vec![pending(1, "a/x#1", 0), load(2, "a/y#1", 0, 1), load(3, "a/z#1", 0, 20)], &[2]),
        (
            "what is not done stands for no load",
            vec![load(1, "b/x#1", 0, 0), pending(2, "b/y#1", 1), load(3, "a/x#1", 0, 20)],
            &[],
        ),
        (
            "compactions and loads that were given up go",
            vec![compaction(1, 0), given_up(2, "a/x#1", 0), compaction(3, 15), load(4, "a/x#1", 0, 20)],
            &[1, 2],
        ),
        (
            "but for the greatest number, and what says the columns",
            vec![
                load(1, "a/x#1", 0, 0),
                compaction(2, 1),
                compaction(3, 1),
                given_up(4, "a/y#1", 1),
                given_up(5, "a/z#1", 2),
            ],
            &[2, 4],
        ),
    ];
    for (case, known, gone) in cases {
        let gone: BTreeSet<u64> = gone.iter().copied().collect();
        assert_eq!(forgotten(&known, at(10)), gone, "{case}");
    }
}

#[test]
fn a_limit_beyond_the_calendar_keeps_everything() {
    assert_eq!(limit(at(10), Duration::from_hours(24)), Some(at(9)));
    assert_eq!(limit(at(10), Duration::MAX), None);
    assert_eq!(limit(at(10), Duration::from_hours(24 * 365 * 1_000_000)), None);
}

/// What happens to a target: a commit of a slot, with a cursor or without, after some days (the clock may jump back).
#[derive(Debug, Clone)]
struct Event {
    series: u8,
    interval: u8,
    cursor: bool,
    days: i64,
    kind: Kind,
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![8 => Just(Kind::Load), 1 => Just(Kind::Compaction), 1 => Just(Kind::GivenUp)];
    let days = prop_oneof![9 => 0..6_i64, 1 => -8..0_i64];
    (0..3_u8, 0..6_u8, any::<bool>(), days, kind).prop_map(|(series, interval, cursor, days, kind)| Event {
        series,
        interval,
        cursor,
        days,
        kind,
    })
}

/// As `Log::last` and the ledgers' `last_load` answer.
fn last<'a>(known: &'a [Known], slot: &str, by_number: bool) -> Option<&'a Known> {
    let loads = known.iter().filter(|one| one.kind == Kind::Load && one.slot == slot);
    loads.max_by_key(|one| if by_number { one.number } else { u64::from(one.generation) })
}

/// As `Log::checkpoint` and the ledgers' `newest_checkpoint` answer: whether there is any, and its sequence.
fn checkpoint(known: &[Known], series: &str, by_number: bool) -> Option<u64> {
    let loads = || known.iter().filter(|one| one.kind == Kind::Load && one.series == series);
    let with_cursor = loads().filter(|one| one.sequence > 0);
    let found = with_cursor.max_by_key(|one| if by_number { one.number } else { one.sequence });
    found.or_else(|| loads().next()).map(|one| one.sequence)
}

/// What the log of files shows: the oldest entries up to the first young one, and the one just written.
fn oldest(known: &[Known], limit: DateTime<Utc>, most: usize) -> Vec<Known> {
    let (own, before) = known.split_last().unwrap();
    let end = before.iter().position(|one| one.at >= limit && one.at <= own.at).map_or(before.len(), |at| at + 1);
    before[..end.min(most)].iter().chain([own]).cloned().collect()
}

/// What a database shows: the slots of the series that have an old entry, and the load just entered.
fn of_series(known: &[Known], limit: DateTime<Utc>) -> Vec<Known> {
    let (own, before) = known.split_last().unwrap();
    let same = || before.iter().filter(|one| one.series == own.series);
    let slots: BTreeSet<&str> = same().filter(|one| one.at < limit).map(|one| one.slot.as_str()).collect();
    let mut shown: Vec<Known> = same().filter(|one| slots.contains(one.slot.as_str())).cloned().collect();
    shown.sort_by_key(|one| one.at);
    shown.push(own.clone());
    shown
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// With and without retention, what is alive is answered alike.
    #[test]
    fn a_ledger_that_forgets_answers_as_one_that_does_not(
        events in prop::collection::vec(event(), 1..60),
        keep in 1..20_i64,
        most in 1..20_usize,
        is_files in any::<bool>(),
    ) {
        let (mut whole, mut kept): (Vec<Known>, Vec<Known>) = (Vec::new(), Vec::new());
        let (mut day, mut reach, mut ever): (i64, i64, BTreeSet<u64>) = (0, -1_000, BTreeSet::new());
        for event in events {
            if event.kind != Kind::Load && !is_files {
                continue;
            }
            day += event.days;
            let slot = format!("{}/{}", event.series, event.interval);
            // The store of runs counts on; only what is asked of the target may change.
            let generation = whole.iter().filter(|one| one.kind == Kind::Load && one.slot == slot).count() + 1;
            let series = event.series.to_string();
            let sequence = checkpoint(&whole, &series, is_files).filter(|_| event.cursor).unwrap_or_default();
            let sequence = if event.cursor { sequence + 1 } else { 0 };
            let number = kept.iter().map(|one: &Known| one.number).max().unwrap_or_default() + 1;
            prop_assert!(ever.insert(number), "no number is taken twice");
            let new = load(number, &format!("{slot}#{generation}"), sequence, day);
            // Compactions have a slot of their own each.
            let new = match event.kind {
                Kind::Compaction => {
                    let own = format!("c{number}/now#1");
                    of_kind(Kind::Compaction, load(number, &own, 0, day))
                }
                kind => of_kind(kind, new),
            };
            whole.push(new.clone());
            kept.push(new.clone());
            if event.kind == Kind::Load {
                let limit = at(day - keep);
                reach = reach.max(day - keep);
                let shown = if is_files { oldest(&kept, limit, most) } else { of_series(&kept, limit) };
                let gone = forgotten(&shown, limit);
                prop_assert!(kept.iter().all(|one| one.at < limit || !gone.contains(&one.number)));
                kept.retain(|one| !gone.contains(&one.number));
            }

            let columns = |known: &[Known]| {
                known.iter().filter(|one| one.kind != Kind::GivenUp).map(|one| one.number).max()
            };
            prop_assert_eq!(columns(&whole), columns(&kept));
            for one in &whole {
                prop_assert_eq!(checkpoint(&whole, &one.series, is_files), checkpoint(&kept, &one.series, is_files));
                let (then, now) = (last(&whole, &one.slot, is_files), last(&kept, &one.slot, is_files));
                // A slot is answered with its newest load, or as one that is forgotten with all of its loads.
                prop_assert!(now.is_none() || now == then, "{:?} instead of {:?}", now, then);
            }
            // The slot of a series' newest load is never forgotten, nor is any load that is young.
            let newest = whole.iter().rfind(|one| one.kind == Kind::Load && one.series == series);
            prop_assert!(newest.is_none_or(|newest| last(&kept, &newest.slot, is_files).is_some()));
            prop_assert!(whole.iter().all(|one| one.at < at(reach) || kept.contains(one)));
        }
    }
}
