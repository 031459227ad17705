//! Strategies, end to end: a key that is found by itself, rows with one key, history, what `show` tells; in SQLite,
//! PostgreSQL and MariaDB alike.

use crate::support::{Folder, Said};
use gristmill_testkit::mariadb;
use gristmill_testkit::postgres::{self, TestDatabase};

/// A project whose `shop` is read and whose `out` is loaded, in one kind of database.
pub(crate) struct World {
    pub(crate) folder: Folder,
    kind: Kind,
}

enum Kind {
    Sqlite,
    Postgres(TestDatabase),
    /// What is read, and what is loaded.
    Mariadb(mariadb::TestDatabase, mariadb::TestDatabase),
}

impl World {
    pub(crate) fn sqlite() -> Self {
        let folder = Folder::new();
        folder.write(
            "gristmill.yaml",
            "name: w\nmain: p\nconnections:\n  shop: {type: sqlite, path: shop.db}\n  out: {type: sqlite, path: out.db}\n  lake: {type: files, url: ./lake}\n",
        );
        Self { folder, kind: Kind::Sqlite }
    }

    pub(crate) fn postgres() -> Self {
        let (mut folder, database) = (Folder::new(), postgres::database());
        folder.set("PG", database.local_url());
        folder.write(
            "gristmill.yaml",
            "name: w\nmain: p\nconnections:\n  shop: {type: postgres, url: \"${PG}\"}\n  out: {type: postgres, url: \"${PG}\", schema: out}\n  lake: {type: files, url: ./lake}\n",
        );
        database.sql("create schema out");
        Self { folder, kind: Kind::Postgres(database) }
    }

    pub(crate) fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    pub(crate) fn mariadb() -> Self {
        Self::mariadb_into(mariadb::database())
    }

    /// Loads into a database of any server.
    pub(crate) fn mariadb_into(out: mariadb::TestDatabase) -> Self {
        let (mut folder, shop) = (Folder::new(), mariadb::database());
        folder.set("SHOP", shop.url());
        folder.set("OUT", out.url());
        folder.write(
            "gristmill.yaml",
            "name: w\nmain: p\nconnections:\n  shop: {type: mysql, url: \"${SHOP}\"}\n  out: {type: mariadb, url: \"${OUT}\"}\n  lake: {type: files, url: ./lake}\n",
        );
        Self { folder, kind: Kind::Mariadb(shop, out) }
    }

    pub(crate) fn each() -> [Self; 3] {
        [Self::sqlite(), Self::postgres(), Self::mariadb()]
    }

    pub(crate) fn steps(&self, steps: &str) {
        self.folder.write("pipelines/p.yaml", format!("name: p\nsteps:\n{steps}"));
    }

    pub(crate) fn shop(&self, sql: &str) {
        match &self.kind {
            Kind::Postgres(database) => drop(database.sql(sql)),
            Kind::Mariadb(database, _) => drop(database.sql(sql)),
            Kind::Sqlite => self.open("shop.db").execute_batch(sql).unwrap(),
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.kind, Kind::Postgres(_))
    }

    fn open(&self, file: &str) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join(file)).unwrap()
    }

    /// One text of the target; tables are in the schema `out` of PostgreSQL.
    pub(crate) fn ask(&self, sql: &str) -> String {
        match &self.kind {
            Kind::Postgres(database) => {
                database.sql(&format!("set search_path = out; set timezone = 'UTC'; {sql}")).trim().to_owned()
            }
            Kind::Mariadb(_, database) => {
                let sql = sql.replace("string_agg(", "group_concat(").replace(" as text)", " as char)");
                let sql = sql.replace(", ' ' order by id)", " order by id, note separator ' ')");
                let sql = sql.replace(", ', ' order by id, valid_from)", " order by id, valid_from separator ', ')");
                database
                    .sql(&format!("set sql_mode = 'PIPES_AS_CONCAT', time_zone = '+00:00'; {sql}"))
                    .trim()
                    .to_owned()
            }
            Kind::Sqlite => self
                .open("out.db")
                .query_row(sql, [], |row| row.get::<_, Option<String>>(0))
                .unwrap()
                .unwrap_or_default(),
        }
    }

    pub(crate) fn run(&self, day: u32, more: &[&str]) -> Said {
        let date = format!("2024-01-{day:02}");
        self.folder.run(&[&["run", ".", "--date", &date], more].concat())
    }

    #[track_caller]
    pub(crate) fn ok(&self, day: u32, more: &[&str]) -> String {
        let said = self.run(day, more);
        assert_eq!(said.code, Some(0), "{said}");
        said.out
    }
}

const ROWS: &str = "select string_agg(id || ':' || coalesce(note, '-'), ' ' order by id) from t";

#[test]
fn a_merge_goes_by_the_primary_key_of_the_table_it_reads() {
    for world in World::each() {
        world.shop(
            "create table orders(id integer primary key, note text); insert into orders values (1, 'a'), (2, 'b')",
        );
        world.steps("  orders: {extract: {from: shop, table: orders}}\n  l: {load: {from: orders, to: out, table: t, strategy: merge}}\n");
        world.ok(15, &[]);
        world.shop("update orders set note = 'c' where id = 2; insert into orders values (3, null); delete from orders where id = 1");
        world.ok(16, &[]);
        assert_eq!(world.ask(ROWS), "1:a 2:c 3:-");
        world.steps("  orders: {extract: {from: shop, table: orders}}\n  l: {load: {from: orders, to: out, table: t, strategy: merge, delete_missing: true}}\n");
        world.ok(17, &[]);
        world.ok(17, &[]);
        assert_eq!(world.ask(ROWS), "2:c 3:-");
        // Without the whole key in the rows there is none, and a query has none at all.
        world.steps("  orders: {extract: {from: shop, table: orders, columns: [note]}}\n  l: {load: {from: orders, to: out, table: t, strategy: merge}}\n");
        let refused = world.run(18, &[]);
        assert!(refused.error().contains("`merge` needs to know which rows are the same"), "{refused}");
        world.steps("  orders: {extract: {from: shop, query: select * from orders}}\n  l: {load: {from: orders, to: out, table: t, strategy: merge}}\n");
        let refused = world.run(18, &[]);
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.error().contains("needs a `key`"), "{refused}");
    }
}

#[test]
fn rows_with_one_key_stop_the_whole_run_unless_it_is_said_which_counts() {
    for world in World::each() {
        world.shop("create table orders(id integer, note text, at integer); insert into orders values (1, 'old', 1), (1, 'new', 2), (2, 'b', 1), (2, 'a', 1)");
        let steps = |more: &str| {
            format!(
                "  orders: {{extract: {{from: shop, table: orders}}}}\n  a: {{load: {{from: orders, to: lake, path: a/, strategy: replace}}}}\n  \
                 l: {{load: {{from: orders, to: out, table: t, strategy: merge, key: id{more}}}}}\n"
            )
        };
        world.steps(&steps(""));
        let refused = world.run(15, &[]);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.error().contains("2 rows have the same key (id = 1)"), "{refused}");
        assert!(world.folder.visible("lake").is_empty(), "no load of the run is published");
        world.steps(&steps(", dedup: latest by at"));
        world.ok(15, &[]);
        assert_eq!(world.ask(ROWS), "1:new 2:b");
        world.shop("insert into orders values (null, 'x', 3)");
        let refused = world.run(16, &[]);
        assert!(refused.error().contains("a row has no `id`"), "{refused}");
        assert_eq!(world.ask(ROWS), "1:new 2:b");
    }
}

#[test]
fn history_is_the_same_however_often_a_day_is_loaded() {
    for world in World::each() {
        world.shop(
            "create table orders(id integer primary key, note text); insert into orders values (1, 'a'), (2, null)",
        );
        world.steps("  orders: {extract: {from: shop, table: orders}}\n  l: {load: {from: orders, to: out, table: t, strategy: scd2, delete_missing: true}}\n");
        let history = || {
            world.ask(
                "select string_agg(id || ':' || coalesce(note, '-') || ' ' || substr(cast(valid_from as text), 9, 2) || '-' || \
                 coalesce(substr(cast(valid_to as text), 9, 2), ''), ', ' order by id, valid_from) from t",
            )
        };
        world.ok(15, &[]);
        world.ok(15, &[]);
        assert_eq!(history(), "1:a 15-, 2:- 15-");
        world.shop("update orders set note = 'b' where id = 1; delete from orders where id = 2");
        for _ in 0..2 {
            world.ok(16, &[]);
            assert_eq!(history(), "1:a 15-16, 1:b 16-, 2:- 15-16");
        }
        world.shop("insert into orders values (2, 'back')");
        world.ok(18, &[]);
        assert_eq!(history(), "1:a 15-16, 1:b 16-, 2:- 15-16, 2:back 18-");
        let refused = world.run(15, &[]);
        assert!(refused.error().contains("goes on after 2024-01-15"), "{refused}");
        assert_eq!(history(), "1:a 15-16, 1:b 16-, 2:- 15-16, 2:back 18-");
    }
}

#[test]
fn a_full_refresh_of_an_incremental_merge_drops_what_is_gone_and_keeps_the_rest() {
    for world in World::each() {
        world.shop("create table orders(id integer primary key, note text, at integer); insert into orders values (1, 'a', 1), (2, 'b', 2)");
        let steps = |more: &str| {
            format!(
                "  orders: {{extract: {{from: shop, table: orders, incremental_key: at}}}}\n  \
                 l: {{load: {{from: orders, to: out, table: t, strategy: merge, created_column: made{more}}}}}\n"
            )
        };
        world.steps(&steps(""));
        world.ok(15, &[]);
        let made = world.ask("select cast(made as text) from t where id = 1");
        assert!(made.starts_with("20"), "{made}");
        world.shop("update orders set note = 'c', at = 3 where id = 2; delete from orders where id = 1");
        world.ok(15, &[]);
        assert_eq!(world.ask(ROWS), "1:a 2:c");
        world.shop("insert into orders values (1, 'd', 0)");
        world.ok(15, &["--full-refresh"]);
        assert_eq!(world.ask(ROWS), "1:d 2:c");
        assert_eq!(world.ask("select cast(made as text) from t where id = 1"), made);
        world.shop("delete from orders where id = 1");
        world.ok(15, &["--full-refresh"]);
        assert_eq!(world.ask(ROWS), "2:c");
        world.steps(&steps(", delete_missing: true"));
        let refused = world.run(15, &[]);
        assert!(refused.error().contains("`delete_missing` would drop"), "{refused}");
    }
}

#[test]
fn a_full_refresh_of_a_delete_insert_by_the_sources_key_replaces_everything() {
    for world in World::each() {
        world.shop("create table orders(id integer primary key, note text, at integer); insert into orders values (1, 'a', 1), (2, 'b', 1)");
        world.steps(
            "  orders: {extract: {from: shop, table: orders, incremental_key: at}}\n  \
             l: {load: {from: orders, to: out, table: t, strategy: delete+insert}}\n",
        );
        world.ok(15, &[]);
        world.shop("update orders set note = 'c', at = 2 where id = 2; delete from orders where id = 1; insert into orders values (3, 'd', 2)");
        world.ok(16, &[]);
        assert_eq!(world.ask(ROWS), "1:a 2:c 3:d");
        world.ok(16, &["--full-refresh"]);
        assert_eq!(world.ask(ROWS), "2:c 3:d");
    }
}

#[test]
fn a_full_refresh_of_an_append_takes_the_place_of_rows_it_can_tell() {
    for world in World::each() {
        world.shop("create table orders(id integer, note text); insert into orders values (1, 'a'), (2, 'b')");
        let steps = |more: &str| {
            format!(
                "  orders: {{extract: {{from: shop, table: orders}}}}\n  l: {{load: {{from: orders, to: out, table: t, strategy: append{more}}}}}\n"
            )
        };
        world.steps(&steps(", load_column: true"));
        world.ok(15, &[]);
        world.ok(16, &[]);
        world.shop("update orders set note = 'c' where id = 2");
        assert!(world.ok(16, &[]).contains("is loaded already"));
        world.ok(16, &["--full-refresh"]);
        assert_eq!(world.ask(ROWS), "1:a 1:a 2:b 2:c");
        world.ok(16, &["--full-refresh"]);
        world.ok(16, &[]);
        assert_eq!(world.ask(ROWS), "1:a 1:a 2:b 2:c");
        // Rows of which nobody knows whose they are stay, and are not doubled.
        world.steps(&steps(""));
        world.ok(17, &[]);
        world.steps(&steps(", load_column: true"));
        let refused = world.run(17, &["--full-refresh"]);
        assert!(refused.error().contains("cannot be told from others"), "{refused}");
        world.ok(17, &[]);
        assert_eq!(world.ask("select cast(count(*) as text) from t"), "6");
    }
}

#[test]
fn show_tells_of_each_load_what_its_target_holds() {
    let world = World::sqlite();
    world.shop("create table orders(id integer primary key, note text); insert into orders values (1, 'a'), (2, 'b')");
    world.steps(
        "  orders: {extract: {from: shop, table: orders, incremental_key: id}}\n  \
         l: {load: {from: orders, to: out, table: t, strategy: merge}}\n  \
         a: {load: {from: orders, to: lake, path: a/, strategy: append}}\n",
    );
    world.ok(15, &[]);
    let shown = world.folder.ok(&["show", "last"]);
    let line = |load: &str| {
        let lines = shown.split_once("committed loads\n").map_or("", |(_, lines)| lines).lines();
        lines.map(str::trim).find(|line| line.starts_with(load)).unwrap_or_default().to_owned()
    };
    let words = line("l ");
    for word in ["merge", " 2 ", "UTC", "orders: 2", "p/l/2024-01-15/out:t#1"] {
        assert!(words.contains(word), "{word}: {shown}");
    }
    let words = line("a ");
    for word in ["append", " 2 ", " 1 ", "orders: 2", "p/a/2024-01-15/lake:a/#1"] {
        assert!(words.contains(word), "{word}: {shown}");
    }
    let told: serde_json::Value =
        serde_json::from_str(&world.folder.ok(&["show", "last", "--output", "json"])).unwrap();
    let load =
        told["steps"].as_array().unwrap().iter().find(|step| step["step"] == "l").unwrap()["report"]["load"].clone();
    assert_eq!((&load["strategy"], &load["rows"], &load["cursors"]["orders"]), (&"merge".into(), &2.into(), &2.into()));
}
