//! Comments of columns that a load makes.

use super::*;
use crate::comments::commented;

fn with_comments(rows: &RecordBatch, comments: &[(&str, &str)]) -> RecordBatch {
    let comments = comments.iter().map(|(column, comment)| ((*column).to_owned(), (*comment).to_owned())).collect();
    rows.clone().with_schema(commented(&rows.schema(), &comments)).unwrap()
}

fn rows(columns: &[&str]) -> RecordBatch {
    let column = |name| (name, Arc::new(Int64Array::from(vec![1])) as ArrayRef);
    batch(columns.iter().copied().map(column).collect())
}

/// As digits, since the client would escape it.
fn comment(database: &TestDatabase, column: &str) -> String {
    database.sql(&format!(
        "select hex(convert(column_comment using utf8mb4)) from information_schema.columns \
         where table_schema = database() and table_name = 'target' and column_name = '{column}'"
    ))
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

#[tokio::test]
async fn a_table_that_is_made_has_the_comments_of_the_columns() {
    let long = "ä".repeat(2000);
    // What could end a literal, or be changed in it; no letter that the server's comments do not have.
    let words = "it's \"so\" \\ a\\'b; -- no\nend /* 日本 */ % _ ?";
    let comments = [("id", "a key"), ("note", words), ("far", "a\0b 🙂"), ("long", long.as_str())];
    let rows = with_comments(&rows(&["id", "note", "far", "long", "plain"]), &comments);
    for yaml in ["strategy: append", "strategy: merge\nkey: id"] {
        let database = mariadb::database();
        load(&database, &format!("table: target\n{yaml}"), &rows, 1).await.unwrap();
        let kept = ["a key", words, "ab \u{fffd}", &long[..2048], ""].map(hex);
        assert_eq!(["id", "note", "far", "long", "plain"].map(|column| comment(&database, column)), kept, "{yaml}");
    }
}

#[tokio::test]
async fn columns_that_are_there_keep_their_comments_and_new_ones_bring_theirs() {
    let theirs = [("id", "theirs"), ("note", "theirs"), ("more", "new")];
    let rows = with_comments(&rows(&["id", "note", "more"]), &theirs);
    let database = mariadb::database();
    database.sql("create table target (id bigint comment 'mine', note bigint)");
    for generation in [1, 2] {
        load(&database, "table: target\nstrategy: append", &rows, generation).await.unwrap();
        let comments = ["id", "note", "more"].map(|column| comment(&database, column));
        assert_eq!(comments, ["mine", "", "new"].map(hex));
    }
}
