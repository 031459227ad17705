//! What was refused is listed, shown, and loaded after all: once, whatever refused it and wherever it goes.

use crate::strategies::World;
use crate::support::Folder;
use gristmill_testkit::mariadb;
use serde_json::Value;

const ROWS: &str = "select string_agg(id || ':' || coalesce(name, '-'), ' ' order by id) from t";
const CHECK: &str = "    checks: [{not_null: {column: name, on_fail: dead_letter}}, {row_count: {min: 2}}]\n";
const MENDED: &str = "  c: {sql: \"SELECT id, coalesce(name, 'none') AS name FROM v\"}\n";

fn list(folder: &Folder, more: &[&str]) -> Vec<Value> {
    let said = folder.ok(&[&["dead-letters", "list", "--output", "json"], more].concat());
    serde_json::from_str::<Value>(&said).unwrap().as_array().unwrap().clone()
}

fn replay(folder: &Folder, more: &[&str]) -> String {
    folder.ok(&[&["dead-letters", "replay"], more].concat())
}

/// A file with a row that has no name, and the step that looks for one.
fn with_letters(world: &World, load: &str) {
    world.folder.write("lake/a.csv", "id,name\n1,a\n2,\n3,c\n");
    world.steps(&format!("  v:\n    extract: {{from: lake, path: a.csv}}\n{CHECK}{MENDED}{load}"));
}

#[test]
fn letters_can_be_kept_in_a_connection() {
    let [world, _] = World::both();
    let folder = &world.folder;
    let project = std::fs::read_to_string(folder.path().join("gristmill.yaml")).unwrap();
    let to = "defaults: {dead_letters: {to: quarantine, path: refused}}\n";
    let project = project.replacen(
        "connections:\n",
        &format!("{to}connections:\n  quarantine: {{type: files, url: ./quarantine}}\n"),
        1,
    );
    assert!(project.contains(to), "{project}");
    folder.write("gristmill.yaml", project);
    let load = "  l: {load: {from: c, to: out, table: t, strategy: replace}}\n";
    with_letters(&world, load);
    world.ok(15, &[]);
    let kept = || folder.visible("quarantine/refused").len();
    assert_eq!(kept(), 1);
    assert!(folder.visible(".gristmill/dead_letters").is_empty(), "they are there only");
    assert_eq!(list(folder, &[]).len(), 1);
    // What the state folder has are copies.
    std::fs::remove_dir_all(folder.path().join(".gristmill/copies")).unwrap();
    assert!(folder.ok(&["dead-letters", "show"]).contains("not_null(name)"));
    // The same date anew takes their place, and a run that fails leaves none.
    world.ok(15, &[]);
    assert_eq!((kept(), list(folder, &[]).len()), (1, 1));
    folder.write("lake/a.csv", "id,name\n1,\n");
    assert_ne!(folder.run(&["run", ".", "--date", "2024-01-15"]).code, Some(0), "row_count");
    assert_eq!(kept(), 1);
    folder.write("lake/a.csv", "id,name\n1,a\n2,\n3,c\n");
    mend(&world, load);
    replay(folder, &[]);
    assert_eq!(world.ask(ROWS), "1:a 2:none 3:c");
    folder.ok(&["recover"]);
    assert_eq!(kept(), 1, "kept for ever");
    let project = std::fs::read_to_string(folder.path().join("gristmill.yaml")).unwrap();
    folder.write("gristmill.yaml", project.replace("path: refused", "path: refused, retention: 1ms"));
    let said = folder.ok(&["recover"]);
    assert!(said.contains("removed 1 files of dead letters, older than 1ms"), "{said}");
    assert_eq!((kept(), list(folder, &[]).len()), (0, 0));
}

/// The same without the check, as somebody would mend it.
fn mend(world: &World, load: &str) {
    world.steps(&format!("  v: {{extract: {{from: lake, path: a.csv}}}}\n{MENDED}{load}"));
}

#[test]
fn what_a_check_refused_is_added_once_however_often_it_is_replayed() {
    for strategy in [
        "append",
        "replace",
        "truncate+insert",
        "delete+insert, key: [id]",
        "merge, key: [id]",
        "partition_overwrite, partition_by: [id]",
    ] {
        let load = format!("  l: {{load: {{from: c, to: out, table: t, strategy: {strategy}}}}}\n");
        for world in World::both() {
            let folder = &world.folder;
            with_letters(&world, &load);
            world.ok(15, &[]);
            assert_eq!(world.ask(ROWS), "1:a 3:c", "{strategy}");
            let listed = list(folder, &[]);
            assert_eq!(listed.len(), 1, "{listed:?}");
            assert_eq!(
                (&listed[0]["step"], &listed[0]["by"], &listed[0]["rows"]),
                (&"v".into(), &"check".into(), &1.into())
            );
            assert_eq!(listed[0]["reasons"][0][0], "not_null(name)");
            assert_eq!(listed[0]["replayed"], serde_json::json!([]));
            mend(&world, &load);
            for _ in 0..3 {
                replay(folder, &["--run", "last"]);
                assert_eq!(world.ask(ROWS), "1:a 2:none 3:c", "{strategy}");
            }
            let listed = list(folder, &[]);
            assert_eq!(listed[0]["replayed"][0]["load"], "l", "{listed:?}");
            assert_eq!(listed[0]["replayed"][0]["rows"], 1);
            assert_eq!(replay(folder, &[]).trim(), "there is nothing to replay");
            // The target's own ledger knows it, too.
            if !strategy.starts_with("merge") {
                let letters = folder.path().join(".gristmill/dead_letters");
                std::fs::rename(&letters, folder.path().join("letters")).unwrap();
                std::fs::remove_dir_all(folder.path().join(".gristmill")).unwrap();
                std::fs::create_dir(folder.path().join(".gristmill")).unwrap();
                std::fs::rename(folder.path().join("letters"), letters).unwrap();
                replay(folder, &[]);
                assert_eq!(world.ask(ROWS), "1:a 2:none 3:c", "{strategy}, without a history");
            }
        }
    }
}

#[test]
fn a_replay_is_refused_where_a_later_date_may_have_brought_newer_rows() {
    let double = Some("and both would stand there");
    for (strategy, refused) in [
        ("delete+insert, key: [id]", double),
        ("partition_overwrite, partition_by: [id]", double),
        ("merge, key: [id]", Some("may have loaded newer versions of these rows since")),
        ("merge, key: [id], insert_only: true", None),
        ("delete+insert, scope: \"name <> '{{ ds }}'\"", None),
    ] {
        let load = format!("  l: {{load: {{from: c, to: out, table: t, strategy: {strategy}}}}}\n");
        let world = World::sqlite();
        let folder = &world.folder;
        with_letters(&world, &load);
        world.ok(15, &[]);
        mend(&world, &load);
        folder.write("lake/a.csv", "id,name\n2,newer\n");
        world.ok(16, &[]);
        let before = world.ask(ROWS);
        let said = folder.run(&["dead-letters", "replay", "--run", "last"]);
        let Some(why) = refused else {
            assert_eq!(said.code, Some(0), "{strategy}: {said}");
            continue;
        };
        assert_eq!(said.code, Some(1), "{strategy}: {said}");
        assert!(said.error().contains(why), "{strategy}: {said}");
        assert_eq!(world.ask(ROWS), before, "{strategy}");
        let said = folder.run(&["dead-letters", "replay", "--run", "last", "--over-newer"]);
        if strategy.starts_with("merge") {
            assert!(said.code == Some(0) && world.ask(ROWS).contains("2:none"), "{strategy}: {said}");
        } else {
            assert!(said.code == Some(1) && world.ask(ROWS) == before, "{strategy}: {said}");
        }
    }
}

#[test]
fn one_file_takes_no_replay() {
    let world = World::sqlite();
    let load = "  l: {load: {from: c, to: lake, path: t.parquet, strategy: replace}}\n";
    with_letters(&world, load);
    world.ok(15, &[]);
    mend(&world, load);
    let said = world.folder.run(&["dead-letters", "replay", "--step", "vv"]);
    assert!(said.code == Some(1) && said.error().contains("no dead letters are of a step `vv`"), "{said}");
    let said = world.folder.run(&["dead-letters", "replay", "--run", "last"]);
    assert_eq!(said.code, Some(2), "{said}");
    assert!(said.error().contains("`l` writes the one file `t.parquet` as a whole"), "{said}");
}

#[test]
fn what_is_refused_again_is_a_dead_letter_of_the_replay() {
    let world = World::sqlite();
    let load = "  l: {load: {from: c, to: out, table: t, strategy: append}}\n";
    with_letters(&world, load);
    world.ok(15, &[]);
    replay(&world.folder, &[]);
    assert_eq!(world.ask(ROWS), "1:a 3:c");
    let listed = list(&world.folder, &[]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_ne!(listed[0]["run"], listed[1]["run"]);
    assert_eq!((&listed[1]["step"], &listed[1]["rows"]), (&"v".into(), &1.into()));
    mend(&world, load);
    replay(&world.folder, &[]);
    assert_eq!(world.ask(ROWS), "1:a 2:none 3:c");
    assert_eq!(replay(&world.folder, &[]).trim(), "there is nothing to replay");
    // A new run of that date reads everything again: letters of before are done with. An append is loaded already.
    world.steps(
        "  v: {extract: {from: lake, path: a.csv}}\n  l: {load: {from: v, to: out, table: t, strategy: replace}}\n",
    );
    world.ok(15, &[]);
    assert_eq!(list(&world.folder, &[]), Vec::<Value>::new());
}

#[test]
fn files_get_what_was_refused_and_views_between_take_part() {
    let world = World::sqlite();
    let loads = "  j: {sql: \"SELECT c.id, c.name, p.kind FROM c LEFT JOIN p ON c.id = p.id\"}\n  l: {load: {from: j, to: lake, path: out/, strategy: partition_overwrite, partition_by: [kind]}}\n";
    let steps = |check: &str| {
        world.steps(&format!(
            "  v:\n    extract: {{from: lake, path: a.csv}}\n{check}  p: {{extract: {{from: lake, path: p.csv}}}}\n{MENDED}{loads}"
        ));
    };
    world.folder.write("lake/a.csv", "id,name\n1,a\n2,\n3,c\n").write("lake/p.csv", "id,kind\n1,x\n2,y\n3,x\n");
    steps(CHECK);
    world.ok(15, &[]);
    let rows = || world.folder.rows("select id, name, kind from 'lake/out/' order by id");
    assert_eq!(rows(), ["1,a,x", "3,c,x"]);
    steps("");
    for _ in 0..2 {
        replay(&world.folder, &["--run", "last", "--step", "v"]);
        assert_eq!(rows(), ["1,a,x", "2,none,y", "3,c,x"]);
    }
}

#[test]
fn a_query_that_gathers_rows_is_refused_and_the_loads_without_it_can_be_named() {
    let world = World::sqlite();
    let loads = "  d: {sql: \"SELECT name, count(*) AS n FROM c GROUP BY name\"}\n  l: {load: {from: c, to: out, table: t, strategy: append}}\n  g: {load: {from: d, to: out, table: g, strategy: replace}}\n";
    with_letters(&world, loads);
    world.ok(15, &[]);
    mend(&world, loads);
    let said = world.folder.run(&["dead-letters", "replay"]);
    assert_eq!(said.code, Some(2), "{said}");
    assert!(said.error().contains("by themselves: it groups them") && said.error().contains("--load"), "{said}");
    assert_eq!(world.ask(ROWS), "1:a 3:c");
    replay(&world.folder, &["--load", "l"]);
    assert_eq!(world.ask(ROWS), "1:a 2:none 3:c");
    let said = world.folder.run(&["dead-letters", "replay", "--load", "x"]);
    assert!(said.error().contains("was not read for a load `x`"), "{said}");
}

#[test]
fn what_a_reader_refused_is_read_again_with_what_was_mended() {
    let world = World::sqlite();
    let steps = |null: &str| {
        world.steps(&format!(
            "  v: {{extract: {{from: lake, path: \"in/\", on_bad_row: dead_letter, schema: {{n: int}}, csv: {{{null}}}}}}}\n  w: {{extract: {{from: lake, path: b.ndjson, on_bad_row: dead_letter, schema: {{n: {}}}}}}}\n  l: {{load: {{from: v, to: out, table: t, strategy: append}}}}\n  x: {{sql: \"SELECT id, CAST(round(n) AS int) AS n FROM w\"}}\n  m: {{load: {{from: x, to: out, table: u, strategy: append}}}}\n",
            if null.is_empty() { "int" } else { "double" },
        ));
    };
    steps("");
    let csv = "id;\"a;b\";n\n1;x;1\n2;\"y;\"\"z\";n/a\n3;\"two\nlines\";n/a\n4;too few\n";
    world
        .folder
        .write("lake/in/kind=k/a.csv", csv.replace(';', ","))
        .write("lake/in/kind=l/b.csv", "id,\"a,b\",n\n9,q,n/a\n");
    world.folder.write("lake/b.ndjson", "{\"id\": 1, \"n\": 1}\n{\"id\": 2, \"n\": 2.5}\n{\"id\": 3\n");
    world.ok(15, &[]);
    let all =
        "select string_agg(id || '/' || \"a,b\" || '/' || coalesce(n, '-') || '/' || kind, ' ' order by id) from t";
    let other = "select string_agg(id || ':' || n, ' ' order by id) from u";
    assert_eq!((world.ask(all), world.ask(other)), ("1/x/1/k".to_owned(), "1:1".to_owned()));
    let listed = list(&world.folder, &[]);
    let counts: Vec<_> =
        listed.iter().map(|set| (set["step"].as_str().unwrap(), set["rows"].as_u64().unwrap())).collect();
    assert_eq!(counts, [("v", 4), ("w", 2)]);
    let shown: Value =
        serde_json::from_str(&world.folder.ok(&["dead-letters", "show", "--step", "v", "-n", "1", "--output", "json"]))
            .unwrap();
    let letter = &shown.as_array().unwrap()[0];
    for key in ["run", "step", "unit", "attempt", "record", "error", "place", "at", "load"] {
        assert!(!letter[key].is_null(), "{key}: {letter}");
    }
    let text = world.folder.ok(&["dead-letters", "show", "--step", "w"]);
    assert!(text.contains("{\"id\": 2, \"n\": 2.5}") && text.contains("b.ndjson:2"), "{text}");
    steps("null: [\"\", n/a]");
    replay(&world.folder, &[]);
    assert_eq!(world.ask(all), "1/x/1/k 2/y,\"z/-/k 3/two\nlines/-/k 9/q/-/l");
    assert_eq!(world.ask(other), "1:1 2:3");
    // One line is no record, whatever is said of it.
    let left = list(&world.folder, &["--run", "last"]);
    assert_eq!((left.len(), &left[0]["step"], &left[0]["rows"]), (1, &"w".into(), &1.into()));
}

#[test]
fn what_was_replaced_or_loaded_again_since_is_not_added_to() {
    let world = World::sqlite();
    let load = "  l: {load: {from: c, to: out, table: t, strategy: replace}}\n";
    with_letters(&world, load);
    world.ok(15, &[]);
    mend(&world, load);
    world.folder.write("lake/a.csv", "id,name\n7,g\n");
    world.ok(16, &[]);
    let said = world.folder.run(&["dead-letters", "replay"]);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.error().contains("for 2024-01-16 has replaced everything"), "{said}");
    assert_eq!(world.ask(ROWS), "7:g");
}

#[test]
fn profiles_keep_their_letters_apart() {
    let world = World::sqlite();
    let load = "  l: {load: {from: c, to: out, table: t, strategy: append}}\n";
    with_letters(&world, load);
    let project = std::fs::read_to_string(world.folder.path().join("gristmill.yaml")).unwrap();
    world.folder.write(
        "gristmill.yaml",
        format!("{project}profiles: {{other: {{connections: {{out: {{type: sqlite, path: other.db}}}}}}}}\n"),
    );
    world.ok(15, &[]);
    world.ok(15, &["--profile", "other"]);
    assert_eq!(list(&world.folder, &[]).len(), 2);
    assert_eq!(list(&world.folder, &["--profile", "other"]).len(), 1);
    mend(&world, load);
    replay(&world.folder, &[]);
    assert_eq!(world.ask(ROWS), "1:a 2:none 3:c");
    let other = || {
        let database = rusqlite::Connection::open(world.folder.path().join("other.db")).unwrap();
        database.query_row("select count(*) from t", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(other(), 2);
    replay(&world.folder, &["--profile", "other"]);
    assert_eq!(other(), 3);
}

#[test]
fn too_many_rejects_fail_the_run_and_touch_no_target() {
    let project = |of_step: &str, of_pipeline: &str| {
        let world = World::sqlite();
        world.folder.write("lake/a.csv", "id,name\n1,a\n2,\n3,c\nx,d\n5,e\n6,\n7,g\n8,h\n9,i\n10,j\n");
        world.folder.write(
            "pipelines/p.yaml",
            format!(
                "name: p\n{of_pipeline}steps:\n  v:\n    extract: {{from: lake, path: a.csv, on_bad_row: dead_letter, schema: {{id: int}}}}\n    checks: [{{not_null: {{column: name, on_fail: drop}}}}]\n{of_step}  l: {{load: {{from: v, to: out, table: t, strategy: append}}}}\n  f: {{load: {{from: v, to: lake, path: out/, strategy: append}}}}\n"
            ),
        );
        world
    };
    for (of_step, of_pipeline) in
        [("    max_rejects: 2\n", ""), ("", "max_rejects: 29%\n"), ("    max_rejects: 0\n", "max_rejects: 90%\n")]
    {
        let world = project(of_step, of_pipeline);
        let said = world.run(15, &[]);
        assert_eq!(said.code, Some(1), "{said}");
        let error = said.error();
        // A number is compared while rows are still read: how many there are is not known then.
        assert!(error.contains("step `v`: ") && error.contains("refused, and `max_rejects: "), "{error}");
        assert!(error.contains("a.csv:5: `x` in the column `id`"), "{error}");
        assert!(!world.folder.path().join("out.db").exists(), "{of_step}{of_pipeline}");
        assert_eq!(world.folder.visible("lake/out"), Vec::new());
        assert_eq!(list(&world.folder, &[]), Vec::<Value>::new());
    }
    for (of_step, of_pipeline) in
        [("    max_rejects: 3\n", ""), ("", "max_rejects: 30%\n"), ("    max_rejects: 50%\n", "max_rejects: 0\n")]
    {
        let world = project(of_step, of_pipeline);
        world.ok(15, &[]);
        assert_eq!(world.ask("select count(*) || '' from t"), "7");
        assert_eq!(list(&world.folder, &[])[0]["rows"], 1);
    }
    let world = project("    max_rejects: 1.5\n", "");
    let said = world.run(15, &[]);
    assert_eq!(said.code, Some(2), "{said}");
    assert!(said.error().contains("`1.5` is no limit of rejects"), "{said}");
}

#[test]
fn rows_that_a_target_refuses_are_kept_aside_and_loaded_once_it_takes_them() {
    for world in World::both() {
        let is_postgres = world.is_postgres();
        let table = |name: &str| if is_postgres { format!("out.{name}") } else { name.to_owned() };
        let t = table("t");
        let ddl = format!(
            "create table {t} (n integer primary key, id integer not null, name text not null check (length(name) < 5), extra integer default 7)"
        );
        let run_sql = |sql: &str| match is_postgres {
            true => drop(world.ask(sql)),
            false => {
                let database = rusqlite::Connection::open(world.folder.path().join("out.db")).unwrap();
                database.execute_batch(sql).unwrap();
            }
        };
        run_sql(&ddl.replace(
            "n integer primary key",
            if is_postgres { "n serial primary key" } else { "n integer primary key" },
        ));
        let mut lines = "id,name\n".to_owned();
        for id in 0..3000 {
            lines.push_str(&match id {
                5 => "5,\n".to_owned(),
                1700 => "1700,much too long\n".to_owned(),
                2999 => "2999,longer\n".to_owned(),
                _ => format!("{id},a\n"),
            });
        }
        world.folder.write("lake/a.csv", lines);
        let steps = |what: &str| {
            world.steps(&format!(
                "  v: {{extract: {{from: lake, path: a.csv}}}}\n  l:\n    load: {{from: v, to: out, table: t, strategy: append{what}}}\n    max_rejects: 3\n"
            ));
        };
        steps("");
        let said = world.run(15, &[]);
        assert_eq!(said.code, Some(1), "{said}");
        steps(", on_bad_row: dead_letter");
        world.ok(15, &[]);
        let counts = "select count(*) || '/' || count(extra) from t";
        assert_eq!(world.ask(counts), "2997/2997");
        let shown: Value =
            serde_json::from_str(&world.folder.ok(&["dead-letters", "show", "--output", "json"])).unwrap();
        let letters = shown.as_array().unwrap();
        assert_eq!(letters.len(), 3, "{shown}");
        for letter in letters {
            assert_eq!((&letter["by"], &letter["step"]), (&"target".into(), &"l".into()));
            assert!(letter["unit"].as_str().unwrap().starts_with("writer "), "{letter}");
        }
        let of = |id: &str| letters.iter().find(|letter| letter["record"].as_str().unwrap().contains(id)).unwrap();
        let error = |id: &str| of(id)["error"].as_str().unwrap().to_lowercase();
        assert!(error("\"id\":5,").contains("not null") || error("\"id\":5,").contains("not-null"), "{shown}");
        assert!(error("\"id\":1700").contains("check"), "{shown}");
        // Whoever mends the table can load them after all, but for what it still refuses.
        match is_postgres {
            true => run_sql("alter table t drop constraint t_name_check"),
            false => run_sql(
                "pragma writable_schema = on; update sqlite_master set sql = replace(sql, '< 5', '< 50') where name = 't'",
            ),
        }
        let run = of("1700")["run"].as_str().unwrap().to_owned();
        for _ in 0..2 {
            replay(&world.folder, &["--run", &run]);
            assert_eq!(world.ask(counts), "2999/2999");
        }
        let listed = list(&world.folder, &[]);
        assert_eq!(listed.iter().map(|set| set["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 1], "{listed:?}");
        // What a replay is refused again is of the same step, however often.
        for _ in 0..3 {
            replay(&world.folder, &["--run", "last"]);
            assert_eq!(world.ask(counts), "2999/2999");
        }
        let listed = list(&world.folder, &["--step", "l"]);
        assert_eq!(listed.len(), 5, "{listed:?}");
    }
}

#[test]
fn values_that_do_not_fit_a_column_are_refused_one_by_one() {
    let world = World::postgres();
    world.ask("create table t (id smallint, name varchar(3), at date)");
    world.folder.write(
        "lake/a.csv",
        "id,name,at\n1,abc,2024-01-01\n40000,abc,2024-01-01\n3,abcd,2024-01-01\n4,,\n5,a,2024-01-02\n",
    );
    let steps = |what: &str| {
        world.steps(&format!(
            "  v: {{extract: {{from: lake, path: a.csv}}}}\n  l: {{load: {{from: v, to: out, table: t, strategy: replace, on_bad_row: {what}}}}}\n"
        ));
    };
    for (what, letters) in [("drop", 0), ("warn", 0), ("dead_letter", 2)] {
        steps(what);
        let said = world.ok(15, &[]);
        assert_eq!(world.ask("select string_agg(id::text, ' ' order by id) from t"), "1 4 5", "{said}");
        let rows: u64 = list(&world.folder, &[]).iter().map(|set| set["rows"].as_u64().unwrap()).sum();
        assert_eq!(rows, letters, "{what}");
    }
    world.steps("  v: {extract: {from: lake, path: a.csv}}\n  l: {load: {from: v, to: lake, path: x/, strategy: replace, on_bad_row: drop}}\n");
    let said = world.run(15, &[]);
    assert!(said.code == Some(2) && said.error().contains("`on_bad_row` goes with `table`"), "{said}");
}

#[test]
fn rows_that_mariadb_refuses_are_kept_aside_however_they_are_sent() {
    // A server of its own, since all of it refuses LOAD DATA then.
    let by_inserts = mariadb::MariadbServer::start().unwrap();
    by_inserts.database().sql("set global local_infile = 0");
    for world in [World::mariadb(), World::mariadb_into(by_inserts.database())] {
        world.ask(
            "create table t (id smallint not null, name varchar(3) check (name <> 'bad'), at datetime, \
             code int unique, n int not null auto_increment primary key)",
        );
        let mut lines = "id,name,at,code\n".to_owned();
        for id in 0..2000 {
            lines.push_str(&match id {
                7 => "7,abcd,2024-01-01 00:00:00,7\n".to_owned(),
                700 => ",abc,2024-01-01 00:00:00,700\n".to_owned(),
                701 => "701,bad,2024-01-01 00:00:00,701\n".to_owned(),
                1999 => "40000,abc,2024-01-01 00:00:00,1999\n".to_owned(),
                _ => format!("{id},abc,2024-01-01 00:00:00,{id}\n"),
            });
        }
        world.folder.write("lake/a.csv", lines);
        let steps = |what: &str| {
            world.steps(&format!(
                "  v: {{extract: {{from: lake, path: a.csv, schema: {{name: text}}}}}}\n  l: {{load: {{from: v, to: out, table: t, strategy: append, on_bad_row: {what}}}}}\n"
            ));
        };
        steps("fail");
        let said = world.run(15, &[]);
        assert_eq!(said.code, Some(1), "{said}");
        assert_eq!(world.ask("select count(*) from t"), "0");
        steps("dead_letter");
        world.ok(15, &[]);
        assert_eq!(world.ask("select concat(count(*), '/', sum(id)) from t"), "1996/1995593");
        let shown: Value =
            serde_json::from_str(&world.folder.ok(&["dead-letters", "show", "--output", "json"])).unwrap();
        let mut told: Vec<String> =
            shown.as_array().unwrap().iter().map(|letter| letter["error"].to_string()).collect();
        told.sort();
        assert_eq!(told.len(), 4, "{shown}");
        let has = |words: &str| told.iter().filter(|error| error.contains(words)).count();
        assert_eq!(
            (has("cannot be NULL"), has("CONSTRAINT"), has("too long"), has("Out of range")),
            (1, 1, 1, 1),
            "{shown}"
        );
        // Two rows with one key are no matter of one row.
        world
            .folder
            .write("lake/a.csv", "id,name,at,code\n1,a,2024-01-01 00:00:00,5000\n2,b,2024-01-01 00:00:00,5000\n");
        let said = world.run(16, &[]);
        assert!(said.code == Some(1) && said.error().contains("Duplicate"), "{said}");
        assert_eq!(world.ask("select count(*) from t"), "1996");
    }
}
