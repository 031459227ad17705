//! The examples of the library work as they are shown.

use crate::support::repository;

#[path = "../../examples/own_function.rs"]
#[expect(dead_code, reason = "its `main` is for people")]
mod own_function;

#[tokio::test]
async fn a_function_of_ones_own_works_in_queries_and_in_a_pipeline_built_in_code() {
    let folder = tempfile::tempdir().unwrap();
    let batches = own_function::run(folder.path()).await.unwrap();
    let shown = gristmill::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert!(shown.contains("| Ada   | HELLO ADA!   | ADA!   |"), "{shown}");
    assert!(shown.contains("| Grace | HELLO GRACE! | GRACE! |"), "{shown}");
}

#[test]
fn the_guide_shows_the_example_as_it_is() {
    let example = std::fs::read_to_string(repository().join("crates/cli/examples/own_function.rs")).unwrap();
    let guide = std::fs::read_to_string(repository().join("docs/guides/library.md")).unwrap();
    let shown = guide.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(example.contains(shown.trim()), "docs/guides/library.md shows something else than the example");
}
