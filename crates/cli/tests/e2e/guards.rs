//! What must not happen: rows lost or doubled without a word, panics, columns that appear unannounced.

use crate::support::Folder;

const PROJECT: &str =
    "name: guards\nconnections:\n  here: {type: files, url: .}\n  db: {type: sqlite, path: some.db}\n";
const APPEND: &str = "steps:\n  a: {extract: {from: here, path: in.csv}}\n  \
                      out: {load: {from: a, to: db, table: orders, strategy: append}}\n";

#[test]
fn a_decoder_that_panics_in_the_engines_own_scan_is_an_error_that_names_the_file() {
    let Some(files) = gristmill_testkit::conformance_dir("files") else { return };
    let fuzzed = files.join("arrow-testing/data/parquet/fuzzing");
    for number in ["4738122420715520", "5670235492581376", "6696667471020032"] {
        let folder = Folder::new();
        let name = format!("clusterfuzz-testcase-minimized-parquet-arrow-fuzz-{number}");
        folder.write("p.parquet", std::fs::read(fuzzed.join(name)).unwrap());
        for args in [&["sql", "select * from 'p.parquet'"][..], &["copy", "p.parquet", "out/"]] {
            let said = folder.run(args);
            assert_eq!(said.code, Some(1), "{number}: {said}");
            assert!(said.error().contains("p.parquet"), "{number}: {said}");
            assert!(!said.err.contains("panicked"), "{number}: {said}");
        }
    }
}

#[test]
fn an_append_whose_store_was_lost_is_found_in_the_target_and_not_added_twice() {
    let folder = Folder::new();
    folder.write("gristmill.yaml", PROJECT).write("pipelines/p.yaml", APPEND).write("in.csv", "id\n1\n2\n");
    folder.ok(&["run", ".", "--date", "2024-01-15"]);
    std::fs::remove_dir_all(folder.path().join(".gristmill")).unwrap();
    let said = folder.run(&["run", ".", "--date", "2024-01-15"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.out.contains("already"), "{said}");
    assert_eq!(folder.rows("select count(*) from db.orders"), ["2"]);
    assert_eq!(folder.ok(&["run", ".", "--date", "2024-01-16"]).matches("already").count(), 0);
    assert_eq!(folder.rows("select count(*) from db.orders"), ["4"]);
}

#[test]
fn a_column_that_a_load_adds_is_told() {
    let folder = Folder::new();
    folder.write("gristmill.yaml", PROJECT).write("pipelines/p.yaml", APPEND).write("in.csv", "id,amount\n1,2\n");
    folder.ok(&["run", ".", "--date", "2024-01-15"]);
    folder.write("in.csv", "id,amout\n2,3\n");
    let out = folder.ok(&["run", ".", "--date", "2024-01-16"]);
    assert!(out.contains("adds the column `amout` to `orders`; the rows have no `amount`"), "{out}");
}

#[test]
fn null_and_the_empty_text_come_back_from_csv_as_they_were() {
    let folder = Folder::new();
    folder.write("in.ndjson", "{\"a\": 1, \"t\": \"\"}\n{\"a\": 2, \"t\": null}\n{\"a\": 3, \"t\": \"x\"}\n");
    folder.ok(&["copy", "in.ndjson", "out.csv"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("out.csv")).unwrap(), "a,t\n1,\"\"\n2,\n3,x\n");
    assert_eq!(folder.rows("select count(*), count(t), min(t) = '' from 'out.csv'"), ["3,2,true"]);
}
