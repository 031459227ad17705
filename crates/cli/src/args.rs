//! The command line's words: one struct per command, as clap reads them and as `docs/reference/cli.md` shows them.
//!
//! Nothing is decided here: an argument is text that has the right shape. What it means is the command's business.

use chrono::NaiveDate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gristmill_model::spec::{Compression, FileFormat, Strategy};
use gristmill_model::{ByteSize, FIRST_DATE, LAST_DATE};
use std::path::PathBuf;

/// Batch data work in one binary: extract, transform with SQL, check, load exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "gristmill",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Start with `gristmill init my_project`, then `gristmill run my_project`.\n\
                  Exit codes: 0 done, 1 failed (or checks failed), 2 could not run (configuration, usage), 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalArgs {
    /// How results are printed: for people, or as one JSON document
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", help_heading = "Output")]
    pub(crate) output: OutputFormat,
    /// No progress and no notes: only results and errors
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Log to standard error: -v what is done, -vv every detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a small working project in a folder
    Init(InitArgs),
    /// Check project and pipeline files; print every mistake with its place
    Validate(ValidateArgs),
    /// Show what a run would do, without doing it
    Plan(PlanArgs),
    /// Run a pipeline for a date, or for every date of a range
    Run(RunArgs),
    /// List past runs, newest first
    Runs(RunsArgs),
    /// Show one run: its steps, checks and errors
    Show(ShowArgs),
    /// Query files and connections with SQL
    Sql(SqlArgs),
    /// Copy a file, folder, URL or table to another place, exactly once
    Copy(CopyArgs),
    /// Make fake data, the same for the same seed
    Generate(GenerateArgs),
    /// List, test and look into the project's connections
    Conn(ConnArgs),
    /// Look whether this machine is ready to run the project
    Doctor(DoctorArgs),
    /// Rewrite the many small files of a target into few; the rows stay
    Compact(CompactArgs),
    /// Finish or undo what runs that died have left
    Recover(RecoverArgs),
    /// List, show and load after all what readers, checks and targets have refused
    DeadLetters(DeadLettersArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Which project, under which profile.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProjectArgs {
    /// The project's folder, or a file in it
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(crate) project: PathBuf,
    /// A profile of the project: its connections take the place of those of the same name
    #[arg(long, value_name = "NAME", env = "GRISTMILL_PROFILE")]
    pub(crate) profile: Option<String>,
}

/// Which pipeline, under which profile, with which parameters.
#[derive(Debug, Clone, Args)]
pub(crate) struct PipelineArgs {
    /// A pipeline file, or a project folder: its only pipeline, the one named by `main:`, or --pipeline
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// The pipeline to take when PATH is a project folder
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<String>,
    /// A profile of the project: its connections take the place of those of the same name
    #[arg(long, value_name = "NAME", env = "GRISTMILL_PROFILE")]
    pub(crate) profile: Option<String>,
    /// A parameter of the pipeline, for `{{ params.k }}`; may be given several times
    #[arg(long = "param", value_name = "K=V", value_parser = key_value)]
    pub(crate) params: Vec<(String, String)>,
}

/// `gristmill init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder; made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The project's name; by default the folder's
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// `gristmill validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// A project folder, or a file in it: all of the project's pipelines are checked
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// Check under this profile: its connections take the place of those of the same name
    #[arg(long, value_name = "NAME", env = "GRISTMILL_PROFILE")]
    pub(crate) profile: Option<String>,
}

/// `gristmill plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// The logical date (YYYY-MM-DD); yesterday (UTC) by default
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub(crate) date: Option<NaiveDate>,
    /// Only this step and what it needs
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
}

/// `gristmill run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// The logical date (YYYY-MM-DD); yesterday (UTC) by default
    #[arg(long, value_name = "DATE", value_parser = date, conflicts_with_all = ["from", "to"])]
    pub(crate) date: Option<NaiveDate>,
    /// The first logical date of a range
    #[arg(long, value_name = "DATE", value_parser = date, requires = "to")]
    pub(crate) from: Option<NaiveDate>,
    /// The last logical date of a range; it is run too
    #[arg(long, value_name = "DATE", value_parser = date, requires = "from")]
    pub(crate) to: Option<NaiveDate>,
    /// Only this load, check, command or wait, and what it needs
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Read incremental extracts from their beginning, and replace what is in their targets; refused where an append has loaded its
    /// rows, since it could only add them again
    #[arg(long)]
    pub(crate) full_refresh: bool,
    /// A limit on memory, e.g. 512MB or 2GB; by default a share of the machine
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Run twice, streaming and collecting everything first, and show time and peak memory of both
    #[arg(long)]
    pub(crate) compare: bool,
    /// Collect everything before anything is written: the other half of --compare
    #[arg(long, hide = true)]
    pub(crate) collect: bool,
}

/// `gristmill runs`.
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Only runs of this pipeline
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: u32,
}

/// `gristmill show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The run's id, or enough of its beginning or end to tell it apart; `last` is the newest
    #[arg(value_name = "RUN", default_value = "last")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill sql`.
#[derive(Debug, Args)]
#[command(after_help = "Files are tables: gristmill sql \"SELECT count(*) FROM 'data/orders.parquet'\".\n\
                        Connections too: gristmill sql \"SELECT * FROM sales_db.orders LIMIT 5\".")]
pub(crate) struct SqlArgs {
    /// The query; `-` reads it from standard input
    #[arg(value_name = "QUERY", required_unless_present = "file")]
    pub(crate) query: Option<String>,
    /// Read the query from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "query")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Make the steps of this pipeline queryable by their names
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<String>,
    /// The logical date for the templates of --pipeline; yesterday (UTC) by default
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub(crate) date: Option<NaiveDate>,
    /// Look at what a load had staged when a check failed, as the table `staged`: the run's id (or `last`), a dot, the load
    #[arg(long, value_name = "RUN.STEP", conflicts_with = "pipeline")]
    pub(crate) staged: Option<String>,
    /// How rows are printed
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<RowFormat>,
    /// Print at most so many rows
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// A limit on memory, e.g. 512MB or 2GB; by default a share of the machine
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// Aligned columns with their names; the default
    Table,
    /// Comma-separated values with a header
    Csv,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Ndjson,
}

/// `gristmill copy`.
#[derive(Debug, Args)]
#[command(
    after_help = "A place is a path, a URL (s3://, gs://, az://, https://), `connection:table`, or `-` for standard input:\n  \
                        gristmill copy orders.csv orders.parquet\n  \
                        gristmill copy sales_db:orders s3://lake/orders/ --strategy replace"
)]
pub(crate) struct CopyArgs {
    /// Where the rows come from
    #[arg(value_name = "SRC")]
    pub(crate) source: String,
    /// Where the rows go
    #[arg(value_name = "DST")]
    pub(crate) target: String,
    /// How new rows meet old ones; needed when DST is there already
    #[arg(long, value_name = "STRATEGY", value_parser = strategy)]
    pub(crate) strategy: Option<Strategy>,
    /// The columns that tell rows apart, for delete+insert, merge and scd2; by default the table's primary key
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) key: Vec<String>,
    /// The columns whose values become folders (`year=2024/`)
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) partition_by: Vec<String>,
    /// Only these columns, in this order
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// A query to copy the answer of, over a table named `src`
    #[arg(long, value_name = "SQL")]
    pub(crate) query: Option<String>,
    /// The format of SRC; by default told by its name
    #[arg(long, value_name = "FORMAT", value_parser = file_format)]
    pub(crate) from_format: Option<FileFormat>,
    /// The format of DST; by default told by its name, else parquet
    #[arg(long, value_name = "FORMAT", value_parser = file_format)]
    pub(crate) to_format: Option<FileFormat>,
    /// How DST's files are compressed; zstd for parquet, none for text by default
    #[arg(long, value_name = "CODEC", value_parser = compression)]
    pub(crate) compression: Option<Compression>,
    /// The level of compression
    #[arg(long, value_name = "LEVEL", requires = "compression")]
    pub(crate) compression_level: Option<u32>,
    /// Start a new file when one has become about so large, e.g. 256MB
    #[arg(long, value_name = "SIZE")]
    pub(crate) file_size: Option<ByteSize>,
    /// Rows in a parquet row group
    #[arg(long, value_name = "ROWS")]
    pub(crate) row_group_rows: Option<u64>,
    /// The character between fields of a CSV SRC
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) delimiter: Option<String>,
    /// The first line of a CSV SRC is data, not names
    #[arg(long)]
    pub(crate) no_header: bool,
    /// A column's type where the inferred one is not right: total=decimal(10,2); may be given several times
    #[arg(long = "type", value_name = "COLUMN=TYPE", value_parser = key_value)]
    pub(crate) types: Vec<(String, String)>,
    /// What happens to a row that cannot be read: fail, warn, drop or dead_letter
    #[arg(long, value_name = "WHAT", value_parser = on_fail)]
    pub(crate) on_bad_row: Option<gristmill_model::spec::OnFail>,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// A limit on memory, e.g. 512MB or 2GB; by default a share of the machine
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
}

/// `gristmill generate`.
#[derive(Debug, Args)]
#[command(after_help = "gristmill generate people --rows 1000 --to people.parquet\n\
                        gristmill generate columns.yaml --rows 1M --seed 7 --to lake/events/ --to-format ndjson")]
pub(crate) struct GenerateArgs {
    /// `people`, `transactions`, or a YAML file with a list of columns (see the reference of `generate`)
    #[arg(value_name = "TABLE|FILE")]
    pub(crate) table: String,
    /// How many rows; k and M are understood
    #[arg(short = 'n', long, value_name = "N", value_parser = rows, default_value = "1000")]
    pub(crate) rows: u64,
    /// The seed: the same seed makes the same rows on every machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where the rows go: a path, a URL or `connection:table`; by default to standard output
    #[arg(long, value_name = "DST")]
    pub(crate) to: Option<String>,
    /// How new rows meet old ones; needed when DST is there already
    #[arg(long, value_name = "STRATEGY", value_parser = strategy)]
    pub(crate) strategy: Option<Strategy>,
    /// The format of DST; by default told by its name, else parquet
    #[arg(long, value_name = "FORMAT", value_parser = file_format)]
    pub(crate) to_format: Option<FileFormat>,
    /// How rows are printed when there is no DST
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "to")]
    pub(crate) format: Option<RowFormat>,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill conn`.
#[derive(Debug, Args)]
pub(crate) struct ConnArgs {
    #[command(subcommand)]
    pub(crate) command: ConnCommand,
}

/// The commands of `gristmill conn`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConnCommand {
    /// List the project's connections, without calling any
    List(ConnListArgs),
    /// Look whether a connection answers and its credentials work
    Test(ConnTestArgs),
    /// List what can be extracted from a connection
    Discover(ConnDiscoverArgs),
}

/// `gristmill conn list`.
#[derive(Debug, Args)]
pub(crate) struct ConnListArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill conn test`.
#[derive(Debug, Args)]
pub(crate) struct ConnTestArgs {
    /// The connection; all of them by default
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill conn discover`.
#[derive(Debug, Args)]
pub(crate) struct ConnDiscoverArgs {
    /// The connection
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Show columns and types too
    #[arg(long)]
    pub(crate) columns: bool,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill compact`.
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// The folder that a load writes to: `connection:path/`, a path or a URL
    #[arg(value_name = "CONNECTION:PATH")]
    pub(crate) target: String,
    /// Only this partition, e.g. `date=2024-01-15` or `year=2024/month=1`; may be given several times
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub(crate) partition: Vec<String>,
    /// How large files are to become, e.g. 512MB; 256MB by default
    #[arg(long, value_name = "SIZE")]
    pub(crate) file_size: Option<ByteSize>,
    /// Only tell what would be rewritten
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `gristmill recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill dead-letters`.
#[derive(Debug, Args)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    pub(crate) command: DeadLettersCommand,
}

/// The commands of `gristmill dead-letters`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List what was refused: by run, step and whoever refused it, how many rows, why, and whether they were replayed
    List(LettersFilter),
    /// Show the refused records, each with its error and where it came from
    Show(ShowLettersArgs),
    /// Send refused records through the pipeline again, from the step that refused them on, and add them to its targets
    Replay(ReplayArgs),
}

/// Which dead letters.
#[derive(Debug, Clone, Args)]
pub(crate) struct LettersFilter {
    /// Only of this run: its id, or enough of its beginning or end to tell it apart; `last` is the newest that has some
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Only of this step
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Only of this pipeline
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

/// `gristmill dead-letters show`.
#[derive(Debug, Args)]
pub(crate) struct ShowLettersArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilter,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

/// `gristmill dead-letters replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "What a replay adds is added once, however often it is done. Without --run, what was replayed before is left out.\n  \
                  gristmill dead-letters replay --run last --step orders"
)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilter,
    /// Only into this load; may be given several times
    #[arg(long, value_name = "STEP")]
    pub(crate) load: Vec<String>,
    /// Into a `merge` also where a later date was loaded since: these rows win over what it has brought for their keys
    #[arg(long)]
    pub(crate) over_newer: bool,
    /// A limit on memory, e.g. 512MB or 2GB; by default a share of the machine
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
}

/// `gristmill completions`.
#[derive(Debug, Args)]
#[command(after_help = "bash: gristmill completions bash > ~/.local/share/bash-completion/completions/gristmill")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write it as `key=value`".to_owned()),
    }
}

/// A number of rows: `1000`, `1_000`, `50k`, `2M`.
fn rows(text: &str) -> Result<u64, String> {
    let complain = || format!("`{text}` is not a number of rows; write it like `1000`, `50k` or `2M`");
    let plain = text.trim().replace(['_', ','], "");
    let (digits, scale) = match plain.char_indices().last() {
        Some((at, 'k' | 'K')) => (&plain[..at], 1_000),
        Some((at, 'm' | 'M')) => (&plain[..at], 1_000_000),
        _ => (plain.as_str(), 1),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).ok_or_else(complain)
}

/// Reads one of the words that serde knows for `T`, so that the command line and the files never differ.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| {
        let message = error.to_string();
        message.split(", expected").nth(1).map_or_else(|| message.clone(), |valid| format!("expected{valid}"))
    })
}

/// A date that every target and template can write.
fn date(text: &str) -> Result<NaiveDate, String> {
    let date: NaiveDate = text.parse().map_err(|error: chrono::ParseError| error.to_string())?;
    if (FIRST_DATE..=LAST_DATE).contains(&date) {
        Ok(date)
    } else {
        Err(format!("dates are from {FIRST_DATE} to {LAST_DATE}"))
    }
}

fn strategy(text: &str) -> Result<Strategy, String> {
    word(text)
}

fn file_format(text: &str) -> Result<FileFormat, String> {
    word(text)
}

fn compression(text: &str) -> Result<Compression, String> {
    word(text)
}

fn on_fail(text: &str) -> Result<gristmill_model::spec::OnFail, String> {
    word(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_nothing_wrong_with_the_arguments() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_of_rows_are_read_as_people_write_them() {
        for (text, expected) in [("1000", 1_000), ("1_000", 1_000), ("50k", 50_000), ("2M", 2_000_000)] {
            assert_eq!(rows(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "1.5M", "-1", "99999999999999999999"] {
            assert!(rows(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_strategy_is_the_word_of_the_pipeline_file() {
        assert_eq!(strategy("delete+insert"), Ok(Strategy::DeleteInsert));
        let message = strategy("appendd").unwrap_err();
        assert!(message.contains("delete+insert"), "{message}");
    }
}
