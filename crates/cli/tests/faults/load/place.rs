//! Targets as the campaign sees them: made anew for each case, looked into by other means than ours.

use super::cells::{Cell, Kind};
use super::delta::Log;
use crate::support::{Folder, copy, walk};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use gristmill_testkit::mariadb::{self, MariadbServer};
use gristmill_testkit::postgres::{PostgresServer, TestDatabase};
use gristmill_testkit::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The bucket of every S3-like store here.
const BUCKET: &str = "bucket";

/// Rows as text, each under the folder (or table) it was found in, sorted.
pub(crate) type Rows = BTreeMap<String, Vec<String>>;

fn server_of(cell: &Cell) -> S3Server {
    let start = if cell.copies() { S3Server::start } else { S3Server::without_copies };
    start(&[BUCKET]).unwrap()
}

/// A project and its target.
pub(crate) struct Yard<'a> {
    pub(crate) cell: Cell,
    pub(crate) folder: Folder,
    pub(crate) database: Option<TestDatabase>,
    pub(crate) maria: Option<mariadb::TestDatabase>,
    pub(crate) store: Option<S3Server>,
    server: &'a PostgresServer,
    /// Started when a cell asks for it.
    maria_server: fn() -> &'static MariadbServer,
}

impl<'a> Yard<'a> {
    /// A project that has loaded nothing yet.
    pub(crate) fn new(cell: Cell, server: &'a PostgresServer) -> Self {
        Self::with(cell, server, mariadb::server)
    }

    /// As [`Yard::new`], with a MariaDB server of its own.
    pub(crate) fn with(cell: Cell, server: &'a PostgresServer, maria_server: fn() -> &'static MariadbServer) -> Self {
        let database = (cell.kind == Kind::Postgres).then(|| server.database());
        let maria = (cell.kind == Kind::Mariadb).then(|| maria_server().database());
        let store = cell.kind.is_s3().then(|| server_of(&cell));
        let yard = Self { cell, folder: Folder::new(), database, maria, store, server, maria_server };
        for (day, ids) in [("2024-01-01", 1..=60), ("2024-01-02", 41..=100), ("2024-01-03", 81..=140)] {
            // Two files, so that two writers have something to do; the row 13 of each is refused.
            for (name, remainder) in [("a", 0), ("b", 1)] {
                let rows = ids.clone().filter(|id| id % 2 == remainder);
                let rows = rows.map(|id| {
                    let v = if id % 20 == 13 { String::new() } else { format!("{id} of {day}") };
                    format!("{id},2024-01-{:02},{v}\n", 1 + id / 25)
                });
                let text: String = rows.collect();
                yard.folder.write(&format!("in/{day}/{name}.csv"), format!("id,day,v\n{text}"));
            }
        }
        yard.folder.write("pipelines/p.yaml", yard.pipeline());
        yard.folder.write("pipelines/other.yaml", "name: other\nsteps:\n  nothing: {command: 'true'}\n");
        yard.connect(None);
        yard
    }

    /// The same with a target of its own, as if everything that happened had happened here.
    pub(crate) fn copied(&self) -> Self {
        let folder = Folder::new();
        copy(self.folder.path(), folder.path());
        let database = self.database.as_ref().map(|database| self.server.copy(database).unwrap());
        let maria = self.maria.as_ref().map(|maria| (self.maria_server)().copy(maria).unwrap());
        let store = self.store.as_ref().map(|store| {
            let fresh = server_of(&self.cell);
            copy(&store.bucket(BUCKET), &fresh.bucket(BUCKET));
            fresh
        });
        let (cell, server, maria_server) = (self.cell, self.server, self.maria_server);
        let yard = Self { cell, folder, database, maria, store, server, maria_server };
        yard.connect(None);
        yard
    }

    /// Another checkout of the project, with the same target and a history of its own.
    pub(crate) fn checkout(&self) -> Folder {
        let folder = Folder::new();
        for part in ["in", "pipelines"] {
            copy(&self.folder.path().join(part), &folder.path().join(part));
        }
        folder.write("gristmill.yaml", self.project(None));
        folder
    }

    /// Writes the project file; the S3-like store may be reached by a proxy.
    pub(crate) fn connect(&self, proxy: Option<&str>) {
        self.folder.write("gristmill.yaml", self.project(proxy));
    }

    fn project(&self, proxy: Option<&str>) -> String {
        let here = self.folder.path().display();
        let out = match self.cell.kind {
            Kind::Folder(_) | Kind::File(_) | Kind::Both => format!("{{type: files, url: \"{here}/out\"}}"),
            Kind::Sqlite => format!("{{type: sqlite, path: \"{here}/out.db\"}}"),
            Kind::Postgres => {
                let url = self.database.as_ref().unwrap().local_url();
                format!("{{type: postgres, url: \"{url}\"}}")
            }
            Kind::Mariadb => format!("{{type: mariadb, url: \"{}\"}}", self.maria.as_ref().unwrap().url()),
            Kind::S3Folder(_) | Kind::S3File(_) => {
                let endpoint = proxy.unwrap_or(&self.store.as_ref().unwrap().endpoint);
                format!(
                    "{{type: files, url: \"s3://{BUCKET}/out\", endpoint: \"{endpoint}\", access_key_id: {ACCESS_KEY}, \
                     secret_access_key: {SECRET_KEY}}}"
                )
            }
        };
        format!(
            "name: faults\nmain: p\ndefaults: {{parallelism: 2}}\nconnections:\n  src: {{type: files, url: ./in}}\n  \
             out: {out}\n  beside: {{type: sqlite, path: beside.db}}\n"
        )
    }

    fn pipeline(&self) -> String {
        let Cell { kind, strategy, options, .. } = self.cell;
        let to = match kind {
            Kind::Folder(format) | Kind::S3Folder(format) => format!("path: t/, format: {format}"),
            Kind::File(format) | Kind::S3File(format) => format!("path: t.{format}"),
            Kind::Sqlite | Kind::Postgres | Kind::Mariadb => "table: t".to_owned(),
            Kind::Both => "path: t/, format: parquet".to_owned(),
        };
        let strategy = if self.cell.is_compaction() { "append" } else { strategy };
        let beside = match kind {
            Kind::Both => "  beside: {load: {from: rows, to: beside, table: t, strategy: replace}}\n",
            _ => "",
        };
        format!(
            "name: p\nretries: 2\nretry_delay: 20ms\nsteps:\n  rows:\n    extract: {{from: src, path: \"{{{{ ds }}}}/*.csv\"}}\n    \
             checks: [{{not_null: {{column: v, on_fail: dead_letter}}}}]\n  load: {{load: {{from: rows, to: out, {to}, strategy: \
             {strategy}{options}}}}}\n{beside}"
        )
    }

    /// What readers see.
    pub(crate) fn rows(&self) -> Result<Rows, String> {
        let mut rows = Rows::new();
        let table = |rows: &mut Rows, name: &str| -> Result<(), String> {
            let found = self.table(name)?;
            rows.entry(name.to_owned()).or_default().extend(found);
            Ok(())
        };
        match self.cell.kind {
            Kind::Sqlite => table(&mut rows, "out.db")?,
            Kind::Postgres => {
                let database = self.database.as_ref().unwrap();
                let text = match database.try_sql("select to_regclass('t') is not null")?.as_str() {
                    "t" => database.try_sql(&format!("select {} from t", self.cell.columns))?,
                    _ => String::new(),
                };
                rows.entry("t".to_owned()).or_default().extend(text.lines().map(str::to_owned));
            }
            Kind::Folder("delta") | Kind::S3Folder("delta") => {
                let (root, table) = (self.root(), self.root().join("t"));
                Log::read(&table)?.now.iter().try_for_each(|path| file(&root, path, &mut rows))?;
            }
            Kind::Mariadb => {
                let maria = self.maria.as_ref().unwrap();
                let text = match maria.try_sql("show tables like 't'")?.as_str() {
                    "t" => maria.try_sql(&format!("select {} from t", self.cell.columns))?,
                    _ => String::new(),
                };
                rows.entry("t".to_owned()).or_default().extend(text.lines().map(str::to_owned));
            }
            _ => files(&self.root(), &mut rows)?,
        }
        if self.cell.kind == Kind::Both {
            table(&mut rows, "beside.db")?;
        }
        rows.retain(|_, rows| !rows.is_empty());
        rows.values_mut().for_each(|rows| rows.sort());
        Ok(rows)
    }

    /// The rows of the table `t` of a SQLite database.
    fn table(&self, database: &str) -> Result<Vec<String>, String> {
        let path = self.folder.path().join(database);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let words = |error: rusqlite::Error| format!("{database}: {error}");
        let connection = rusqlite::Connection::open(path).map_err(words)?;
        let known = "select count(*) from sqlite_master where name = 't'";
        if connection.query_row(known, [], |row| row.get::<_, i64>(0)).map_err(words)? == 0 {
            return Ok(Vec::new());
        }
        let columns = self.cell.columns.replace(", ", " || '|' || ");
        let mut select = connection.prepare(&format!("select {columns} from t")).map_err(words)?;
        let rows = select.query_map([], |row| row.get::<_, String>(0)).map_err(words)?;
        rows.collect::<Result<_, _>>().map_err(words)
    }

    /// Whether there is one file in each folder that has any.
    pub(crate) fn is_compact(&self) -> bool {
        let mut found = Vec::new();
        walk(&self.root(), &mut found);
        let folders: std::collections::BTreeSet<_> = found.iter().map(|path| path.parent()).collect();
        folders.len() == found.len()
    }

    /// The folder of the target, where it is one.
    fn root(&self) -> PathBuf {
        match &self.store {
            Some(store) => store.bucket(BUCKET).join("out"),
            None => self.folder.path().join("out"),
        }
    }

    /// What should be gone once all is recovered. `unnoted`: so many uploads may be there that nobody could have noted.
    pub(crate) fn leftovers(&self, unnoted: usize) -> Vec<String> {
        let mut found = Vec::new();
        match self.cell.kind {
            Kind::Folder("delta") | Kind::S3Folder("delta") => {
                let table = self.root().join("t");
                let log = Log::read(&table).unwrap();
                everything(&self.root(), &mut found);
                found.retain(|path| !log.keeps(&table, path));
            }
            _ => hidden(&self.root(), &mut found),
        }
        let state = self.folder.path().join(".gristmill");
        for (below, kept) in
            [("staging", ""), ("owners", "start.lock"), ("compactions", "start.lock"), ("dead_letters", ".parquet")]
        {
            let mut files = Vec::new();
            everything(&state.join(below), &mut files);
            found.extend(files.into_iter().filter(|path| kept.is_empty() || !path.to_string_lossy().ends_with(kept)));
        }
        let mut left: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
        if let Some(store) = &self.store {
            let uploads = store.open_uploads().unwrap();
            left.extend(uploads.into_iter().skip(unnoted).map(|upload| format!("the upload {upload}")));
        }
        if let Some(database) = &self.database {
            let tables = database.sql("select relname from pg_class where relname like '\\_gristmill\\_stage%'");
            left.extend(tables.lines().map(|table| format!("the table {table}")));
        }
        if let Some(maria) = &self.maria {
            let tables = maria.sql("show tables like '\\_gristmill\\_stage\\_%'");
            left.extend(tables.lines().map(|table| format!("the table {table}")));
        }
        left
    }
}

impl Drop for Yard<'_> {
    fn drop(&mut self) {
        if let Some(database) = &self.database {
            // A campaign makes thousands.
            let _gone = self.server.drop(database);
        }
        if let Some(maria) = &self.maria {
            let _gone = (self.maria_server)().drop(maria);
        }
    }
}

/// The rows of all files that readers of a folder see.
fn files(root: &Path, rows: &mut Rows) -> Result<(), String> {
    let mut found = Vec::new();
    walk(root, &mut found);
    found.iter().try_for_each(|path| file(root, path, rows))
}

/// The rows of one file.
fn file(root: &Path, path: &Path, rows: &mut Rows) -> Result<(), String> {
    let folder = path.parent().and_then(|folder| folder.strip_prefix(root).ok());
    let folder = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
    let broken = |error: &dyn std::fmt::Display| format!("`{}` is broken: {error}", path.display());
    let rows = rows.entry(folder).or_default();
    let ending = path.extension().map(|end| end.to_string_lossy().into_owned()).unwrap_or_default();
    let add = |batch: Result<RecordBatch, ArrowError>| -> Result<(), String> {
        let batch = batch.map_err(|error| broken(&error))?;
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            rows.push(values.collect::<Vec<_>>().join("|"));
        }
        Ok(())
    };
    let open = || std::fs::File::open(path).map_err(|error| broken(&error));
    if ending == "parquet" {
        let reader = ParquetRecordBatchReaderBuilder::try_new(open()?).and_then(|builder| builder.build());
        reader.map_err(|error| broken(&error))?.try_for_each(add)?;
    } else if ending == "arrow" {
        let reader = arrow::ipc::reader::FileReader::try_new(open()?, None);
        reader.map_err(|error| broken(&error))?.try_for_each(add)?;
    } else if ending == "avro" {
        let reader = arrow_avro::reader::ReaderBuilder::new().build(std::io::BufReader::new(open()?));
        reader.map_err(|error| broken(&error))?.try_for_each(add)?;
    } else {
        let text = std::fs::read_to_string(path).map_err(|error| broken(&error))?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(broken(&"its last line has no end"));
        }
        rows.extend(text.lines().filter(|line| !line.starts_with("id,")).map(str::to_owned));
    }
    Ok(())
}

/// Every file below.
fn everything(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            everything(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Whatever is hidden in a target, but for what is kept on purpose: its lock and its log, of which each entry is done.
fn hidden(root: &Path, found: &mut Vec<PathBuf>) {
    let mut files = Vec::new();
    everything(root, &mut files);
    let of_ours = |path: &PathBuf| {
        let below = path.strip_prefix(root).unwrap_or(path);
        below.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part.starts_with('.') || (part.starts_with('_') && !part.contains('='))
        })
    };
    files.retain(of_ours);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let done: Vec<String> = files.iter().map(|path| name(path)).filter(|name| !name.ends_with(".json")).collect();
    let is_done = |path: &Path| {
        let number = name(path).split('.').next().unwrap_or_default().to_owned();
        done.iter().any(|mark| mark.starts_with(&format!("{number}.")))
    };
    found.extend(
        files
            .iter()
            .filter(|path| {
                let in_log = path.parent().is_some_and(|folder| folder.ends_with("_gristmill/log"));
                let kept = in_log && !name(path).starts_with('.') && is_done(path) || path.ends_with("_gristmill/lock");
                !kept
            })
            .cloned(),
    );
}
