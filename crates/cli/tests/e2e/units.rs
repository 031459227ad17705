//! Files in units, through the whole: what `plan` says, and that a run reads each row once.

use crate::support::Folder;

const PROJECT: &str = "name: big
defaults: {parallelism: 2}
connections:
  here: {type: files, url: .}
";

/// Enough for 16 MiB and more.
const ROWS: usize = 600_000;

fn pipeline(extract: &str, units: &str) -> String {
    let load = "load: {from: rows, to: here, path: out/, format: parquet, strategy: replace}";
    format!("name: big\nsteps:\n  rows:\n    extract: {{from: here, {extract}}}\n{units}  out: {{{load}}}\n")
}

#[test]
fn a_big_text_is_read_by_two_lanes_and_never_cut_in_quotes() {
    let folder = Folder::new();
    folder.write("gristmill.yaml", PROJECT);
    let line = |row: usize| format!("{row},some text that takes place\n");
    let plain: String = std::iter::once("k,v\n".to_owned()).chain((0..ROWS).map(line)).collect();
    // Far behind any sample, quotes hold line breaks that look like rows.
    let broken = |row: usize| match row {
        400_000.. => format!("{row},\"some text\n{row},that takes place\"\n"),
        _ => line(row),
    };
    let quoted: String = std::iter::once("k,v\n".to_owned()).chain((0..ROWS).map(broken)).collect();
    let lines: String =
        (0..ROWS).map(|row| format!("{{\"k\": {row}, \"v\": \"some text that takes place\"}}\n")).collect();
    folder.write("plain.csv", plain).write("quoted.csv", quoted).write("lines.ndjson", lines);
    for (extract, units, said) in [
        ("path: plain.csv", "", "big ones in byte ranges"),
        ("path: plain.csv", "", "file_groups={2 groups"),
        ("path: plain.csv, on_bad_row: drop", "    units: {target_rows: 250000}\n", "cut between records"),
        ("path: quoted.csv", "", "cut between records"),
        ("path: quoted.csv, on_bad_row: drop", "    units: {target_rows: 50000}\n", "cut between records"),
        ("path: lines.ndjson", "", "cut between records"),
        ("path: lines.ndjson", "    units: {strategy: none}\n", "in 1 unit, as `strategy: none` says"),
    ] {
        folder.write("pipelines/big.yaml", pipeline(extract, units));
        let plan = folder.ok(&["plan", "pipelines/big.yaml"]);
        assert!(plan.contains(said), "{extract} {units}: {plan}");
        if said == "cut between records" {
            assert!(plan.contains("DataSourceExec: partitions=2,") && plan.contains("e.g. "), "{plan}");
        }
        if said.starts_with("file_groups") {
            continue;
        }
        folder.ok(&["run", "pipelines/big.yaml", "--full-refresh"]);
        let sum = (ROWS - 1) * ROWS / 2;
        let expected = format!("{ROWS},{ROWS},{sum}");
        assert_eq!(
            folder.rows("select count(*), count(distinct k), sum(k) from 'out/'"),
            [expected],
            "{extract} {units}"
        );
    }
}

#[test]
fn units_of_a_database_are_refused_for_files_by_name() {
    let folder = Folder::new();
    folder.write("gristmill.yaml", PROJECT).write("a.csv", "k\n1\n");
    folder.write("pipelines/big.yaml", pipeline("path: a.csv", "    units: {strategy: ctid}\n"));
    let said = folder.run(&["plan", "pipelines/big.yaml"]);
    assert_eq!(said.code, Some(2), "{said}");
    assert!(said.error().contains("`strategy: ctid` of `units` is for databases"), "{said}");
}
