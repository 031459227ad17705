//! Comments of columns that a load makes.

use super::*;
use crate::comments::commented;

/// What could end a literal, or be changed in it.
const WORDS: &str = "it's \"so\" \\ a\\'b; -- no\nend /* 日本 🙂 */ $$ ?";

fn with_comments(rows: &RecordBatch, comments: &[(&str, &str)]) -> RecordBatch {
    let comments = comments.iter().map(|(column, comment)| ((*column).to_owned(), (*comment).to_owned())).collect();
    rows.clone().with_schema(commented(&rows.schema(), &comments)).unwrap()
}

fn rows(columns: &[&str]) -> RecordBatch {
    let column = |name| (name, Arc::new(Int64Array::from(vec![1])) as ArrayRef);
    batch(columns.iter().copied().map(column).collect())
}

fn comment(database: &TestDatabase, column: &str) -> String {
    database.sql(&format!(
        "select coalesce(col_description(attrelid, attnum), '') from pg_attribute \
         where attrelid = 'target'::regclass and attname = '{column}'"
    ))
}

#[tokio::test]
async fn a_table_that_is_made_has_the_comments_of_the_columns() {
    let rows =
        with_comments(&rows(&["id", "no\"te", "nul", "plain"]), &[("id", "a key"), ("no\"te", WORDS), ("nul", "a\0b")]);
    for yaml in ["strategy: append", "strategy: merge\nkey: id", "strategy: append\nload_column: true"] {
        let database = postgres::database();
        load(&database, &format!("table: target\n{yaml}"), &rows, 1).await.unwrap();
        let comments = ["id", "no\"te", "nul", "plain"].map(|column| comment(&database, column));
        assert_eq!(comments, ["a key", WORDS, "ab", ""], "{yaml}");
        assert_eq!(database.sql("select obj_description('target'::regclass) is null"), "t");
    }
}

#[tokio::test]
async fn columns_that_are_there_keep_their_comments_and_new_ones_bring_theirs() {
    let theirs = [("id", "theirs"), ("note", "theirs"), ("more", "new")];
    let rows = with_comments(&rows(&["id", "note", "more"]), &theirs);
    for strategy in ["append", "replace"] {
        let database = postgres::database();
        database.sql("create table target (id bigint, note bigint); comment on column target.id is 'mine'");
        for generation in [1, 2] {
            load(&database, &format!("table: target\nstrategy: {strategy}"), &rows, generation).await.unwrap();
            let comments = ["id", "note", "more"].map(|column| comment(&database, column));
            assert_eq!(comments, ["mine", "", "new"], "{strategy}");
        }
    }
}
