//! Tables of random shape, how they are read, and what becomes of them while they are.

use crate::chance::Chance;
use std::fmt;

/// A table and the way it is read.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) rows: u64,
    /// How many rows a unit is to have.
    pub(crate) target: u64,
    /// The key's type, and its value in SQL for the number `e`.
    key: (&'static str, &'static str),
    /// The number `e` that the key is made of, in SQL over the row's number `n`.
    spread: &'static str,
    width: u64,
    partitioned: bool,
    indexed: bool,
    analyzed: bool,
    units: &'static str,
    filter: bool,
    pub(crate) parallelism: u64,
    pub(crate) retries: u64,
}

const KEYS: &[(&str, &str)] = &[
    ("int", "e"),
    ("bigint", "e::bigint * 1000000007"),
    ("numeric(20,3)", "e / 7.0"),
    ("text", "'k' || e"),
    ("uuid", "md5(e::text)::uuid"),
    ("date", "date '1999-12-01' + (e % 20000)::int"),
    ("timestamptz", "timestamptz '2024-03-30 00:00Z' + e * interval '7 minutes'"),
];

/// Even, few values, one value for a third of the rows, a long tail; some with rows without a key.
const SPREADS: &[&str] = &[
    "n",
    "n % 50",
    "case when n % 3 = 0 then 7 else n end",
    "case when n % 11 = 0 then null else n end",
    "case when n % 5 < 2 then null when n % 100 = 7 then n * 1000 else n % 900 end",
];

/// `ctid` is there more than once: it is what most tables are read by.
const UNITS: &[&str] = &[
    "strategy: ctid",
    "strategy: ctid",
    "strategy: id_range, by: k",
    "strategy: id_range, by: n",
    "strategy: hash, by: k",
];

impl Shape {
    pub(crate) fn random(chance: &mut Chance) -> Self {
        let rows = chance.number(8_000, 24_000);
        Self {
            rows,
            target: rows / chance.number(4, 16),
            key: chance.one(KEYS),
            spread: chance.one(SPREADS),
            width: chance.number(2, 12),
            partitioned: chance.is(1, 4),
            indexed: chance.is(1, 2),
            analyzed: chance.is(3, 4),
            units: chance.one(UNITS),
            filter: chance.is(1, 6),
            parallelism: chance.number(2, 5),
            retries: chance.number(0, 3),
        }
    }

    /// Makes `t`, and `base`, which is what it holds before anybody changes it. The row 0 tells how often it was changed. The
    /// server writes late, and may crash: hence the checkpoint.
    pub(crate) fn create(&self) -> String {
        let (of, value) = self.key;
        let columns = format!("n bigint not null, k {of}, v text, w numeric(12,2)");
        let table = if self.partitioned {
            let part = |part: u32| {
                format!("create table t{part} partition of t for values with (modulus 3, remainder {part});")
            };
            format!("create table t({columns}) partition by hash (n); {} {} {}", part(0), part(1), part(2))
        } else {
            format!("create table t({columns});")
        };
        let fill = format!(
            "insert into t select n, {value}, repeat(md5(n::text), {}), n * 1.25 from \
             (select n, {} as e from generate_series(1, {}) n) s; insert into t values (0, null, '0', 0);",
            self.width, self.spread, self.rows
        );
        let index = if self.indexed { "create index on t(k); create index on t(n);" } else { "" };
        let analyze = if self.analyzed { "analyze t;" } else { "" };
        format!(
            "{table} {fill} {index} {analyze} create table base as table t; alter table base add x int default 5; checkpoint"
        )
    }

    /// The pipeline that loads `t` as CSV.
    pub(crate) fn pipeline(&self) -> String {
        let filter = if self.filter { ", where: \"n >= 0 -- all of them\"" } else { "" };
        format!(
            "name: p\nretries: {}\nretry_delay: 50ms\nsteps:\n  rows:\n    extract: {{from: server, table: t{filter}}}\n    \
             units: {{{}, target_rows: {}}}\n  load: {{load: {{from: rows, to: out, path: t/, format: csv, strategy: replace}}}}\n",
            self.retries, self.units, self.target
        )
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The change with the number `change` of a table: rows come, go and become others, all in one transaction. It is told by
/// its number alone, so that what a table was after it can be made again.
pub(crate) fn change(table: &str, change: u64) -> String {
    format!(
        "begin; update {table} set v = '{change}' where n = 0; \
         insert into {table} (n, v, w) select 1000000000 + {change} * 10 + i, 'new', i from generate_series(0, 6) i; \
         update {table} set v = 'changed {change}' where n > 0 and n % 97 = {change} % 97; \
         delete from {table} where n between 1 and 999999999 and n % 1009 = {change} % 1009; commit;"
    )
}
