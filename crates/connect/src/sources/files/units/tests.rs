//! Dividing files, and reading what was divided.

use super::decide::{Cuttable, Fact, Share, decide};
use crate::sources::files::formats::RowGroup;
use crate::sources::files::tests::{Lake, Table, all, batch, ints};
use crate::{ReadPlan, ReadRequest, Source};
use gristmill_model::spec::{OnFail, UnitStrategy, UnitsSpec};
use gristmill_model::{Error, ErrorKind};
use proptest::prelude::*;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn fact(size: u64) -> Fact {
    Fact { name: "f".to_owned(), size, rows: Some(size / 100), cuttable: Cuttable::Anywhere }
}

fn text(strategy: UnitStrategy) -> UnitsSpec {
    UnitsSpec { strategy, ..UnitsSpec::default() }
}

/// Units of each share: how many files, or `p` and how many pieces.
fn shares(facts: &[Fact], spec: &UnitsSpec, lanes: usize) -> String {
    let decision = decide(facts, spec, lanes).unwrap();
    let shares = decision.shares.iter().map(|share| match share {
        Share::Files(files) => files.len().to_string(),
        Share::Bytes { targets, .. } => format!("p{}", targets.len() + 1),
        Share::RowGroups { groups, .. } => format!("g{}", groups.len()),
    });
    shares.collect::<Vec<_>>().join(" ")
}

#[test]
fn files_are_shared_or_cut_by_their_size() {
    let auto = UnitsSpec::default();
    let rows = |target| UnitsSpec { target_rows: Some(target), ..UnitsSpec::default() };
    let most = |max| UnitsSpec { max: Some(max), ..UnitsSpec::default() };
    let whole = |size| Fact { cuttable: Cuttable::No("because"), ..fact(size) };
    let groups = |size: u64, count: u64| {
        let group = RowGroup { rows: size / 100 / count, bytes: size / count };
        Fact { cuttable: Cuttable::RowGroups(vec![group; count as usize]), ..fact(size) }
    };
    for (what, facts, spec, lanes, expected) in [
        ("one small file", vec![fact(MIB)], &auto, 2, "1"),
        ("one big file, one lane", vec![fact(1000 * MIB)], &auto, 1, "1"),
        ("one big file, two lanes", vec![fact(1000 * MIB)], &auto, 2, "p8"),
        ("one file that cannot be cut", vec![whole(1000 * MIB)], &auto, 2, "1"),
        ("as many as keep two lanes busy", vec![fact(100 * MIB); 8], &auto, 2, "1 1 1 1 1 1 1 1"),
        ("a big one among small ones", vec![fact(MIB), fact(MIB), fact(300 * MIB), fact(MIB)], &auto, 2, "2 p8 1"),
        ("many small ones", vec![fact(1000); 10_000], &auto, 2, "1000 1000 1000 1000 1000 1000 1000 1000 1000 1000"),
        ("row groups", vec![groups(1000 * MIB, 20)], &auto, 2, "g10"),
        ("one row group", vec![groups(1000 * MIB, 1)], &auto, 2, "1"),
        ("rows", vec![fact(MIB)], &rows(2622), 1, "p4"),
        ("rows, many files", vec![fact(1000); 100], &rows(100), 2, "10 10 10 10 10 10 10 10 10 10"),
        ("rows, files that are not cut", vec![whole(MIB); 3], &rows(10), 2, "1 1 1"),
        ("at most three", vec![fact(MIB); 100], &most(3), 2, "50 50"),
        ("at most three pieces", vec![fact(1000 * MIB)], &most(3), 2, "p2"),
        ("at most one", vec![fact(1000 * MIB), fact(MIB)], &most(1), 2, "2"),
        ("whole files", vec![fact(1000 * MIB), fact(MIB), fact(MIB)], &text(UnitStrategy::Files), 2, "1 2"),
        ("one unit", vec![fact(1000 * MIB), fact(MIB)], &text(UnitStrategy::None), 2, "2"),
        ("pieces, as far as it makes sense", vec![fact(40 * MIB)], &text(UnitStrategy::ByteRange), 1, "p4"),
        ("nothing", vec![], &auto, 2, ""),
    ] {
        assert_eq!(shares(&facts, spec, lanes), expected, "{what}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let whole = Fact { name: "a.orc".to_owned(), cuttable: Cuttable::No("it is whole"), ..fact(1000 * MIB) };
    let error = decide(std::slice::from_ref(&whole), &text(UnitStrategy::ByteRange), 2).unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Config, "`strategy: byte_range` cannot cut `a.orc`: it is whole")
    );
    let note = |facts: &[Fact], spec: &UnitsSpec| decide(facts, spec, 2).unwrap().note;
    assert_eq!(note(std::slice::from_ref(&whole), &UnitsSpec::default()).unwrap(), "`a.orc` is not cut: it is whole");
    assert_eq!(note(&[whole, fact(MIB)], &text(UnitStrategy::Files)), None);
    let costly = Fact { cuttable: Cuttable::AtACost("it is dear"), ..fact(1000 * MIB) };
    let costly = std::slice::from_ref(&costly);
    let said = "`f` is not cut: it is dear (`strategy: byte_range` does it)";
    assert_eq!(note(costly, &UnitsSpec::default()).unwrap(), said);
    assert_eq!(shares(costly, &UnitsSpec::default(), 2), "1");
    assert_eq!(shares(costly, &text(UnitStrategy::ByteRange), 2), "p8");
    let unknown = Fact { rows: None, ..fact(1000 * MIB) };
    let spec = UnitsSpec { target_rows: Some(10), ..UnitsSpec::default() };
    assert!(note(&[unknown], &spec).unwrap().contains("`target_rows` does not count"));
}

proptest! {
    /// Every file is in the plan once, in order, and the plan has no more units than it may.
    #[test]
    fn every_file_is_planned_once(
        sizes in prop::collection::vec((0u64..200 * MIB, 0..4usize), 0..30),
        strategy in 0..3usize,
        target_rows in prop::option::of(1u64..5_000_000),
        max in prop::option::of(1u32..50),
        lanes in 0usize..5,
    ) {
        let facts: Vec<Fact> = sizes.iter().map(|(size, kind)| {
            let group = RowGroup { rows: size / 700, bytes: size / 7 };
            let cuttable = match kind {
                0 => Cuttable::No("so"),
                1 => Cuttable::AtACost("dear"),
                2 => Cuttable::RowGroups(vec![group; 7]),
                _ => Cuttable::Anywhere,
            };
            Fact { cuttable, ..fact(*size) }
        }).collect();
        let strategy = [UnitStrategy::Auto, UnitStrategy::Files, UnitStrategy::None][strategy];
        let decision = decide(&facts, &UnitsSpec { strategy, target_rows, max, ..UnitsSpec::default() }, lanes).unwrap();
        let (mut next, mut units) = (0, 0);
        for share in &decision.shares {
            match share {
                Share::Files(files) => {
                    prop_assert_eq!(files.start, next);
                    prop_assert!(files.end > files.start);
                    next = files.end;
                    units += 1;
                }
                Share::Bytes { file, targets } => {
                    prop_assert_eq!(*file, next);
                    prop_assert!(targets.is_sorted_by(|a, b| a < b) && targets[0] > 0);
                    prop_assert!(*targets.last().unwrap() < facts[next].size);
                    next += 1;
                    units += targets.len() + 1;
                }
                Share::RowGroups { file, groups } => {
                    prop_assert_eq!(*file, next);
                    prop_assert_eq!((groups[0].start, groups.last().unwrap().end), (0, 7));
                    prop_assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start && !pair[0].is_empty()));
                    next += 1;
                    units += groups.len();
                }
            }
        }
        prop_assert_eq!(next, facts.len());
        prop_assert!(units <= max.unwrap_or(400) as usize, "{} units", units);
    }
}

/// Reads an extract whole and cut, with bad rows kept aside.
async fn both(lake: &Lake, yaml: &str, units: &str) -> Result<(Table, Table, usize), Error> {
    let read = async |units: &str| {
        let source = lake.source(&format!("{yaml}\non_bad_row: dead_letter\nunits: {units}"))?;
        let schema = source.schema().await?;
        let plan = source.plan(&ReadRequest { parallelism: 2, ..ReadRequest::default() }).await?;
        Ok((all(&source, schema, OnFail::DeadLetter).await?, plan.units.len()))
    };
    let (whole, _) = read("{strategy: none}").await?;
    let (cut, units) = read(units).await?;
    Ok((whole, cut, units))
}

fn same(whole: &Table, cut: &Table) -> Result<(), TestCaseError> {
    prop_assert_eq!(&cut.rows, &whole.rows);
    prop_assert_eq!(&cut.rejects, &whole.rejects);
    Ok(())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Quoted line breaks, CRLF, escapes, comments, byte order marks and ragged rows, cut anywhere: the rows are those of
    /// the whole file, and so are the rejects and the places they name.
    #[test]
    fn a_csv_file_in_pieces_has_the_rows_of_the_whole(
        mark in any::<bool>(),
        header in any::<bool>(),
        lines in prop::collection::vec("[ab1,]{0,6}(\"[ab,\n\r]{0,5}(\"\")?\")?[,1]{0,2}(\n|\r\n|\r|\n\n|\n#x\"\n)", 1..40),
        end in "(1,\"open)?[ab,\n]{0,4}",
        (escape, comment) in any::<(bool, bool)>(),
        target_rows in 1u64..10,
    ) {
        let mark = if mark { "\u{feff}" } else { "" };
        let text = format!("{mark}k,v\n{}{end}", lines.concat());
        let lake = Lake::new(&[("a.csv", &text)]);
        let mut yaml = format!("path: a.csv\nschema: {{}}\ncsv: {{header: {header}");
        if escape { yaml.push_str(", escape: \"\\\\\"") }
        if comment { yaml.push_str(", comment: \"#\"") }
        yaml.push('}');
        let units = format!("{{strategy: byte_range, target_rows: {target_rows}, max: 30}}");
        let (whole, cut, _) = block_on(both(&lake, &yaml, &units)).unwrap();
        same(&whole, &cut)?;
    }

    #[test]
    fn an_ndjson_file_in_pieces_has_the_rows_of_the_whole(
        lines in prop::collection::vec("(\\{\"a\": [0-9]{1,4}\\}|[{}]{0,3}| ?)(\n|\r\n)", 0..60),
        end in "(\\{\"a\": 7\\})?",
        target_rows in 1u64..10,
    ) {
        let text = format!("\u{feff}{{\"a\": 1}}\n{}{end}", lines.concat());
        let lake = Lake::new(&[("a.ndjson", &text)]);
        let units = format!("{{strategy: byte_range, target_rows: {target_rows}}}");
        let (whole, cut, _) = block_on(both(&lake, "path: a.ndjson", &units)).unwrap();
        same(&whole, &cut)?;
    }
}

async fn plan(source: &Arc<dyn Source>, parallelism: usize) -> Result<ReadPlan, Error> {
    source.plan(&ReadRequest { parallelism, ..ReadRequest::default() }).await
}

#[tokio::test]
async fn a_plan_says_what_and_why() {
    let lake = Lake::new(&[("a.csv", &format!("x,y\n{}", "1,2\n".repeat(999)))]);
    lake.write("b.csv.gz", &[]);
    let groups = parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
    lake.parquet_with("p.parquet", &batch(&[("a", ints(&(0..100).collect::<Vec<_>>()))]), Some(groups));
    for (yaml, labels, why) in [
        (
            "path: a.csv\nunits: {target_rows: 400}",
            "a.csv, bytes 0 to 1336|a.csv, bytes 1336 to 2668|a.csv, bytes 2668 to 4000",
            "1 file of 3.9 KB in 3 units of about 333 rows, cut between records",
        ),
        ("path: a.csv\nunits: {strategy: none}", "a.csv", "1 file of 3.9 KB in 1 unit, as `strategy: none` says"),
        (
            "path: p.parquet\nunits: {target_rows: 50}",
            "p.parquet, row groups 0 to 4|p.parquet, row groups 5 to 9",
            "in 2 units of about 50 rows, cut between row groups",
        ),
    ] {
        let source = lake.source(yaml).unwrap();
        let plan = plan(&source, 2).await.unwrap();
        let found: Vec<&str> = plan.units.iter().map(|unit| unit.label.as_str()).collect();
        assert_eq!(found.join("|"), labels, "{yaml}");
        assert!(plan.why.ends_with(why), "{}", plan.why);
        assert!(source.native().await.unwrap().is_none(), "{yaml}");
        let table = all(&source, source.schema().await.unwrap(), OnFail::Fail).await.unwrap();
        assert_eq!(table.rows.len(), if yaml.contains("parquet") { 100 } else { 999 });
    }
    let table = lake.read("path: p.parquet\nunits: {target_rows: 50}").await.unwrap();
    assert_eq!(table.lines(), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    let source = lake.source("path: p.parquet\nunits: {target_rows: 50}").unwrap();
    let rows: Vec<_> = plan(&source, 2).await.unwrap().units.iter().map(|unit| unit.rows).collect();
    assert_eq!(rows, [Some(50), Some(50)]);
    // Without a wish, the engine's own scan is as good.
    assert!(lake.source("path: p.parquet\nunits: {strategy: auto}").unwrap().native().await.unwrap().is_some());
}

#[tokio::test]
async fn what_units_cannot_have_of_files_is_refused_by_name() {
    let lake = Lake::new(&[("a.csv", "x\n1\n"), ("a.json", "[{\"x\": 1}]")]);
    for (units, message) in [
        ("{strategy: ctid}", "`strategy: ctid` of `units` is for databases, and `lake` holds files"),
        ("{verify: count}", "`verify: count` of `units` is for databases, and `lake` holds files"),
    ] {
        let error = lake.source(&format!("path: a.csv\nunits: {units}")).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Config, message));
        assert!(error.hint_text().unwrap().contains("`byte_range`"));
    }
    for (yaml, why) in [
        ("path: a.json", "files of this format are read whole"),
        ("path: a.csv\ncsv: {encoding: utf-16le}", "only UTF-8 is cut"),
    ] {
        let source = lake.source(&format!("{yaml}\nunits: {{strategy: byte_range}}")).unwrap();
        let error = plan(&source, 2).await.unwrap_err();
        assert!(error.message().ends_with(why), "{error}");
    }
}

#[tokio::test]
async fn utf16_is_read_whole_whatever_is_asked() {
    let lake = Lake::new(&[]);
    let text: Vec<u8> =
        format!("\u{feff}a,b\n{}", "1,2\n".repeat(50)).encode_utf16().flat_map(u16::to_le_bytes).collect();
    lake.write("a.csv", &text);
    let source = lake.source("path: a.csv\nunits: {strategy: byte_range, target_rows: 5}").unwrap();
    assert_eq!(plan(&source, 2).await.unwrap().units.len(), 1);
    assert_eq!(all(&source, source.schema().await.unwrap(), OnFail::Fail).await.unwrap().rows.len(), 50);
}
