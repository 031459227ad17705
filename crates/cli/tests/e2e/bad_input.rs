//! Bad input, item by item: one clear error that names the thing and says what to do, the exit code of its class, and
//! nothing visible in the target.

use crate::support::{Folder, Said};
use gristmill_testkit::{postgres, s3};
use std::time::Instant;

/// A project whose pipeline loads the view `a` into `out`.
struct Case {
    folder: Folder,
    /// Said of the target, if not a folder of files.
    load: String,
    steps: String,
    connections: String,
}

impl Case {
    fn new(steps: &str) -> Self {
        Self {
            folder: Folder::new(),
            load: "to: here, path: out/".to_owned(),
            steps: steps.to_owned(),
            connections: String::new(),
        }
    }

    /// A pipeline that reads one file.
    fn file(name: &str, content: impl AsRef<[u8]>, options: &str) -> Self {
        let case = Self::new(&format!("  a: {{extract: {{from: here, path: \"in/{name}\"{options}}}}}\n"));
        case.folder.write(&format!("in/{name}"), content);
        case
    }

    fn connection(mut self, text: &str) -> Self {
        self.connections.push_str(&format!("  {text}\n"));
        self
    }

    fn load(mut self, load: &str) -> Self {
        self.load = load.to_owned();
        self
    }

    fn run(&self) -> Said {
        self.folder.write(
            "gristmill.yaml",
            format!(
                "name: bad\nconnections:\n  here: {{type: files, url: .}}\n  db: {{type: sqlite, path: some.db}}\n{}",
                self.connections
            ),
        );
        let load = format!("  out: {{load: {{from: a, {}, strategy: replace}}}}\n", self.load);
        self.folder.write("pipelines/p.yaml", format!("steps:\n{}{load}", self.steps));
        self.folder.run(&["run", ".", "--date", "2024-01-15"])
    }

    /// Runs into an error: every one of these words is in it, and nothing is in the target.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) -> Said {
        let said = self.run();
        assert_eq!(said.code, Some(code), "{said}");
        let error = said.error();
        assert!(error.contains("\n  hint: "), "what to do? {error}");
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
        for jargon in ["DataFusion", "datafusion", "Arrow", "Generic", "External", "Os {", "SqlState", "secret"] {
            assert!(!said.to_string().contains(jargon), "{said}");
        }
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(self.folder.visible("out").is_empty(), "{:?}", self.folder.visible("out"));
        assert!(!said.out.contains("thrown away"), "{said}");
        said
    }
}

const TWO: &str = "id,amount\n1,2\n3,4\n";

#[test]
fn a_wrong_key_is_a_configuration_error_with_its_place() {
    Case::file("a.csv", TWO, ", colums: [id]")
        .fails(2, &["pipelines/p.yaml:2:", "`colums`", "did you mean `columns`?"]);
}

#[test]
fn an_unknown_connection() {
    Case::new("  a: {extract: {from: hree, path: a.csv}}\n").fails(2, &["`hree`", "did you mean `here`?"]);
}

#[test]
fn a_cycle() {
    Case::new("  a: {sql: \"select * from b\"}\n  b: {sql: \"select * from a\"}\n").fails(2, &["a → b → a"]);
}

#[test]
fn a_missing_file() {
    let case = Case::file("orders.csv", TWO, "");
    let case = Case { steps: case.steps.replace("orders", "order"), ..case };
    case.fails(1, &["step `a`", "`in/order.csv`", "did you mean `in/orders.csv`?"]);
}

#[test]
fn a_missing_table_and_a_missing_database() {
    let case = Case::new("  a: {extract: {from: db, table: orders}}\n");
    case.fails(1, &["step `a`", "`some.db` does not exist", "path"]);
    let database = rusqlite::Connection::open(case.folder.path().join("some.db")).unwrap();
    database.execute_batch("create table order_s (id integer)").unwrap();
    case.fails(1, &["table `orders`", "`some.db`", "did you mean `order_s`?"]);
}

#[test]
fn a_column_that_is_not_there() {
    let mut case = Case::file("b.csv", TWO, "");
    case.steps = case.steps.replace("  a:", "  b:") + "  a: {sql: \"select amout from b\"}\n";
    case.fails(1, &["step `a`", "`amout`", "did you mean `amount`?"]);
}

#[test]
fn a_value_that_does_not_fit_its_type() {
    let case = Case::file("a.csv", "id,amount\n1,2\n3,four\n", ", schema: {amount: bigint}");
    case.fails(1, &["`in/a.csv:3`", "`four`", "`amount`", "bigint"]);
}

#[test]
fn a_torn_parquet_file() {
    let folder = Folder::new();
    folder.write("a.csv", "id,name\n1,x\n2,y\n");
    folder.ok(&["copy", "a.csv", "whole.parquet"]);
    let whole = std::fs::read(folder.path().join("whole.parquet")).unwrap();
    for length in [0, 3, whole.len() / 2, whole.len() - 1] {
        let case = Case::file("a.parquet", &whole[..length], "");
        case.fails(1, &["step `a`", "`in/a.parquet`"]);
    }
}

#[test]
fn a_ragged_csv_file_by_each_answer() {
    const RAGGED: &str = "id,amount\n1,2\n2\n3,4,5\n6,7\n";
    Case::file("a.csv", RAGGED, "").fails(1, &["`in/a.csv:3`", "1 field", "on_bad_row"]);
    let case = Case::file("a.csv", RAGGED, ", on_bad_row: drop");
    assert_eq!(case.run().code, Some(0));
    assert_eq!(case.folder.rows("select * from 'out/' order by id"), ["1,2", "6,7"]);
    let case = Case::file("a.csv", RAGGED, ", on_bad_row: dead_letter");
    assert_eq!(case.run().code, Some(0));
    assert_eq!(case.folder.rows("select * from 'out/' order by id"), ["1,2", "6,7"]);
    let letters = case.folder.rows("select place, record from '.gristmill/dead_letters/p/2024-01-15/' order by place");
    assert_eq!(letters, ["in/a.csv:3,2", "in/a.csv:4,\"3,4,5\""]);
}

#[test]
fn a_line_that_is_not_json() {
    let case = Case::file("a.ndjson", "{\"id\": 1}\n{\"id\": \n{\"id\": 3}\n", "");
    case.fails(1, &["`in/a.ndjson:2`", "the line ends inside a value", "on_bad_row"]);
}

#[test]
fn bytes_that_are_not_utf_8() {
    let case = Case::file("a.csv", b"id,name\n1,caf\xe9\n", "");
    case.fails(1, &["`in/a.csv:2`", "encoding"]);
    let case = Case::file("a.csv", b"id,name\n1,caf\xe9\n", ", csv: {encoding: windows-1252}");
    assert_eq!(case.run().code, Some(0));
    assert_eq!(case.folder.rows("select * from 'out/'"), ["1,café"]);
}

#[test]
fn empty_input() {
    Case::file("a.csv", "", "").fails(1, &["`in/a.csv` is empty"]);
    let case = Case::new("  a: {extract: {from: here, path: in/}}\n");
    std::fs::create_dir(case.folder.path().join("in")).unwrap();
    case.fails(1, &["`in/`", "empty"]);
    // No rows are an answer, where the columns are known.
    let case = Case::file("a.csv", "id,amount\n", "");
    assert_eq!(case.run().code, Some(0));
    assert_eq!(case.folder.rows("select count(*) from 'out/'"), ["0"]);
    let parquet = case.folder.visible("out").remove(0).1;
    let case = Case::file("a.parquet", parquet, "");
    assert_eq!(case.run().code, Some(0));
    assert_eq!(case.folder.rows("select count(*) from 'out/'"), ["0"]);
}

#[test]
fn a_server_that_does_not_answer() {
    let begin = Instant::now();
    Case::file("a.csv", TWO, "")
        .connection("pg: {type: postgres, url: \"postgres://me:secret@127.0.0.1:1/shop\"}")
        .load("to: pg, table: t")
        .fails(
            1,
            &[
                "step `out`",
                "cannot reach PostgreSQL at `me@127.0.0.1:1/shop`",
                "refused",
                "check that the server runs",
            ],
        );
    Case::new("  a: {extract: {from: pg, table: orders}}\n")
        .connection("pg: {type: postgres, url: \"postgres://me:secret@127.0.0.1:1/shop\"}")
        .fails(1, &["step `a`", "cannot reach PostgreSQL"]);
    let mut case = Case::file("a.csv", TWO, "")
        .connection("s3: {type: files, url: \"s3://bucket/x\", endpoint: \"http://127.0.0.1:1\"}")
        .load("to: s3, path: t/");
    case.folder.set("AWS_REGION", "us-east-1").set("AWS_ACCESS_KEY_ID", "k").set("AWS_SECRET_ACCESS_KEY", "secret");
    case.fails(1, &["step `out`", "`s3://bucket/x", "refused", "check the address"]);
    assert!(begin.elapsed().as_secs() < 60, "nobody waits that long");
}

#[test]
fn a_wrong_password() {
    let database = postgres::database();
    let wrong = database.url().replace("correct%20horse", "secret");
    Case::file("a.csv", TWO, "")
        .connection(&format!("pg: {{type: postgres, url: \"{wrong}\"}}"))
        .load("to: pg, table: t")
        .fails(1, &["step `out`", "password", "gristmill"]);
    let server = s3::S3Server::start(&["bucket"]).unwrap();
    let mut case = Case::file("a.csv", TWO, "")
        .connection(&format!("s3: {{type: files, url: \"s3://bucket/x\", endpoint: \"{}\"}}", server.endpoint))
        .load("to: s3, path: t/");
    case.folder.set("AWS_REGION", "us-east-1").set("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY);
    case.folder.set("AWS_SECRET_ACCESS_KEY", "secret");
    case.fails(1, &["step `out`", "refused", "credentials"]);
}

#[test]
fn a_target_that_cannot_be_written() {
    // `/proc` refuses everybody, root too, where modes would not.
    Case::file("a.csv", TWO, "")
        .connection("proc: {type: files, url: /proc}")
        .load("to: proc, path: out/")
        .fails(1, &["step `out`", "/proc/out"]);
    Case::file("a.csv", TWO, "")
        .connection("ro: {type: sqlite, path: /proc/some.db}")
        .load("to: ro, table: t")
        .fails(1, &["step `out`", "`/proc/some.db` cannot be opened"]);
}

/// A file system of one megabyte; gone with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(folder: &std::path::Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder.to_owned()));
        }
        eprintln!("SKIPPED: a full disk cannot be made here (mounting a tmpfs is refused)");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ended = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    let steps = "  a: {generate: {rows: 200000, seed: 1, columns: [{name: id, kind: uuid}]}}\n";
    let case = Case::new(steps).load("to: here, path: small/out/");
    let Some(_disk) = SmallDisk::mount(&case.folder.path().join("small")) else { return };
    case.fails(1, &["step `out`", "small/out", "space"]);
    assert!(case.folder.visible("small").is_empty());
    let case = case.load("to: tiny, table: t").connection("tiny: {type: sqlite, path: small/some.db}");
    case.fails(1, &["step `out`", "some.db"]);
}

#[test]
fn checks_that_fail() {
    let mut case = Case::file("a.csv", "id,name\n1,x\n1,y\n,z\n", "");
    case.steps = case.steps.trim_end().trim_end_matches('}').to_owned()
        + "}, checks: [{not_null: id}, {unique: id}, {row_count: {min: 10}}]}\n";
    case.fails(
        1,
        &["step `a`", "`not_null(id)` failed: 1 bad row among 3", "`unique(id)` failed", "3 rows, wanted at least 10"],
    );
}
