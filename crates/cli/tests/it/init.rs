//! A new project.

use crate::support::Folder;

#[test]
fn init_makes_a_project_that_validates() {
    let folder = Folder::new();
    insta::assert_snapshot!(folder.run(&["init", "shop"]));
    insta::assert_snapshot!(folder.run(&["validate", "shop"]));
}

#[test]
fn init_never_writes_over_a_file() {
    let folder = Folder::new();
    folder.write("shop/gristmill.yaml", "name: mine\n");
    insta::assert_snapshot!(folder.run(&["init", "shop"]));
    assert_eq!(std::fs::read_to_string(folder.path().join("shop/gristmill.yaml")).unwrap(), "name: mine\n");
    assert!(!folder.path().join("shop/pipelines").exists(), "nothing else was written either");
}

#[test]
fn init_answers_in_json_too() {
    let said = Folder::new().run(&["init", "my shop", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["project"], "my_shop");
    assert_eq!(said.code, Some(0));
}
