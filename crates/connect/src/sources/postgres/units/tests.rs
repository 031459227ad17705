use super::blocks::{Heap, pack};
use super::decide::{Chosen, Facts, Relation, count, decide, describe};
use super::keys::{Cut, KeyKind, Marker, Mass, cuts, masses, slices, thin};
use super::share::{Blocks, Edge, Slice};
use super::split;
use super::thousands;
use crate::sources::postgres::names::Postgres;
use crate::units::decide::MOST_UNITS;
use crate::units::split::keys;
use gristmill_model::spec::{UnitStrategy, UnitsSpec};
use proptest::prelude::*;

fn heap(name: &str, pages: u64, rows: f64) -> Heap {
    Heap { relation: Some(name.to_owned()), pages, rows }
}

proptest! {
    #[test]
    fn ctid_ranges_tile_the_pages_of_every_table(
        pages in prop::collection::vec(0u64..300, 0..12),
        units in 1u32..40,
    ) {
        let heaps: Vec<Heap> = pages.iter().enumerate().map(|(n, pages)| heap(&format!("t{n}"), *pages, 10.0)).collect();
        let packed = pack(&heaps, units);
        let total: u64 = pages.iter().sum();
        prop_assert!(packed.len() as u64 <= u64::from(units).min(total.max(1)));
        // Put together in order, the ranges of each table begin at 0, meet, and the last is open.
        for heap in &heaps {
            let ranges: Vec<&Blocks> = packed.iter().flat_map(|share| &share.blocks).filter(|blocks| blocks.relation == heap.relation).collect();
            prop_assert!(!ranges.is_empty());
            prop_assert_eq!(ranges[0].from, 0);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].to, Some(pair[1].from));
                prop_assert!(pair[0].from < pair[1].from);
            }
            prop_assert_eq!(ranges[ranges.len() - 1].to, None);
        }
        // No share is empty, and none has a page more than its part.
        for share in &packed {
            prop_assert!(heaps.is_empty() || !share.blocks.is_empty());
            prop_assert!(share.pages <= total.div_ceil(packed.len() as u64) + 1);
        }
        prop_assert_eq!(packed.iter().map(|share| share.pages).sum::<u64>(), total);
    }

    #[test]
    fn cuts_between_whole_numbers_ascend_and_every_number_is_in_one_range(
        mut values in prop::collection::vec(prop_oneof![any::<i64>(), -5i64..5, Just(i64::MIN), Just(i64::MAX)], 2..40),
        common in prop::collection::vec((0usize..40, 0.0f64..0.3), 0..4),
        target in 1.0f64..500.0,
        probes in prop::collection::vec(prop_oneof![any::<i64>(), -6i64..6], 20),
    ) {
        values.sort_unstable();
        values.dedup();
        let mut markers: Vec<Marker> = values.iter().map(|value| Marker { value: value.to_string(), share: None }).collect();
        for (at, share) in common {
            let value = values[at % values.len()].to_string();
            if !markers.iter().any(|marker| marker.value == value && marker.share.is_some()) {
                let at = markers.iter().position(|marker| marker.value == value).unwrap();
                markers.insert(at + 1, Marker { value, share: Some(share) });
            }
        }
        let cuts = cuts(&masses(&markers, 1000.0, 0.05), KeyKind::Integer, target);
        let at = |cut: &Cut| (cut.edge.value.parse::<i128>().unwrap(), cut.edge.after);
        for pair in cuts.windows(2) {
            prop_assert!(at(&pair[0]) < at(&pair[1]), "{:?}", cuts);
        }
        let slices = slices("k", cuts, 1000.0, 0.05, target, 400);
        for probe in probes.iter().chain(&values).map(|value| i128::from(*value)) {
            let takes = slices.iter().filter(|(slice, _)| match slice {
                Slice::Keys { from, to, .. } => {
                    let value = |edge: &Edge| edge.value.parse::<i128>().unwrap();
                    from.as_ref().is_none_or(|edge| probe > value(edge) || (!edge.after && probe == value(edge)))
                        && to.as_ref().is_none_or(|edge| probe < value(edge) || (edge.after && probe == value(edge)))
                }
                _ => false,
            });
            prop_assert_eq!(takes.count(), 1);
        }
        let with_nulls = slices.iter().filter(|(slice, _)| matches!(slice, Slice::NoKey { .. } | Slice::Keys { nulls: true, .. }));
        prop_assert_eq!(with_nulls.count(), 1);
    }
}

fn bounds(values: &[&str]) -> Vec<Marker> {
    values.iter().map(|value| Marker { value: (*value).to_owned(), share: None }).collect()
}

fn shown(cuts: &[Cut]) -> Vec<String> {
    cuts.iter().map(|cut| format!("{}{}", cut.edge.value, if cut.edge.after { "+" } else { "" })).collect()
}

#[test]
fn cuts_follow_the_histogram_rather_than_the_least_and_the_greatest() {
    // Nine tenths of the rows lie below 100.
    let markers = bounds(&["0", "20", "40", "60", "80", "100", "1000000"]);
    let found = cuts(&masses(&markers, 6000.0, 0.0), KeyKind::Integer, 1000.0);
    assert_eq!(shown(&found), ["20", "40", "60", "80", "100"]);
    let halves = cuts(&masses(&markers, 6000.0, 0.0), KeyKind::Integer, 500.0);
    assert_eq!(shown(&halves)[..4], ["10", "20", "30", "40"]);
}

#[test]
fn a_common_value_is_a_unit_of_its_own() {
    let mut markers = bounds(&["0", "10", "20"]);
    markers.insert(1, Marker { value: "5".into(), share: Some(0.8) });
    let found = cuts(&masses(&markers, 10_000.0, 0.0), KeyKind::Integer, 1000.0);
    assert_eq!(shown(&found), ["5", "5+", "20"][..2].to_vec());
    let units = slices("k", found, 10_000.0, 0.0, 1000.0, 400);
    assert_eq!(units[1].0.label("t"), "t k in [5, 5]");
    assert!((units[1].1 - 8000.0).abs() < 1.0, "{units:?}");
}

#[test]
fn equal_keys_alone_are_one_unit() {
    let markers = vec![Marker { value: "7".into(), share: Some(1.0) }];
    assert_eq!(cuts(&masses(&markers, 1e6, 0.0), KeyKind::Integer, 1000.0), []);
    assert_eq!(masses(&[], 1e6, 0.0), []);
    assert_eq!(slices("k", Vec::new(), 0.0, 0.0, 1000.0, 1).len(), 1);
}

#[test]
fn values_between_two_others_are_computed_where_that_can_be() {
    let split = |kind: KeyKind, low: &str, high: &str, parts: f64| {
        shown(&cuts(&[Mass::Between(low.into(), high.into(), parts)], kind, 1.0))
    };
    let edges = split(KeyKind::Integer, "-9223372036854775808", "9223372036854775807", 2.0);
    assert_eq!(edges, ["-1"]);
    assert_eq!(split(KeyKind::Integer, "1", "2", 4.0), [""; 0]);
    assert_eq!(split(KeyKind::Numeric, "-0.5", "0.5", 2.0), ["0.0000"]);
    assert_eq!(split(KeyKind::Numeric, "1", "NaN", 2.0), [""; 0]);
    assert_eq!(split(KeyKind::Date, "2024-01-01", "2024-03-01", 2.0), ["2024-01-31"]);
    assert_eq!(split(KeyKind::Date, "2024-01-01", "infinity", 2.0), [""; 0]);
    let uuids =
        split(KeyKind::Uuid, "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", 2.0);
    assert!(uuids[0].starts_with("7fffffff"), "{uuids:?}");
    // Long ranges of time are cut at midnight, shorter ones at the hour.
    let days = split(KeyKind::Timestamp { zoned: true }, "2024-03-30 10:11:12+00", "2024-04-03 10:11:12+00", 4.0);
    assert_eq!(days, ["2024-03-31 00:00:00+00", "2024-04-01 00:00:00+00", "2024-04-02 00:00:00+00"]);
    let hours = split(KeyKind::Timestamp { zoned: false }, "2024-03-30 10:11:12", "2024-03-30 14:11:12.5", 4.0);
    assert_eq!(hours, ["2024-03-30 11:00:00", "2024-03-30 12:00:00", "2024-03-30 13:00:00"]);
    assert_eq!(split(KeyKind::Other, "a", "z", 4.0), [""; 0]);
}

#[test]
fn too_many_cuts_are_thinned_evenly_and_no_row_is_forgotten() {
    let all: Vec<Cut> =
        (0..99).map(|n| Cut { edge: Edge { value: n.to_string(), after: false }, rows: 10.0 }).collect();
    let kept = thin(all.clone(), 9);
    assert_eq!(shown(&kept), ["9", "19", "29", "39", "49", "59", "69", "79", "89"]);
    assert!(kept.iter().all(|cut| (cut.rows - 100.0).abs() < 1e-9));
    assert_eq!(thin(all.clone(), 200).len(), 99);
    assert_eq!(thin(all, 0), []);
}

fn facts() -> Facts {
    Facts {
        version: 150_000,
        relation: Relation::Table,
        heaps: Ok(vec![Heap { relation: None, pages: 105_000, rows: 6_001_215.0 }]),
        rows: Some(6_001_215),
        by_index: false,
        key: Some("id".into()),
        foreign: false,
        snapshot: Ok(()),
    }
}

fn auto(facts: &Facts) -> (Chosen, String) {
    let decision = decide(facts, &UnitsSpec::default()).unwrap();
    (decision.chosen, decision.why)
}

#[test]
fn units_are_near_the_target_and_not_too_many() {
    let spec = UnitsSpec::default();
    assert_eq!(count(0, &spec), 1);
    assert_eq!(count(6_001_215, &spec), 121);
    assert_eq!(count(u64::MAX, &spec), MOST_UNITS);
    let asked = UnitsSpec { target_rows: Some(10), max: Some(7), ..UnitsSpec::default() };
    assert_eq!(count(45, &asked), 5);
    assert_eq!(count(1000, &asked), 7);
}

#[test]
fn auto_takes_what_is_right_for_what_is_read_and_says_why() {
    assert_eq!(auto(&facts()).0, Chosen::Ctid { units: 121 });
    let cases: [(&str, Facts, &str); 9] = [
        ("small", Facts { rows: Some(49_999), ..facts() }, "one unit: fewer than 50,000 rows"),
        ("view", Facts { relation: Relation::View, heaps: Err("a view".into()), ..facts() }, "one unit: a view"),
        ("query", Facts { relation: Relation::Query, heaps: Err("a query".into()), ..facts() }, "one unit: a query"),
        ("foreign", Facts { foreign: true, ..facts() }, "one unit: the rows come from another server"),
        (
            "old",
            Facts { version: 130_000, ..facts() },
            "ranges of the primary key `id`: ctid ranges need PostgreSQL 14",
        ),
        ("old, no key", Facts { version: 130_000, key: None, ..facts() }, "one unit: ctid ranges need PostgreSQL 14"),
        (
            "child",
            Facts { heaps: Err("x has row security".into()), ..facts() },
            "ranges of the primary key `id`: x has row",
        ),
        (
            "index",
            Facts { rows: Some(60_000), by_index: true, ..facts() },
            "one unit: the condition finds about 60,000 of",
        ),
        ("standby", Facts { snapshot: Err("no snapshot".into()), ..facts() }, "one unit: no snapshot"),
    ];
    for (name, facts, why) in cases {
        assert!(auto(&facts).1.starts_with(why), "{name}: {}", auto(&facts).1);
    }
    let why = describe("ctid ranges", Some(6_001_215), 121, "t blocks 0 to 867");
    assert_eq!(why, "about 6,001,215 rows; ctid ranges; 121 units of about 49,597 rows, such as `t blocks 0 to 867`");
}

#[test]
fn a_strategy_that_cannot_be_is_refused_with_one_that_can() {
    let ask = |strategy: UnitStrategy, facts: &Facts| decide(facts, &UnitsSpec { strategy, ..UnitsSpec::default() });
    let no_key = Facts { key: None, ..facts() };
    let error = ask(UnitStrategy::IdRange, &no_key).unwrap_err();
    assert!(error.hint_text().unwrap().contains("by: COLUMN"), "{error}");
    let view = Facts { heaps: Err("a view has no pages".into()), ..facts() };
    assert!(ask(UnitStrategy::Ctid, &view).unwrap_err().message().contains("a view has no pages"));
    assert!(ask(UnitStrategy::Ctid, &Facts { version: 130_000, ..facts() }).is_err());
    let standby = Facts { snapshot: Err("no snapshot".into()), ..facts() };
    assert!(ask(UnitStrategy::Hash, &standby).is_err());
    assert_eq!(ask(UnitStrategy::None, &standby).unwrap().chosen, Chosen::One);
    let keys = ask(UnitStrategy::IdRange, &facts()).unwrap().chosen;
    assert!(
        matches!(keys, Chosen::Keys { ref column, most: MOST_UNITS, time: false, .. } if column == "id"),
        "{keys:?}"
    );
}

#[test]
fn numbers_are_grouped_for_people() {
    assert_eq!(
        ["0", "999", "1,000", "1,234,567"],
        [0, 999, 1000, 1_234_567].map(thousands).each_ref().map(String::as_str)
    );
}

#[test]
fn a_share_is_said_in_sql_with_what_the_user_wrote_on_lines_of_its_own() {
    let blocks = |relation: Option<&str>, from, to| Blocks { relation: relation.map(str::to_owned), from, to };
    let one = Slice::Blocks(vec![blocks(None, 5, Some(9))]);
    assert_eq!(
        one.select(&Postgres, "a", "\"t\"", Some("x = 1 -- note")),
        "SELECT a FROM \"t\" WHERE (\nx = 1 -- note\n) AND ctid >= '(5,0)' AND ctid < '(9,0)'"
    );
    let two = Slice::Blocks(vec![blocks(Some("s.a"), 7, None), blocks(Some("s.b"), 0, Some(3))]);
    assert_eq!(
        two.select(&Postgres, "a", "\"t\"", None),
        "SELECT a FROM ONLY s.a WHERE ctid >= '(7,0)' UNION ALL SELECT a FROM ONLY s.b WHERE ctid < '(3,0)'"
    );
    let edge = |value: &str, after| Some(Edge { value: value.into(), after });
    let keys = Slice::Keys { column: "k\"".into(), from: edge("it's", false), to: edge("x", true), nulls: false };
    assert_eq!(
        keys.select(&Postgres, "a", "t", None),
        "SELECT a FROM t WHERE \"k\"\"\" >= 'it''s' AND \"k\"\"\" <= 'x'"
    );
    let first = Slice::Keys { column: "k".into(), from: None, to: edge("x", false), nulls: true };
    assert_eq!(first.select(&Postgres, "a", "t", None), "SELECT a FROM t WHERE (\"k\" < 'x' OR \"k\" IS NULL)");
    let rest = Slice::Predicate { take: None, leave: vec!["a".into(), "b".into()] };
    assert_eq!(
        rest.select(&Postgres, "a", "t", None),
        "SELECT a FROM t WHERE ((\na\n) IS NOT TRUE) AND ((\nb\n) IS NOT TRUE)"
    );
}

proptest! {
    #[test]
    fn however_ranges_of_pages_are_divided_each_page_stays_in_one(
        pages in prop::collection::vec(0u64..60, 1..5),
        units in 1u32..6,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0u64..80, 0u64..80), 0..30),
    ) {
        let heaps: Vec<Heap> = pages.iter().enumerate().map(|(n, pages)| heap(&format!("t{n}"), *pages, 10.0)).collect();
        let mut parts: Vec<Vec<Blocks>> = pack(&heaps, units).into_iter().map(|share| share.blocks).collect();
        for (which, believed, first) in cuts {
            let at = which.index(parts.len());
            if let Some((Slice::Blocks(one), Slice::Blocks(other))) = split::blocks(&parts[at], believed, first) {
                parts[at] = one;
                parts.push(other);
            }
        }
        for heap in &heaps {
            // Pages that came after the plan, too.
            for page in 0..heap.pages + 5 {
                let holds = |blocks: &&Blocks| {
                    blocks.relation == heap.relation && blocks.from <= page && blocks.to.is_none_or(|to| page < to)
                };
                prop_assert_eq!(parts.iter().flatten().filter(holds).count(), 1, "{:?} {}: {:?}", heap.relation, page, parts);
            }
        }
        // Nothing that could be read is nothing at all.
        prop_assert!(parts.iter().all(|part| !part.is_empty()));
    }

    #[test]
    fn however_a_range_of_keys_is_divided_each_key_stays_in_one_and_so_do_rows_without(
        values in prop::collection::vec(-20i64..20, 0..12),
    ) {
        let whole = Slice::Keys { column: "k".to_owned(), from: None, to: None, nulls: true };
        let mut parts = vec![whole];
        let holds = |slice: &Slice, key: Option<i64>| {
            let Slice::Keys { from, to, nulls, .. } = slice else { return false };
            let Some(key) = key else { return *nulls };
            let number = |edge: &Edge| edge.value.parse::<i64>().unwrap();
            from.as_ref().is_none_or(|edge| if edge.after { key > number(edge) } else { key >= number(edge) })
                && to.as_ref().is_none_or(|edge| if edge.after { key <= number(edge) } else { key < number(edge) })
        };
        for value in values {
            // As the server would find it: a key within the range.
            let at = parts.iter().position(|slice| holds(slice, Some(value))).unwrap();
            let (one, other) = keys(&parts[at], value.to_string()).unwrap();
            parts[at] = one;
            parts.push(other);
        }
        for key in (-25..25).map(Some).chain([None]) {
            prop_assert_eq!(parts.iter().filter(|slice| holds(slice, key)).count(), 1, "{:?}: {:?}", key, parts);
        }
    }
}

#[test]
fn a_part_is_about_as_large_as_was_asked_for() {
    let range = |from: u64, to: Option<u64>| Blocks { relation: None, from, to };
    let divided = |blocks: &[Blocks], pages: u64, first: u64| split::blocks(blocks, pages, first);
    let of = |one: Vec<Blocks>, other: Vec<Blocks>| Some((Slice::Blocks(one), Slice::Blocks(other)));
    assert_eq!(divided(&[range(10, Some(30))], 20, 5), of(vec![range(10, Some(15))], vec![range(15, Some(30))]));
    assert_eq!(divided(&[range(10, None)], 20, 5), of(vec![range(10, Some(15))], vec![range(15, None)]));
    let two = [range(0, Some(10)), range(20, None)];
    assert_eq!(divided(&two, 30, 20), of(vec![two[0].clone(), range(20, Some(30))], vec![range(30, None)]));
    assert_eq!(divided(&two, 30, 10), of(vec![two[0].clone()], vec![two[1].clone()]));
    assert_eq!(divided(&two, 30, 30), None);
    assert_eq!(divided(&two, 30, 0), None);
    assert_eq!(keys(&Slice::Whole, "1".to_owned()), None);
}
