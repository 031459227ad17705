use super::*;
use crate::Scan;
use arrow::array::{Array, AsArray};
use arrow::compute::{concat_batches, max, min};
use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use gristmill_model::spec::{Literal, OnFail};
use proptest::prelude::*;

fn rule(name: &str, kind: &str) -> ColumnRule {
    ColumnRule { name: name.into(), kind: kind.into(), ..ColumnRule::default() }
}

fn between(name: &str, kind: &str, min: impl Into<Option<Literal>>, max: impl Into<Option<Literal>>) -> ColumnRule {
    ColumnRule { min: min.into(), max: max.into(), ..rule(name, kind) }
}

fn text(text: &str) -> Literal {
    Literal::Text(text.into())
}

fn spec(rows: u64, seed: u64, columns: Vec<ColumnRule>) -> GenerateSpec {
    GenerateSpec { rows, seed, table: None, columns }
}

fn ready(table: GenerateTable, rows: u64, seed: u64) -> GenerateSpec {
    GenerateSpec { rows, seed, table: Some(table), columns: vec![] }
}

/// One column of every kind.
fn every_kind() -> Vec<ColumnRule> {
    kinds()
        .iter()
        .map(|kind| ColumnRule {
            nulls: if kind.name.len() % 2 == 0 { 0.2 } else { 0.0 },
            values: match kind.name {
                "choice" => vec![text("a"), text("b"), text("c")],
                "constant" => vec![Literal::Int(7)],
                _ => vec![],
            },
            weights: if kind.name == "choice" { vec![1.0, 0.0, 2.5] } else { vec![] },
            pattern: (kind.name == "pattern").then(|| "P-{:05}".to_owned()),
            ..rule(&format!("a_{}", kind.name), kind.name)
        })
        .collect()
}

fn all(spec: &GenerateSpec, batch_rows: usize) -> RecordBatch {
    let blocks = generate(spec, batch_rows).unwrap();
    let schema = blocks.schema();
    let batches: Vec<_> = blocks.map(|batch| batch.unwrap()).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn refused(columns: Vec<ColumnRule>) -> String {
    generate(&spec(10, 0, columns), 8192).unwrap_err().to_string()
}

fn scan(schema: SchemaRef, batch_size: usize) -> Scan {
    Scan { schema, batch_size, on_bad_row: OnFail::Fail, rejects: None }
}

/// Every unit of a plan, the last one first, put back in order.
fn by_units(source: &GenerateSource, schema: &SchemaRef, batch_size: usize) -> RecordBatch {
    futures::executor::block_on(async {
        let plan = source.plan(&ReadRequest::default()).await.unwrap();
        let mut parts = vec![];
        for unit in plan.units.iter().rev() {
            let batches = source.read(unit, &scan(schema.clone(), batch_size)).collect().await.unwrap();
            parts.push(concat_batches(schema, &batches).unwrap());
        }
        parts.reverse();
        concat_batches(schema, &parts).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_rows_do_not_depend_on_the_batch_size(rows in 0_u64..5000, seed: u64, size in 1_usize..4000, other in 1_usize..9000) {
        let spec = spec(rows, seed, every_kind());
        let (first, second) = (all(&spec, size), all(&spec, other));
        prop_assert_eq!(first.num_rows() as u64, rows);
        prop_assert_eq!(first, second);
    }

    #[test]
    fn a_longer_table_begins_with_the_shorter_one(rows in 1_u64..3000, more in 0_u64..3000, seed: u64) {
        let shorter = all(&spec(rows, seed, every_kind()), 8192);
        let longer = all(&spec(rows + more, seed, every_kind()), 8192);
        prop_assert_eq!(shorter, longer.slice(0, usize::try_from(rows).unwrap()));
    }

    #[test]
    fn any_range_of_rows_can_be_made_alone(from in 0_u64..4000, count in 0_u64..3000, seed: u64, size in 1_usize..3000) {
        let whole = all(&spec(7000, seed, every_kind()), 8192);
        let table = GenerateSource::new(&spec(7000, seed, every_kind())).unwrap().table;
        let schema = table.schema.clone();
        let made: Vec<_> = Blocks::new(table, from..from + count, size).map(|batch| batch.unwrap()).collect();
        let made = concat_batches(&schema, &made).unwrap();
        prop_assert_eq!(made, whole.slice(usize::try_from(from).unwrap(), usize::try_from(count).unwrap()));
    }

    #[test]
    fn integers_stay_within_their_bounds(a: i64, b: i64, seed: u64) {
        let (low, high) = (a.min(b), a.max(b));
        let made = all(&spec(300, seed, vec![between("x", "integer", Literal::Int(low), Literal::Int(high))]), 64);
        let values = made.column(0).as_primitive::<Int64Type>();
        prop_assert!(min(values).unwrap() >= low && max(values).unwrap() <= high);
    }

    #[test]
    fn decimals_stay_within_their_bounds(a in any::<i64>(), b in any::<i64>(), scale in 0_u8..10, seed: u64) {
        let (low, high) = (a.min(b), a.max(b));
        let shown = |units: i64| {
            let digits = format!("{:0width$}", units.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            text(&format!("{}{whole}.{fraction}", if units < 0 { "-" } else { "" }))
        };
        let column = ColumnRule {
            precision: Some(30),
            scale: Some(i8::try_from(scale).unwrap()),
            ..between("x", "decimal", shown(low), shown(high))
        };
        let made = all(&spec(300, seed, vec![column]), 64);
        let values = made.column(0).as_primitive::<Decimal128Type>();
        prop_assert!(min(values).unwrap() >= i128::from(low) && max(values).unwrap() <= i128::from(high));
    }

    #[test]
    fn floats_stay_within_their_bounds(a in -1e300_f64..1e300, b in -1e300_f64..1e300, seed: u64) {
        let (low, high) = (a.min(b), a.max(b));
        let made = all(&spec(300, seed, vec![between("x", "float", Literal::Float(low), Literal::Float(high))]), 64);
        let values = made.column(0).as_primitive::<Float64Type>();
        prop_assert!(min(values).unwrap() >= low && max(values).unwrap() <= high);
    }

    #[test]
    fn no_pattern_and_no_bound_makes_the_compiler_panic(pattern in ".{0,12}", bound in ".{0,12}", nulls: f64, scale: i8, precision: u8) {
        for kind in kinds() {
            let column = ColumnRule {
                min: Some(text(&bound)), max: Some(text(&bound)), pattern: Some(pattern.clone()), nulls,
                scale: Some(scale), precision: Some(precision), values: vec![text(&bound)], ..rule("x", kind.name)
            };
            let taken = ColumnRule {
                min: column.min.clone().filter(|_| kind.takes.contains(&"min")),
                max: column.max.clone().filter(|_| kind.takes.contains(&"max")),
                pattern: column.pattern.clone().filter(|_| kind.takes.contains(&"pattern")),
                values: if kind.takes.contains(&"values") { column.values.clone() } else { vec![] },
                scale: column.scale.filter(|_| kind.takes.contains(&"scale")),
                precision: column.precision.filter(|_| kind.takes.contains(&"precision")),
                ..column.clone()
            };
            for column in [column, taken] {
                if let Ok(blocks) = generate(&spec(20, 1, vec![column]), 7) {
                    prop_assert!(blocks.map(|batch| batch.unwrap().num_rows()).sum::<usize>() == 20);
                }
            }
        }
    }
}

#[test]
fn units_read_in_any_order_make_the_same_rows() {
    let mut columns = every_kind();
    columns.truncate(9);
    let spec = spec(2 * UNIT_ROWS + 777, 11, columns);
    let source = GenerateSource::new(&spec).unwrap();
    let schema = source.table.schema.clone();
    let plan = futures::executor::block_on(source.plan(&ReadRequest::default())).unwrap();
    assert_eq!(plan.units.iter().map(|unit| unit.rows.unwrap()).collect::<Vec<_>>(), [UNIT_ROWS, UNIT_ROWS, 777]);
    assert_eq!(plan.units[1].label, "rows 100353 to 200704");
    assert_eq!(by_units(&source, &schema, 5000), all(&spec, 8192));
}

#[test]
fn a_projection_makes_the_same_values_in_its_own_order() {
    let spec = ready(GenerateTable::People, 3000, 5);
    let source = GenerateSource::new(&spec).unwrap();
    let whole = all(&spec, 8192);
    let wanted = Arc::new(whole.schema().project(&[3, 0]).unwrap());
    assert_eq!(by_units(&source, &wanted, 1000), whole.project(&[3, 0]).unwrap());
    let nothing = Arc::new(Schema::empty());
    assert_eq!(by_units(&source, &nothing, 1000).num_rows(), 3000);
}

#[test]
fn a_column_that_is_not_generated_is_an_error_with_a_hint() {
    let source = GenerateSource::new(&ready(GenerateTable::People, 10, 5)).unwrap();
    let wanted = Schema::new(vec![arrow::datatypes::Field::new("emial", arrow::datatypes::DataType::Utf8, true)]);
    let rows = futures::executor::block_on(async {
        let plan = source.plan(&ReadRequest::default()).await.unwrap();
        source.read(&plan.units[0], &scan(Arc::new(wanted), 10)).collect().await
    });
    assert_eq!(rows.unwrap_err().to_string(), "column `emial` is not generated\n  hint: did you mean `email`?");
}

#[test]
fn another_seed_makes_other_rows_and_another_place_the_same() {
    let columns = every_kind();
    let drawn = |kind: &str| !matches!(kind, "sequence" | "pattern" | "constant");
    let (one, two) = (all(&spec(2000, 1, columns.clone()), 8192), all(&spec(2000, 2, columns.clone()), 8192));
    for (at, column) in columns.iter().enumerate() {
        assert_eq!(one.column(at) != two.column(at), drawn(&column.kind) || column.nulls > 0.0, "{}", column.kind);
    }
    let mut moved: Vec<ColumnRule> = columns.iter().rev().cloned().collect();
    moved.insert(3, rule("another", "integer"));
    let three = all(&spec(2000, 1, moved), 8192);
    for column in &columns {
        if column.kind != "email" {
            assert_eq!(one.column_by_name(&column.name), three.column_by_name(&column.name));
        }
    }
}

#[test]
fn nulls_come_at_their_share_and_leave_the_other_values_alone() {
    let with = |nulls| all(&spec(20_000, 3, vec![ColumnRule { nulls, ..rule("x", "word") }]), 8192);
    let (none, some, every) = (with(0.0), with(0.25), with(1.0));
    assert!(!none.schema().field(0).is_nullable() && some.schema().field(0).is_nullable());
    assert_eq!(every.column(0).null_count(), 20_000);
    let share = some.column(0).null_count();
    assert!((4_700..5_300).contains(&share), "{share}");
    let (full, holes) = (none.column(0).as_string::<i32>(), some.column(0).as_string::<i32>());
    assert!((0..20_000).all(|row| holes.is_null(row) || holes.value(row) == full.value(row)));
}

#[test]
fn weights_decide_how_often_a_value_is_chosen() {
    let column = ColumnRule {
        values: vec![text("often"), text("never"), text("rarely")],
        weights: vec![9.0, 0.0, 1.0],
        ..rule("x", "choice")
    };
    let made = all(&spec(50_000, 8, vec![column]), 8192);
    let count = |wanted: &str| made.column(0).as_string::<i32>().iter().filter(|value| *value == Some(wanted)).count();
    assert_eq!(count("never"), 0);
    assert!((44_500..45_500).contains(&count("often")), "{}", count("often"));
    assert_eq!(count("often") + count("rarely"), 50_000);
}

#[test]
fn days_and_seconds_reach_both_ends() {
    let columns = vec![
        between("day", "date", text("2024-02-28"), text("2024-03-01")),
        between("at", "timestamp", text("2024-01-15"), text("2024-01-15")),
        between("exact", "timestamp", text("2024-01-15T10:00:00Z"), text("2024-01-15 10:00:02")),
    ];
    let made = all(&spec(400_000, 4, columns), 8192);
    let days = made.column(0).as_primitive::<Date32Type>();
    assert_eq!((min(days), max(days)), (Some(19_781), Some(19_783)));
    let at = made.column(1).as_primitive::<TimestampMicrosecondType>();
    let midnight = 1_705_276_800_000_000;
    assert!(min(at).unwrap() >= midnight && min(at).unwrap() < midnight + 10_000_000);
    assert!(max(at).unwrap() < midnight + 86_400_000_000 && max(at).unwrap() > midnight + 86_390_000_000);
    let exact = made.column(2).as_primitive::<TimestampMicrosecondType>();
    let ten = midnight + 36_000_000_000;
    assert_eq!((min(exact), max(exact)), (Some(ten), Some(ten + 2_000_000)));
}

#[test]
fn a_sequence_with_an_end_starts_over() {
    let made = all(&spec(7, 0, vec![between("x", "sequence", Literal::Int(5), Literal::Int(7))]), 2);
    assert_eq!(made.column(0).as_primitive::<Int64Type>().values().as_ref(), [5, 6, 7, 5, 6, 7, 5]);
}

#[test]
fn a_pattern_puts_the_row_number_in() {
    let pattern = |pattern: &str, start: i64| {
        let column = ColumnRule { pattern: Some(pattern.into()), ..between("x", "pattern", Literal::Int(start), None) };
        let made = all(&spec(1500, 0, vec![column]), 100);
        made.column(0).as_string::<i32>().value(1499).to_owned()
    };
    assert_eq!(pattern("ORD-{:06}", 1), "ORD-001500");
    assert_eq!(pattern("{{{}}} of {:02}", 10), "{1509} of 1509");
}

#[test]
fn the_people_table_has_addresses_of_its_own_names() {
    let people = all(&ready(GenerateTable::People, 2500, 42), 700);
    let column = |name: &str| people.column_by_name(name).unwrap().as_string::<i32>().clone();
    let (first, last, email) = (column("first_name"), column("last_name"), column("email"));
    let plain = |name: &str| name.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "");
    let mut seen = std::collections::HashSet::new();
    for row in 0..2500 {
        let start = format!("{}.{}{}@example.", plain(first.value(row)), plain(last.value(row)), row + 1);
        assert!(email.value(row).starts_with(&start), "{} of {start}", email.value(row));
        assert!(seen.insert(email.value(row).to_owned()));
    }
}

const GOLDEN: [&str; 4] = [
    "988452|0.34661971027705296|8662.56|true|2021-02-22|2022-08-20T08:24:27|eabb5757-e975-4d53-9e79-abff870c068b",
    "241841|0.2774681771429357|832.35|true|2020-05-02|2023-10-07T17:46:35|42a3ea06-2290-48fd-8e77-f9c3b20a7a37",
    "1|Laverna|Buckridge|laverna.buckridge1@example.com|1-386-551-1260|140 Luis Stravenue|94157-7865|Kundeview|Jordan|1976-02-11|false|2024-12-30T03:52:14",
    "1|32248|7533.29|EUR|Bosco and Wilderman Inc|travel|completed||2024-12-31T15:09:34",
];

/// The golden rows: if this test fails, every file ever generated would come out differently. Only an update of the
/// `fake` crate may change names and words here; numbers and times never.
#[test]
fn the_first_rows_are_what_they_have_always_been() {
    let shown = |spec: &GenerateSpec| {
        let batch = all(spec, 8192);
        let options = arrow::util::display::FormatOptions::default();
        let row = |at: usize| {
            let values = batch.columns().iter().map(|column| {
                arrow::util::display::ArrayFormatter::try_new(column, &options).unwrap().value(at).to_string()
            });
            values.collect::<Vec<_>>().join("|")
        };
        (row(0), row(batch.num_rows() - 1))
    };
    let numbers = vec![
        rule("i", "integer"),
        rule("f", "float"),
        rule("d", "decimal"),
        rule("b", "boolean"),
        rule("day", "date"),
        rule("at", "timestamp"),
        rule("u", "uuid"),
    ];
    let (first, last) = shown(&spec(1025, 42, numbers));
    let (person, _) = shown(&ready(GenerateTable::People, 1, 42));
    let (transaction, _) = shown(&ready(GenerateTable::Transactions, 1, 42));
    assert_eq!([first.as_str(), &last, &person, &transaction], GOLDEN);
}

#[test]
fn an_unknown_kind_is_answered_with_the_nearest_one() {
    assert_eq!(
        refused(vec![rule("total", "decimals")]),
        "column `total`: unknown kind `decimals`\n  hint: did you mean `decimal`?"
    );
}

#[test]
fn bounds_that_do_not_fit_their_kind_are_refused() {
    let cases = [
        (between("x", "integer", Literal::Float(1.5), None), "`min` is `1.5`, which is not a whole number of 64 bits"),
        (between("x", "integer", Literal::Int(5), Literal::Int(4)), "`min` (`5`) is greater than `max` (`4`)"),
        (
            between("x", "integer", Literal::Int(2_000_000), None),
            "`min` (`2000000`) is greater than `max` (its default)",
        ),
        (
            between("x", "date", text("2024-02-30"), None),
            "`min` is `2024-02-30`, which is not a day such as `2024-01-31`",
        ),
        (between("x", "timestamp", None, text("noon")), "`max` is `noon`, which is not a time"),
        (between("x", "float", text("NaN"), None), "`min` is `NaN`, which is not a finite number"),
        (between("x", "float", Literal::Float(-1.7e308), Literal::Float(1.7e308)), "too far apart"),
        (
            between("x", "decimal", Literal::Float(0.001), None),
            "`min` is `0.001`, which is not a number with at most as many",
        ),
        (
            ColumnRule { precision: Some(3), ..between("x", "decimal", None, Literal::Int(10)) },
            "`max` does not fit decimal(3,2)",
        ),
        (ColumnRule { scale: Some(13), ..rule("x", "decimal") }, "`scale` is `13`"),
        (ColumnRule { precision: Some(39), ..rule("x", "decimal") }, "`precision` is `39`"),
        (ColumnRule { nulls: 1.5, ..rule("x", "word") }, "`nulls` is a share between 0 and 1"),
        (rule("x", "choice"), "a `choice` needs `values`"),
        (rule("x", "constant"), "a `constant` has one value, not 0"),
        (rule("x", "pattern"), "a `pattern` column needs the key `pattern`"),
        (ColumnRule { pattern: Some("x".into()), ..rule("x", "pattern") }, "has no `{}`"),
        (ColumnRule { pattern: Some("{:6}".into()), ..rule("x", "pattern") }, "pattern `{:6}` has `{:6}`"),
        (ColumnRule { pattern: Some("a}".into()), ..rule("x", "pattern") }, "has `}` where"),
        (
            ColumnRule { values: vec![text("a")], weights: vec![1.0, 2.0], ..rule("x", "choice") },
            "2 weights for 1 values",
        ),
        (
            ColumnRule { values: vec![text("a")], weights: vec![0.0], ..rule("x", "choice") },
            "the weights add up to nothing",
        ),
        (ColumnRule { values: vec![text("a")], weights: vec![-1.0], ..rule("x", "choice") }, "a weight is `-1`"),
        (ColumnRule { values: vec![text("a"), Literal::Int(1)], ..rule("x", "choice") }, "of different types"),
        (between("x", "city", Literal::Int(1), None), "a `city` takes no `min`\n  hint: it takes `nulls` only"),
        (ColumnRule { scale: Some(2), ..rule("x", "float") }, "a `float` takes no `scale`"),
    ];
    for (column, expected) in cases {
        let error = refused(vec![column]);
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with("column `x`: "), "{error}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let columns =
        vec![rule("a", "nothing"), rule("A", "word"), ColumnRule { nulls: -1.0, scale: Some(1), ..rule("b", "uuid") }];
    let errors = problems(&spec(1, 0, columns));
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Config));
}

#[test]
fn a_table_and_columns_exclude_each_other_and_one_is_needed() {
    let both = GenerateSpec { table: Some(GenerateTable::People), ..spec(1, 0, vec![rule("x", "word")]) };
    assert!(generate(&both, 1).unwrap_err().to_string().contains("exclude each other"));
    assert!(refused(vec![]).contains("nothing says what to generate"));
    assert_eq!(generate(&ready(GenerateTable::People, 1, 0), 0).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn more_text_than_an_array_holds_is_an_error() {
    let column = ColumnRule { values: vec![text(&"x".repeat(1 << 21))], ..rule("x", "constant") };
    let blocks = generate(&spec(1025, 0, vec![column]), 1 << 20).unwrap();
    let error = blocks.last().unwrap().unwrap_err();
    assert_eq!(error.message(), "column `x` has more than 2 GiB of text in a batch of 1025 rows");
}

#[test]
fn all_the_whole_numbers_of_64_bits_can_be_drawn() {
    let column = between("x", "integer", Literal::Int(i64::MIN), Literal::Int(i64::MAX));
    let made = all(&spec(1000, 0, vec![column]), 8192);
    let values = made.column(0).as_primitive::<Int64Type>();
    assert!(min(values).unwrap() < i64::MIN / 2 && max(values).unwrap() > i64::MAX / 2);
}

/// How fast it is, for release builds: `cargo test --release -p gristmill-connect generator_speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn generator_speed() {
    for kind in every_kind() {
        let name = kind.kind.clone();
        let rows = 2_000_000_u32;
        let start = std::time::Instant::now();
        let made: usize =
            generate(&spec(rows.into(), 1, vec![kind]), 8192).unwrap().map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(made, rows as usize);
        eprintln!("{name:>14} {:8.1} M values/s", f64::from(rows) / start.elapsed().as_secs_f64() / 1e6);
    }
}

#[test]
fn a_sequence_that_goes_beyond_64_bits_is_refused() {
    let sequence = |rows: u64| {
        let spec = spec(rows, 0, vec![between("x", "sequence", Literal::Int(i64::MAX - 1), None)]);
        super::problems(&spec).iter().map(|error| error.message().to_owned()).collect::<Vec<_>>()
    };
    assert!(sequence(2).is_empty());
    assert!(sequence(3)[0].contains("goes beyond 64 bits"), "{:?}", sequence(3));
}
