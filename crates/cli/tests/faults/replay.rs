//! Replays of dead letters that are killed: wherever that is, what was refused is in the target once when all is done.

use crate::chance::Chance;
use crate::load::process::{Running, run};
use crate::support::{Folder, copy};
use gristmill_testkit::postgres::{PostgresServer, TestDatabase};
use std::collections::BTreeSet;

const RUN: [&str; 4] = ["run", ".", "--date", "2024-01-02"];
const REPLAY: [&str; 2] = ["dead-letters", "replay"];
const RECOVER: [&str; 1] = ["recover"];

#[derive(Debug, Clone, Copy)]
enum Target {
    Sqlite,
    Postgres,
    /// A folder and a table, by two loads of one replay.
    FolderAndSqlite,
    /// What a reader of SQLite refused.
    RowsOfSqlite,
    /// What a reader of PostgreSQL refused.
    RowsOfPostgres,
}

impl Target {
    fn is_in_postgres(self) -> bool {
        matches!(self, Self::Postgres | Self::RowsOfPostgres)
    }

    /// Whether a reader refused the rows, not a check.
    fn is_read(self) -> bool {
        matches!(self, Self::RowsOfSqlite | Self::RowsOfPostgres)
    }
}

const TARGETS: [Target; 5] =
    [Target::Sqlite, Target::Postgres, Target::FolderAndSqlite, Target::RowsOfSqlite, Target::RowsOfPostgres];

/// A project whose letters wait to be replayed.
struct Yard<'a> {
    folder: Folder,
    target: Target,
    database: Option<TestDatabase>,
    server: &'a PostgresServer,
}

impl<'a> Yard<'a> {
    fn new(target: Target, server: &'a PostgresServer) -> Self {
        let database = target.is_in_postgres().then(|| server.database());
        let yard = Self { folder: Folder::new(), target, database, server };
        let mut lines = "id,v\n".to_owned();
        for id in 0..200 {
            lines.push_str(&format!("{id},{}\n", if id % 10 == 3 { String::new() } else { format!("v{id}") }));
        }
        yard.folder.write("in/a.csv", lines);
        yard.pipeline(true);
        let values =
            (0..200).map(|id| format!("({id}, '{}')", if id % 10 == 3 { "none".to_owned() } else { id.to_string() }));
        let table = format!(
            "create table src (id int, v text); insert into src values {}",
            values.collect::<Vec<_>>().join(", ")
        );
        match (&yard.database, target) {
            (Some(database), Target::RowsOfPostgres) => drop(database.sql(&table)),
            (None, Target::RowsOfSqlite) => yard.sqlite().execute_batch(&table).unwrap(),
            _ => {}
        }
        run(&yard.folder, &RUN, "").unwrap().must_be_done("the run").unwrap();
        if target.is_read() {
            // Nobody is asked again.
            match &yard.database {
                Some(database) => drop(database.sql("drop table src")),
                None => yard.sqlite().execute_batch("drop table src").unwrap(),
            }
        }
        yard.pipeline(false);
        assert_eq!(yard.count(), 180, "{target:?}");
        yard
    }

    fn sqlite(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("out.db")).unwrap()
    }

    /// `refuses`: as it was in the run; else as somebody has mended it.
    fn pipeline(&self, refuses: bool) {
        let out = match &self.database {
            Some(database) => format!("{{type: postgres, url: \"{}\"}}", database.local_url()),
            None => "{type: sqlite, path: out.db}".to_owned(),
        };
        self.folder.write(
            "gristmill.yaml",
            format!("name: faults\nmain: p\nconnections:\n  src: {{type: files, url: ./in}}\n  lake: {{type: files, url: ./lake}}\n  out: {out}\n"),
        );
        let beside = match self.target {
            Target::FolderAndSqlite => "  beside: {load: {from: rows, to: lake, path: t/, strategy: replace}}\n",
            _ => "",
        };
        let checks = if refuses { "    checks: [{not_null: {column: v, on_fail: dead_letter}}]\n" } else { "" };
        let rows = if self.target.is_read() {
            let kind = if refuses { "int" } else { "text" };
            format!(
                "  read: {{extract: {{from: out, table: src, on_bad_row: dead_letter, schema: {{v: {kind}}}}}}}\n  rows: {{sql: \"SELECT id, CAST(v AS text) AS v FROM read\"}}\n"
            )
        } else {
            format!("  rows:\n    extract: {{from: src, path: a.csv}}\n{checks}")
        };
        self.folder.write(
            "pipelines/p.yaml",
            format!(
                "name: p\nsteps:\n{rows}  load: {{load: {{from: rows, to: out, table: t, strategy: replace}}}}\n{beside}"
            ),
        );
    }

    fn copied(&self) -> Self {
        let database = self.database.as_ref().map(|database| self.server.copy(database).unwrap());
        let yard = Self { folder: Folder::new(), target: self.target, database, server: self.server };
        copy(self.folder.path(), yard.folder.path());
        yard.pipeline(false);
        yard
    }

    /// Rows of the target, each of which must be there once.
    fn count(&self) -> usize {
        let ids: Vec<String> = match &self.database {
            Some(database) => database.sql("select id from t").lines().map(str::to_owned).collect(),
            None => {
                let database = self.sqlite();
                let mut ids = database.prepare("select cast(id as text) from t").unwrap();
                ids.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
            }
        };
        let different: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len(), "{:?}: doubled", self.target);
        if matches!(self.target, Target::FolderAndSqlite) {
            let in_files = self.folder.rows("select count(*), count(distinct id) from 'lake/t/'");
            let (all, different) = in_files[0].split_once(',').unwrap();
            assert_eq!(all, different, "doubled in files");
        }
        ids.len()
    }

    fn in_files(&self) -> String {
        self.folder.rows("select count(*) from 'lake/t/'").remove(0)
    }
}

impl Drop for Yard<'_> {
    fn drop(&mut self) {
        if let Some(database) = &self.database {
            let _gone = self.server.drop(database);
        }
    }
}

#[test]
fn a_replay_that_is_killed_anywhere_adds_each_row_once() {
    let server = PostgresServer::start().unwrap();
    let seed = crate::number("GRISTMILL_FAULTS_SEED").unwrap_or(1);
    let cases = crate::number("GRISTMILL_FAULTS_RUNS").unwrap_or(6);
    let mut killed = 0;
    for (number, target) in TARGETS.into_iter().enumerate() {
        let bed = Yard::new(target, &server);
        let whole = bed.copied();
        let trace = whole.folder.path().join("trace");
        let output = whole.folder.command(&REPLAY).env("GRISTMILL_FAULTS_TRACE", &trace).output().unwrap();
        assert!(output.status.success(), "{target:?}: {output:?}");
        assert_eq!(whole.count(), 200, "{target:?}");
        let trace: Vec<String> = std::fs::read_to_string(trace).unwrap().lines().map(str::to_owned).collect();
        let points: Vec<&str> = trace.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        for case in 0..cases {
            let mut chance = Chance::new(seed + number as u64, case);
            let point = chance.one(&points);
            let passes = trace.iter().filter(|passed| *passed == point).count() as u64;
            let plan = format!("{point}:{}=kill", chance.number(1, passes + 1));
            let yard = bed.copied();
            let struck = Running::begin(yard.folder.command(&REPLAY), &plan).unwrap().end().unwrap();
            assert!(struck.is_killed() || struck.code == Some(0), "{target:?}, {plan}: {}", struck.text);
            killed += usize::from(struck.is_killed());
            let seen = yard.count();
            assert!(seen == 180 || seen == 200, "{target:?}, {plan}: a reader sees {seen} rows");
            if chance.is(1, 2) {
                let plan = format!("any:{}=kill", chance.number(1, 20));
                run(&yard.folder, &RECOVER, &plan).unwrap();
                run(&yard.folder, &RECOVER, "").unwrap().must_be_done("the recovery").unwrap();
            }
            for again in 0..2 {
                let replayed = run(&yard.folder, &REPLAY, "").unwrap();
                replayed.must_be_done("the replay after all").unwrap();
                assert_eq!(yard.count(), 200, "{target:?}, {plan}, {again}: {}\n{}", struck.text, replayed.text);
            }
            if matches!(target, Target::FolderAndSqlite) {
                assert_eq!(yard.in_files(), "200", "{plan}");
            }
            let listed = run(&yard.folder, &["dead-letters", "list"], "").unwrap();
            assert!(listed.text.contains("load by "), "{target:?}, {plan}: {}", listed.text);
        }
    }
    assert!(killed > 0, "nothing was killed");
}
