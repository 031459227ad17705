//! Checks see what a person would see.

use crate::support::{Folder, Said};

/// A pipeline whose view has one check.
fn check(input: &str, sql: &str, check: &str) -> Said {
    let folder = Folder::new();
    folder.write("gristmill.yaml", "name: checked\nmain: p\nconnections:\n  in: {type: files, url: ./in}\n");
    folder.write("in/a.csv", input);
    folder.write(
        "pipelines/p.yaml",
        format!("name: p\nsteps:\n  v: {{extract: {{from: in, path: a.csv}}}}\n  known:\n    sql: SELECT CAST(k AS decimal(10,2)) AS k, CAST(k AS text) AS word FROM (VALUES (1.25), (2.00)) AS t(k)\n  big:\n    sql: SELECT CAST(3000000000 AS bigint) AS k UNION ALL SELECT 1\n  w:\n    sql: {sql}\n  look: {{check: w, checks: [{check}]}}\n"),
    );
    folder.run(&["run", ".", "--date", "2024-01-15"])
}

#[test]
fn a_number_is_no_bound_for_text() {
    let said = check("x\na\n", "SELECT CAST(x AS text) AS x FROM v", "between: {column: x, min: 10}");
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("column `x` is text, and the bound `10` is a number"), "{said}");
    assert!(said.error().contains("try_cast(x AS double)"), "{said}");
    let said = check("x\nb\n", "SELECT x FROM v", "between: {column: x, min: a}");
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn nan_is_between_no_bounds() {
    let said = check("x\n1.5\n", "SELECT CAST('NaN' AS double) AS x FROM v", "between: {column: x, min: 0}");
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("1 bad row"), "{said}");
    let said = check("x\n1.5\n", "SELECT x FROM v", "between: {column: x, min: 0}");
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn related_keys_are_compared_in_a_type_that_holds_both() {
    let related = |to: &str| format!("relationships: {{column: x, to: {to}}}");
    let narrow = "SELECT CAST(x AS int) AS x FROM v";
    let said = check("x\n1\n", narrow, &related("big.k"));
    assert_eq!(said.code, Some(0), "{said}");
    let said = check("x\n1\n", narrow, &related("known.k"));
    assert!(said.code == Some(1) && said.error().contains("1 bad row"), "1.25 is not 1: {said}");
    let said = check("x\n2\n", narrow, &related("known.k"));
    assert_eq!(said.code, Some(0), "{said}");
    let said = check("x\n1.25\nzzz\n", "SELECT x FROM v", &related("known.k"));
    assert!(said.code == Some(1) && said.error().contains("1 bad row among 2 rows, e.g. zzz"), "{said}");
}

#[test]
fn a_date_far_away_is_a_usage_error() {
    let folder = Folder::new();
    for date in ["262142-12-31", "9999-12-31", "0000-01-01", "-5-01-01"] {
        let said = folder.run(&["run", ".", &format!("--date={date}")]);
        assert_eq!(said.code, Some(2), "{said}");
        assert!(said.err.contains("dates are from 0001-01-01 to 9999-12-30") || said.err.contains("invalid"), "{said}");
    }
}
