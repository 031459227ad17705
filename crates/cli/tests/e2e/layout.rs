//! What loads make of files: formats, computed partitions, order within files, end to end.

use crate::strategies::World;

fn sales(world: &World) {
    world.shop(
        "create table sales (id integer primary key, customer integer, sold text);
         with recursive n(i) as (select 0 union all select i + 1 from n where i < 4999)
         insert into sales select i, (i * 7919) % 300, datetime('2023-12-30', '+' || (i * 3) || ' minutes') from n;",
    );
}

#[test]
fn every_format_is_written_and_read_again() {
    let world = World::sqlite();
    sales(&world);
    let steps: String = ["parquet", "avro", "arrow", "csv", "ndjson"]
        .iter()
        .map(|format| {
            format!("  load_{format}: {{load: {{from: sales, to: lake, path: {format}/, strategy: replace, format: {format}}}}}\n")
        })
        .collect();
    world.steps(&format!("  sales: {{extract: {{from: shop, table: sales}}}}\n{steps}"));
    world.folder.ok(&["run", "."]);
    for format in ["parquet", "avro", "arrow", "csv", "ndjson"] {
        let query = format!("select count(*), sum(id), sum(customer), min(sold), max(sold) from 'lake/{format}/'");
        let found = world.folder.rows(&query);
        assert!(found[0].starts_with("5000,12497500,"), "{format}: {found:?}");
    }
    world.folder.ok(&["copy", "lake/parquet/", "one.avro"]);
    assert_eq!(world.folder.rows("select count(distinct id) from 'one.avro'"), ["5000"]);
}

#[test]
fn computed_partitions_are_replaced_as_a_whole_and_read_as_columns() {
    let world = World::sqlite();
    sales(&world);
    let load = |rows: &str| {
        world.steps(&format!(
            "  raw: {{extract: {{from: shop, table: sales}}}}
  sales: {{sql: \"select id, customer, cast(sold as timestamp) as sold from raw where {rows}\"}}
  load:
    load:
      from: sales
      to: lake
      path: sales/
      strategy: partition_overwrite
      partition_by: [year(sold), month(sold) as m, hash(customer) % 4]
      sort_by: [customer desc, id]
      parquet: {{bloom_filter: [customer]}}
"
        ));
        world.folder.ok(&["run", ".", "--date", "2024-01-01"]);
    };
    load("true");
    let by = "select year, m, count(*) from 'lake/sales/' group by year, m order by year, m";
    assert_eq!(world.folder.rows(by), ["2023,12,960", "2024,1,4040"]);
    let read = "select count(*), count(distinct id), min(customer_bucket), max(customer_bucket) from 'lake/sales/'";
    assert_eq!(world.folder.rows(read), ["5000,5000,0,3"]);
    let one = world
        .folder
        .visible("lake/sales")
        .into_iter()
        .map(|(path, _)| path)
        .find(|path| path.contains("year=2023/m=12/"));
    // Rows of a file come in its order, and the partition's columns are not in it.
    let path = one.unwrap();
    let found = world.folder.rows(&format!("select customer, id from '{path}'"));
    let keys: Vec<(i64, i64)> = found
        .iter()
        .map(|line| {
            let (customer, id) = line.split_once(',').unwrap();
            (-customer.parse::<i64>().unwrap(), id.parse().unwrap())
        })
        .collect();
    assert!(keys.len() > 100 && keys.is_sorted(), "{keys:?}");
    // Fewer rows of one month: its partitions are made anew, the others stay as they are.
    load("id < 960 and customer > 100");
    let fewer = world.folder.rows(by);
    assert_eq!(fewer.len(), 2);
    assert!(fewer[0].starts_with("2023,12,") && fewer[0] != "2023,12,960" && fewer[1] == "2024,1,4040", "{fewer:?}");
}

#[test]
fn what_cannot_be_written_is_said_before_anything_is() {
    let world = World::sqlite();
    sales(&world);
    let refused = |load: &str, said: &str| {
        world.steps(&format!(
            "  sales: {{extract: {{from: shop, table: sales}}}}
  odd: {{sql: \"select arrow_cast(id, 'UInt64') as id, sold from sales\"}}
  load: {{load: {{to: lake, path: odd/, strategy: append, {load}}}}}
"
        ));
        let answer = world.folder.run(&["run", "."]);
        assert_ne!(answer.code, Some(0), "{answer}");
        assert!(answer.err.contains(said) || answer.out.contains(said), "{said}: {answer}");
        assert!(!world.folder.path().join("lake/odd").exists());
    };
    refused("from: sales, partition_by: ['yaer(sold)']", "did you mean `year`?");
    refused("from: sales, sort_by: [idd]", "did you mean `id`?");
    refused("from: sales, format: csv, parquet: {dictionary: true}", "`parquet` means nothing to `format: csv`");
    refused("from: sales, partition_by: [month(sold)]", "cannot compute `month` of column `sold`");
}

#[test]
fn a_load_that_would_double_rows_or_make_a_folder_unreadable_is_refused_and_leaves_it_as_it_is() {
    let world = World::sqlite();
    world.shop(
        "create table orders(id integer primary key, d text, r text);
         insert into orders values (1, '2024-01-01', 'a'), (2, '2024-01-01', 'b');",
    );
    let steps = |load: &str| {
        world.steps(&format!(
            "  orders: {{extract: {{from: shop, table: orders}}}}
  load: {{load: {{from: orders, to: lake, path: orders/, {load}}}}}\n"
        ));
    };
    steps("strategy: partition_overwrite, partition_by: [d]");
    world.ok(1, &[]);
    let before = world.folder.visible("lake");
    for (code, load, said) in [
        (1, "strategy: partition_overwrite, partition_by: [d, r]", "are partitioned by `d`"),
        (1, "strategy: append, partition_by: [d, hash(id) % 2]", "`partition_by` says `d`, `hash(id) % 2`"),
        (1, "strategy: append", "the load has no `partition_by`"),
        (2, "strategy: append, partition_by: [d], format: csv", "those of `orders/` are `parquet`"),
        (1, "strategy: append, partition_by: [d], sort_by: [idd]", "did you mean `id`?"),
        (1, "strategy: partition_overwrite, partition_by: [d], scope: \"dd = 'x'\"", "did you mean `d`?"),
    ] {
        steps(load);
        let answer = world.run(2, &[]);
        assert_eq!(answer.code, Some(code), "{load}: {answer}");
        assert!(answer.error().contains(said), "{load}: {answer}");
        assert!(world.folder.visible("lake") == before, "{load}");
    }
    steps("strategy: replace, partition_by: [d, r]");
    world.ok(2, &[]);
    assert_eq!(
        world.folder.rows("select id, d, r from 'lake/orders/' order by id"),
        ["1,2024-01-01,a", "2,2024-01-01,b"]
    );
}

/// Six loads of a few rows each, into two partitions.
fn crumbs(world: &World) {
    sales(world);
    world.steps(
        "  sales: {extract: {from: shop, query: \"select id, customer, id % 2 as odd from sales where id % 6 = cast(strftime('%d', '{{ ds }}') as integer) - 1\"}}
  load: {load: {from: sales, to: lake, path: crumbs/, strategy: append, partition_by: [odd]}}
",
    );
    for day in 1..7 {
        world.folder.ok(&["run", ".", "--date", &format!("2024-01-0{day}")]);
    }
}

const CRUMBS: &str = "select count(*), count(distinct id), sum(id), sum(customer), sum(odd) from 'lake/crumbs/'";

#[test]
fn compact_makes_few_files_of_many_and_says_what_it_did() {
    let world = World::sqlite();
    crumbs(&world);
    let folder = &world.folder;
    let (rows, files) = (folder.rows(CRUMBS), folder.visible("lake/crumbs").len());
    assert!(files >= 6, "{files}");
    let told = folder.ok(&["compact", "lake:crumbs/", "--dry-run"]);
    assert!(told.contains("odd=0") && told.contains("nothing was done"), "{told}");
    assert_eq!(folder.visible("lake/crumbs").len(), files);
    let told = folder.ok(&["compact", "lake:crumbs/", "--partition", "odd=1"]);
    assert!(told.contains("odd=1") && !told.contains("odd=0") && told.contains("3 files became 1"), "{told}");
    let document = folder.ok(&["compact", "lake:crumbs/", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&document[0]["partition"], &document[0]["files_after"]), (&"odd=0".into(), &1.into()));
    assert_eq!(document[0]["rows"], 2500);
    assert!(folder.ok(&["compact", "lake:crumbs/"]).contains("is compact already"));
    assert_eq!((folder.rows(CRUMBS), folder.visible("lake/crumbs").len()), (rows, 2));
    // Nobody takes it for a run, and loads go on.
    assert!(folder.ok(&["recover"]).contains("nothing to recover"));
    folder.ok(&["run", ".", "--date", "2024-01-07"]);
    for (arguments, said) in [
        (["compact", "lake:nowhere/"], "there are no data files in `nowhere/`"),
        (["compact", "shop:sales"], "is a table"),
        (["compact", "lak:x/"], "did you mean `lake`?"),
    ] {
        let answer = folder.run(&arguments);
        assert!(answer.code != Some(0) && answer.err.contains(said), "{answer}");
    }
}

#[test]
fn a_compaction_that_is_killed_anywhere_keeps_every_row_once() {
    let world = World::sqlite();
    crumbs(&world);
    let (folder, rows) = (&world.folder, world.folder.rows(CRUMBS));
    let (lake, kept) = (folder.path().join("lake/crumbs"), folder.path().join("kept"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        drop(std::fs::remove_dir_all(to));
        assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&lake, &kept);
    let trace = folder.path().join("trace");
    let undisturbed = folder.command(&["compact", "lake:crumbs/"]).env("GRISTMILL_FAULTS_TRACE", &trace).status();
    assert!(undisturbed.unwrap().success());
    let passed = std::fs::read_to_string(trace).unwrap();
    let points: std::collections::BTreeSet<&str> = passed.lines().collect();
    let mut struck = 0;
    for point in points {
        copy(&kept, &lake);
        let mut command = folder.command(&["compact", "lake:crumbs/"]);
        command.env("GRISTMILL_FAULTS", format!("{point}:1=tear"));
        let killed = command.output().unwrap().status.code().is_none();
        // Readers of a local folder see every row once, also of what is half done.
        assert_eq!(folder.rows(CRUMBS), rows, "killed at {point}");
        if killed {
            struck += 1;
            let answer = folder.run(&["compact", "lake:crumbs/"]);
            assert_eq!(answer.code, Some(0), "after a kill at {point}: {answer}");
        }
        assert_eq!((folder.rows(CRUMBS), folder.visible("lake/crumbs").len()), (rows.clone(), 2), "{point}");
        let staging = std::fs::read_dir(lake.join("_gristmill/staging")).into_iter().flatten().count();
        assert_eq!(staging, 0, "killed at {point}");
    }
    assert!(struck >= 10, "{struck} points");
}

#[test]
fn a_compaction_writes_files_as_the_load_of_the_project_does() {
    let world = World::sqlite();
    sales(&world);
    world.steps(
        "  sales: {extract: {from: shop, query: \"select id, customer, case when id % 3 > 0 then 'n' || id end as third from sales where id % 6 = cast(strftime('%d', '{{ ds }}') as integer) - 1\"}}
  texts:
    load: {from: sales, to: lake, path: texts/, strategy: append, format: csv, compression: gzip, csv: {delimiter: ';', null: '-'}}
  plain: {load: {from: sales, to: lake, path: ./plain, strategy: append, format: csv, csv: {header: false}}}
  squeezed: {load: {from: sales, to: lake, path: squeezed/, strategy: append, compression: gzip, row_group_rows: 100, sort_by: [id]}}
",
    );
    let folder = &world.folder;
    for day in 1..5 {
        folder.ok(&["run", ".", "--date", &format!("2024-01-0{day}")]);
    }
    let lines = || {
        let files = folder.visible("lake/plain");
        let texts = files.iter().map(|(_, bytes)| String::from_utf8(bytes.clone()).unwrap());
        let mut lines: Vec<String> =
            texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        lines.sort();
        lines
    };
    let before = lines();
    for target in ["lake:texts/", "lake:plain/", "lake:squeezed"] {
        let said = folder.ok(&["compact", target]);
        assert!(said.contains("files became 1"), "{target}: {said}");
    }
    let texts = folder.visible("lake/texts");
    assert_eq!((folder.visible("lake/plain").len(), texts.len()), (1, 1));
    assert_eq!(lines(), before);
    assert!(texts[0].0.ends_with(".csv.gz"), "{}", texts[0].0);
    // The footer is the load's.
    let squeezed = folder.visible("lake/squeezed");
    let file = std::fs::File::open(folder.path().join(&squeezed[0].0)).unwrap();
    let footer = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
    assert!(footer.row_groups().iter().all(|group| group.num_rows() <= 100) && footer.num_row_groups() > 1);
    assert!(footer.row_group(0).sorting_columns().is_some());
    let codec = footer.row_group(0).column(0).compression();
    assert!(matches!(codec, parquet::basic::Compression::GZIP(_)), "{codec:?}");
    // Outside of the project nobody knows whether the first line is a header.
    let said = folder.run(&["compact", "./lake/texts/"]);
    assert!(said.code != Some(0), "{said}");
}

#[test]
fn what_a_killed_compaction_left_is_finished_or_swept_by_a_recovery_or_a_run_and_said() {
    let world = World::sqlite();
    crumbs(&world);
    let (folder, rows) = (&world.folder, world.folder.rows(CRUMBS));
    let kill = |point: &str| {
        let mut command = folder.command(&["compact", "lake:crumbs/"]);
        command.env("GRISTMILL_FAULTS", format!("{point}:1=kill"));
        assert_eq!(command.output().unwrap().status.code(), None, "{point}");
    };
    let staged =
        || std::fs::read_dir(folder.path().join("lake/crumbs/_gristmill/staging")).into_iter().flatten().count();
    kill("after stage");
    assert!(staged() > 0);
    let said = folder.ok(&["recover"]);
    let expected = "a compaction of `lake:crumbs/` was cut short: it is undone, and what it had staged is swept (1)";
    assert_eq!(said.trim(), expected);
    assert_eq!((staged(), folder.rows(CRUMBS)), (0, rows.clone()));
    assert_eq!(folder.ok(&["recover"]).trim(), "nothing to recover");
    kill("after log entry");
    let said = folder.ok(&["recover", "--output", "json"]);
    assert!(said.contains("a compaction of `lake:crumbs/` was cut short: what it had decided is done"), "{said}");
    assert_eq!((staged(), folder.rows(CRUMBS)), (0, rows));
    kill("after stage");
    // A run of anything looks as well.
    let said = folder.run(&["run", ".", "--date", "2024-01-08"]);
    assert!(said.code == Some(0) && said.err.contains("was cut short: it is undone"), "{said}");
    assert_eq!(staged(), 0);
    assert_eq!(folder.ok(&["recover"]).trim(), "nothing to recover");
}

#[test]
fn old_partitions_go_with_the_load_and_the_run_says_so() {
    let world = World::sqlite();
    sales(&world);
    world.steps(
        "  raw: {extract: {from: shop, table: sales}}
  sales: {sql: \"select id, cast(sold as timestamp) as sold from raw where cast(sold as date) = date '{{ ds }}'\"}
  load:
    load:
      from: sales
      to: lake
      path: days/
      strategy: partition_overwrite
      partition_by: [date(sold)]
      retention: {keep: 3d}
",
    );
    for day in ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02"] {
        world.folder.ok(&["run", ".", "--date", day]);
    }
    let days = || world.folder.rows("select distinct date from 'lake/days/' order by date");
    assert_eq!(days(), ["2023-12-31", "2024-01-01", "2024-01-02"]);
    let said = world.folder.ok(&["plan", ".", "--date", "2024-01-04"]);
    assert!(said.contains("drops 2 partitions of `days/`, older than 2024-01-02 00:00:00: `date="), "{said}");
    let said = world.folder.run(&["run", ".", "--date", "2024-01-04"]);
    assert!(said.to_string().contains("drops 2 partitions of `days/`"), "{said}");
    assert_eq!(days(), ["2024-01-02", "2024-01-04"]);
}

#[test]
fn more_partitions_than_files_may_be_open_are_loaded() {
    let world = World::sqlite();
    world.steps(
        "  people: {generate: {table: people, rows: 5000}}
  parts: {sql: \"select *, row_number() over () % 600 as part from people\"}
  load: {load: {from: parts, to: lake, path: parts/, format: parquet, strategy: replace, partition_by: [part]}}
",
    );
    let run = world.folder.command(&["run", ".", "--date", "2024-01-15"]);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=350:350").arg(run.get_program()).args(run.get_args());
    limited.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(run.get_current_dir().unwrap());
    let said = limited.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let counted = world.folder.rows("select count(*) as n, count(distinct part) as parts from 'lake/parts/'");
    assert_eq!(counted, ["5000,600"]);
}

#[test]
fn each_of_very_many_buckets_is_one_file_however_many_write() {
    for format in ["parquet", "delta"] {
        let world = World::sqlite();
        sales(&world);
        let steps = |buckets: u32| {
            world.steps(&format!(
                "  raw: {{extract: {{from: shop, table: sales}}}}
  sales: {{sql: \"select id, min(customer) as customer from raw group by id\"}}
  load: {{load: {{from: sales, to: lake, path: sales/, format: {format}, strategy: replace, partition_by: [hash(id) % {buckets}]}}}}\n",
            ));
        };
        steps(100);
        world.folder.ok(&["run", "."]);
        let said = world.folder.ok(&["sql", "select count(*) as n from 'lake/sales/**/*.parquet'", "--format", "csv"]);
        assert_eq!(said, "n\n5000\n", "{format}");
        let files = world.folder.visible("lake/sales");
        let files = files.iter().filter(|(name, _)| name.ends_with(".parquet")).count();
        assert_eq!(files, 100, "{format}");
        let plan = world.folder.ok(&["plan", ".", "--output", "json"]);
        assert!(plan.contains("partition of the target"), "{plan}");
    }
}
