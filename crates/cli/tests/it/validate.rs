//! Every mistake in the files, each with its place. Cases are data: `tests/cases/validate/NAME.yaml` is a pipeline, and
//! `NAME.out` what `validate` says about it. `UPDATE_GOLDEN=1 cargo test -p gristmill` writes the answers anew.

use crate::support::{Folder, repository};
use std::path::PathBuf;

const PROJECT: &str = "name: cases
connections:
  lake: {type: files, url: ./lake}
  sales_db: {type: sqlite, path: data/sales.db}
  warehouse: {type: sqlite, path: data/warehouse.db}
";

#[test]
fn every_case_gets_its_answer() {
    let folder = repository().join("tests/cases/validate");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        let project = Folder::new();
        project.write("gristmill.yaml", PROJECT);
        project.write("pipelines/case.yaml", &std::fs::read_to_string(&case).unwrap());
        let said = project.run(&["validate"]).to_string();
        let answer = case.with_extension("out");
        if update {
            std::fs::write(&answer, &said).unwrap();
        } else if std::fs::read_to_string(&answer).unwrap_or_default() != said {
            wrong.push(format!("{name}:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nif that is right: UPDATE_GOLDEN=1 cargo test -p gristmill", wrong.join("\n"));
}

#[test]
fn mistakes_of_the_project_file_come_all_at_once() {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        "nmae: shop\nconnections:\n  db: {type: postgres, url: \"${NOT_SET_ANYWHERE}\"}\ndefaults: {retries: many}\n",
    );
    insta::assert_snapshot!(folder.run(&["validate"]));
}

#[test]
fn a_ledger_forgets_nothing_that_a_run_may_still_ask_for() {
    let folder = Folder::new();
    folder.write(
        "gristmill.yaml",
        "name: shop\nconnections:\n  lake: {type: files, url: ./lake}\ndefaults:\n  dead_letters: {to: lak}\n  ledger: {retention: 12h}\n",
    );
    insta::assert_snapshot!(folder.run(&["validate"]));
    folder.write("gristmill.yaml", "name: shop\ndefaults: {ledger: {retention: 1d}}\n");
    assert_eq!(folder.run(&["validate"]).code, Some(0));
    folder.write("gristmill.yaml", "name: shop\ndefaults: {ledger: {retenton: 1d}}\n");
    let said = folder.run(&["validate"]);
    assert!(said.code == Some(2) && said.to_string().contains("did you mean `retention`?"), "{said}");
}

#[test]
fn a_variable_that_is_not_set_is_said_with_its_place() {
    let folder = Folder::new();
    folder.write("gristmill.yaml", "name: shop\nconnections:\n  lake: {type: files, url: \"${NOT_SET_ANYWHERE}\"}\n");
    insta::assert_snapshot!(folder.run(&["validate"]));
}

#[test]
fn an_unknown_profile_is_said_with_the_one_that_was_meant() {
    let folder = Folder::new();
    folder.write("gristmill.yaml", "name: shop\nprofiles:\n  production: {connections: {}}\n");
    insta::assert_snapshot!(folder.run(&["validate", "--profile", "prodution"]));
}

#[test]
fn mistakes_are_a_json_document_too() {
    let folder = Folder::new();
    folder.write("gristmill.yaml", "name: shop\n").write("pipelines/p.yaml", "steps:\n  a: {sqll: select 1}\n");
    let said = folder.run(&["validate", "--output", "json"]);
    assert_eq!(said.code, Some(2));
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["mistakes"][0]["file"], "pipelines/p.yaml");
    assert_eq!(document["mistakes"][0]["line"], 2);
}

#[test]
fn the_examples_are_fine() {
    let examples = repository().join("examples");
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let said = Folder::new().run(&["validate", &path.to_string_lossy()]);
        assert_eq!(said.code, Some(0), "{}: {said}", path.display());
    }
}

#[test]
fn missing_variables_and_mistakes_of_pipelines_are_said_together() {
    let project = Folder::new();
    project.write("gristmill.yaml", "name: p\nconnections:\n  db: {type: postgres, host: \"${NO_SUCH_VARIABLE}\"}\n");
    project.write("pipelines/p.yaml", "name: p\nsteps:\n  a: {extract: {from: nowhere, table: t}}\n");
    let said = project.run(&["validate"]).to_string();
    assert!(said.contains("NO_SUCH_VARIABLE") && said.contains("nowhere"), "{said}");
}
