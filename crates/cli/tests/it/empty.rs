//! Commands that look, where there is nothing to see yet.

use crate::support::Folder;

fn project() -> Folder {
    let folder = Folder::new();
    folder.write("gristmill.yaml", "name: shop\n").write("pipelines/p.yaml", "steps:\n  a: {command: \"true\"}\n");
    folder
}

#[test]
fn runs_of_a_project_where_nothing_has_run() {
    let folder = project();
    insta::assert_snapshot!(folder.run(&["runs"]));
    assert!(!folder.path().join(".gristmill").exists(), "looking leaves nothing behind");
}

#[test]
fn runs_as_json_are_an_empty_list() {
    let said = project().run(&["runs", "--output", "json"]);
    assert_eq!(said.out, "[]\n");
}

#[test]
fn show_where_nothing_has_run() {
    insta::assert_snapshot!(project().run(&["show", "last"]));
}

#[test]
fn recover_where_nothing_has_run() {
    insta::assert_snapshot!(project().run(&["recover"]));
}

#[test]
fn a_pipeline_that_does_not_exist() {
    insta::assert_snapshot!(project().run(&["run", "--pipeline", "q", "--date", "2024-01-15"]));
}

#[test]
fn a_connection_that_does_not_exist() {
    insta::assert_snapshot!(project().run(&["conn", "test", "warehouse"]));
}

#[test]
fn doctor_looks_at_the_machine() {
    let folder = project();
    let said = folder.run(&["doctor", "--output", "json"]);
    assert_eq!(said.code, Some(0), "{said}");
    let findings: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let names: Vec<&str> =
        findings.as_array().unwrap().iter().map(|finding| finding["what"].as_str().unwrap()).collect();
    assert_eq!(names, ["gristmill", "project", "state folder", "disk", "memory", "cores"]);
}
