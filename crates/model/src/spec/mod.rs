//! What a project and its pipelines say: `gristmill.yaml` and the pipeline files.
//!
//! Reading goes in three steps. [`crate::yaml::parse`] turns text into a tree with positions; the tree is rendered
//! (templates) for an interval; [`PipelineSpec::from_node`] decodes it and checks what can be checked without looking
//! at the world. Everything wrong is reported at once.

mod check;
mod extract;
mod http;
mod incremental;
mod layout;
mod load;
mod partition;
mod pipeline;
mod project;
mod rejects;
mod shapes;
mod tables;
mod understand;
mod units;

pub use check::{Check, CheckFile, CheckKind, Literal, OnFail};
pub use extract::{
    ColumnRule, CsvOptions, DedupSpec, ExtractSpec, FileFormat, GenerateSpec, GenerateTable, JsonOptions, Keep, Lag,
    OnCursorMissing, SchemaContract,
};
pub use http::{
    Cursor, ForEach, HttpMethod, HttpSpec, LastPage, MissingRecords, NextLink, Offsets, PageNumbers, Paginate,
    ParamPlace, Total,
};
pub use incremental::{HttpIncremental, TimeFormat};
pub use layout::{ParquetOptions, Retention, SortBy, Statistics};
pub use load::{Compression, LoadSpec, Strategy, is_data_file};
pub use partition::{PartitionBy, PartitionTransform};
pub use pipeline::{
    CheckStep, CommandSpec, PipelineFile, PipelineSpec, Place, SqlSpec, Step, StepBody, StepFile, WaitForSpec,
};
pub use project::{DeadLettersSpec, Defaults, LedgerSpec, ProjectFile, ProjectSpec};
pub use rejects::MaxRejects;
pub use shapes::OneOrMany;
pub use tables::{FoundTable, path_safe, pick};
pub use units::{UnitStrategy, UnitsSpec, Verify};
