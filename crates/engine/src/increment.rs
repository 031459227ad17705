//! Incremental extracts: where they go on, what is left out because it was loaded before, and where the next one begins.
//!
//! The target keeps the cursor, in the same commit as the rows. A load asks it for the newest checkpoint of its series (the
//! same load for any interval), the source narrows the extract to the rows from there on, and the rows that were loaded
//! already, at the cursor itself or within the lag before it, are recognised by a digest and left out. That is only done
//! for loads that append: `delete+insert` replaces such rows, and may need all of them (a day that is aggregated again).

mod contract;
mod frontier;
mod memory;

#[cfg(test)]
mod tests;

use crate::session::Engine;
use crate::stage::open_sink;
pub(crate) use contract::Contract;
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use frontier::{Frontier, cursor_of};
use gristmill_connect::types::type_name;
use gristmill_connect::{Increment, NewRows, Next, Source};
use gristmill_model::spec::{ExtractSpec, LoadSpec, OnCursorMissing, SchemaContract, StepBody, Strategy};
use gristmill_model::{Checkpoint, Cursor, Error, ErrorKind, JobSpec, LoadKey, Result, ResultExt, StepName, one_of};
use memory::Memory;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The increments of a job.
#[derive(Debug, Default)]
pub(crate) struct Increments {
    extracts: BTreeMap<StepName, Arc<Progress>>,
    /// Per load: the sequence of the checkpoint it goes on from, and the extracts it reads.
    loads: BTreeMap<StepName, (u64, Vec<StepName>)>,
}

/// How far an incremental extract has come, and how far it is coming.
#[derive(Debug)]
pub(crate) struct Progress {
    column: String,
    of: String,
    missing: OnCursorMissing,
    lag: Option<gristmill_model::spec::Lag>,
    since: Option<Cursor>,
    /// What is done about columns that are not what they were.
    contract: SchemaContract,
    /// A load adds the rows to what it has.
    adds: bool,
    /// Rows that were loaded already are left out. The columns that tell rows apart; all of them when empty.
    recognise: Option<Vec<String>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    schema: Vec<(String, String)>,
    next: Option<Value>,
    /// Where the source cannot tell the next cursor, what the rows tell of it.
    frontier: Option<Frontier>,
    /// Of files: what will have been loaded, and what is read, for people.
    files: Option<(BTreeMap<String, String>, String)>,
    memory: Option<Memory>,
    left_out: u64,
    contract: Option<Arc<Contract>>,
}

impl State {
    /// The greatest value, as far as it is known.
    fn next(&self) -> Option<Value> {
        self.frontier.as_ref().map_or_else(|| self.next.clone(), Frontier::greatest)
    }
}

impl Increments {
    /// Asks the targets of the job's loads where they are. A full refresh goes on from nowhere.
    pub(crate) async fn find(engine: &Engine, job: &JobSpec) -> Result<Self> {
        let mut found = Self::default();
        let mut before: BTreeMap<&StepName, Vec<(&StepName, &LoadSpec, Checkpoint)>> = BTreeMap::new();
        for (load_name, extracts) in &job.cursors {
            let Some(StepBody::Load(load)) = job.pipeline.step(load_name.as_str()).map(|step| &step.body) else {
                continue;
            };
            let Some((_, key)) = job.loads.iter().find(|(name, _)| name == load_name) else { continue };
            let sink = open_sink(engine, job, load, key, Arc::new(Schema::empty()), Vec::new())?;
            let checkpoint = sink.checkpoint(&key.slot).await;
            let checkpoint = checkpoint.context(|| format!("step `{load_name}`"))?;
            if !job.full_refresh
                && load.strategy == Strategy::Append
                && checkpoint.as_ref().is_some_and(|newest| newest.cursors.is_empty())
            {
                return Err(would_double(load_name, key));
            }
            let checkpoint = checkpoint.unwrap_or_default();
            found.loads.insert(load_name.clone(), (checkpoint.sequence, extracts.clone()));
            for extract in extracts {
                before.entry(extract).or_default().push((load_name, load, checkpoint.clone()));
            }
        }
        for (name, loads) in before {
            let Some(StepBody::Extract(extract)) = job.pipeline.step(name.as_str()).map(|step| &step.body) else {
                continue;
            };
            let names: Vec<&str> = job.cursors.iter().flat_map(|(_, names)| names).map(StepName::as_str).collect();
            let progress = Progress::new(name, extract, &loads, &names, job.full_refresh);
            found.extracts.insert(name.clone(), Arc::new(progress.context(|| format!("step `{name}`"))?));
        }
        Ok(found)
    }

    pub(crate) fn get(&self, extract: &StepName) -> Option<&Arc<Progress>> {
        self.extracts.get(extract)
    }

    /// The checkpoint to write with a load, once everything has been read.
    pub(crate) fn checkpoint(&self, load: &StepName) -> Checkpoint {
        let Some((sequence, extracts)) = self.loads.get(load) else { return Checkpoint::default() };
        let cursors = extracts.iter().filter_map(|name| Some((name.to_string(), self.extracts.get(name)?.cursor())));
        Checkpoint { cursors: cursors.collect(), sequence: sequence.saturating_add(1) }
    }
}

/// Nothing tells which rows the loads before brought, so that reading from the beginning adds them once more.
fn would_double(load: &StepName, key: &LoadKey) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "`{load}` has loaded `{}` without a cursor until now, and `append` would add those rows again",
            key.slot.target
        ),
    )
    .retryable(false)
    .cause("the first extract with a cursor reads from the beginning")
    .hint(format!(
        "load it once with `--full-refresh --step \"{load}\"`, which replaces what is there, or let it `merge` by a key"
    ))
}

/// The first difference between the columns that were and those that are; their order does not matter.
fn change(before: &[(String, String)], now: &[(String, String)]) -> Option<String> {
    let find = |all: &[(String, String)], name: &str| all.iter().find(|(other, _)| other == name).cloned();
    let changed = before.iter().find_map(|(name, was)| match find(now, name) {
        None => Some(format!("the column `{name}` is gone")),
        Some((_, is)) if is != *was => Some(format!("the column `{name}` is {is} now, it was {was}")),
        Some(_) => None,
    });
    let new = || now.iter().find(|(name, _)| find(before, name).is_none());
    changed.or_else(|| new().map(|(name, is)| format!("the column `{name}` ({is}) is new")))
}

/// What an extract reads, in a few digits: cursors of something else do not count. How pages are asked for does not matter.
fn digest_of(extract: &ExtractSpec) -> String {
    let mut read = vec![json!(extract.table), json!(extract.query), json!(extract.filter), json!(extract.path)];
    if let Some(http) = &extract.http {
        let records = extract.json.as_ref().and_then(|json| json.records.as_ref());
        read.extend([json!(records), json!(http.method), json!(http.params), json!(http.body), json!(http.for_each)]);
    }
    memory::digest(Value::from(read).to_string().as_bytes())
}

impl Progress {
    /// Decides where an extract goes on, from the checkpoints of the loads that read it.
    fn new(
        name: &StepName,
        extract: &ExtractSpec,
        loads: &[(&StepName, &LoadSpec, Checkpoint)],
        names: &[&str],
        full_refresh: bool,
    ) -> Result<Self> {
        let column = extract.incremental_key.clone().unwrap_or_default();
        let of = digest_of(extract);
        // A full refresh replaces, whatever the load does otherwise; only loads without a key append then.
        let adds = |load: &LoadSpec| match load.strategy {
            Strategy::Append => true,
            strategy => strategy == Strategy::Replace && load.key.0.is_empty(),
        };
        let appends = loads.iter().any(|(_, load, _)| adds(load));
        let replaces = loads.iter().any(|(_, load, _)| !adds(load));
        if appends && replaces && extract.lag.is_some() && !full_refresh {
            return Err(Error::new(
                ErrorKind::Config,
                format!("with `lag`, `{name}` cannot be read both by a load that appends and by one that does not"),
            )
            .cause("the one must not get the rows within the lag again, and the other must")
            .hint("give each load an extract of its own"));
        }
        let cursor_of = |checkpoint: &Checkpoint| {
            // A step that was renamed goes on where it was: a cursor whose own step is gone and that read the same.
            let renamed = || {
                let mut gone = checkpoint.cursors.iter().filter(|(step, _)| !names.contains(&step.as_str()));
                gone.find(|(_, cursor)| cursor.of == of && cursor.column == column).map(|(_, cursor)| cursor.clone())
            };
            checkpoint.cursors.get(name.as_str()).cloned().or_else(renamed)
        };
        let mut since: Option<Option<Cursor>> = None;
        for (load, _, checkpoint) in loads {
            let cursor = if full_refresh { None } else { cursor_of(checkpoint) };
            match &since {
                None => since = Some(cursor),
                Some(first) if *first == cursor => {}
                Some(_) => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!(
                            "the loads that read `{name}` have not come equally far: `{}` and `{load}`",
                            loads[0].0
                        ),
                    )
                    .retryable(false)
                    .hint("give each load an extract of its own, or load everything again with `--full-refresh`"));
                }
            }
        }
        let since = since.flatten();
        // Files are known one by one, wherever they are looked for.
        if let Some(since) = &since
            && ((since.of != of && since.files.is_empty()) || since.column != column)
        {
            let what = if since.column == column { "table, query or condition" } else { "`incremental_key`" };
            return Err(Error::new(
                ErrorKind::Config,
                format!("the {what} of `{name}` is not the one that its cursor was made with"),
            )
            .cause("rows that are older than the cursor and were not among those read until now would be missed")
            .hint("change it back, or load everything again with `--full-refresh`"));
        }
        // Rows before what is remembered cannot be recognised, so they are not read again.
        let mut lag = extract.lag;
        if appends && let Some(since) = &since {
            lag = lag.zip(since.lag).and_then(|(wanted, remembered)| wanted.lesser(remembered));
        }
        let key = extract.dedup.as_ref().map(|dedup| dedup.key.0.clone()).unwrap_or_default();
        let recognise = appends.then_some(key);
        let expected = since.as_ref().map(|since| since.seen.clone()).unwrap_or_default();
        let memory = recognise.is_some().then(|| Memory::new(expected, extract.lag, since.as_ref()));
        let missing = extract.on_cursor_missing.unwrap_or_default();
        let state = Mutex::new(State { memory, ..State::default() });
        let contract = extract.schema_contract;
        Ok(Self { column, of, missing, lag, since, contract, adds: appends, recognise, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can leave the state half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is new.
    pub(crate) async fn narrow(&self, source: &dyn Source, extract: &ExtractSpec) -> Result<NewRows> {
        let value = self.since.as_ref().and_then(|since| since.value.clone());
        let increment = Increment {
            column: self.column.clone(),
            since: value.clone(),
            lag: self.lag,
            nulls: self.missing != OnCursorMissing::Exclude,
            files: self.since.as_ref().map(|since| since.files.clone()).unwrap_or_default(),
            adds: self.adds,
            columns: self.since.as_ref().map(|since| since.schema.clone()).unwrap_or_default(),
        };
        let narrowed = source.narrow(extract, &increment).await?;
        let mut state = self.state();
        match narrowed.next {
            Next::Known(next) => state.next = next,
            Next::Greatest { initial, end } => {
                let frontier = Frontier::new(&self.column, value, self.lag, (initial, end), !increment.nulls);
                state.frontier = Some(frontier);
            }
            Next::Files { loaded, about } => state.files = Some((loaded, about)),
        }
        Ok(narrowed.rows)
    }

    /// Whether rows are to be looked at; files are new as a whole.
    pub(crate) fn looks_at_rows(&self) -> bool {
        self.state().files.is_none()
    }

    /// Notes the columns there are, and compares them with those there were: an error where they must not change, a contract
    /// where what does not fit is left out.
    pub(crate) fn columns(&self, schema: &SchemaRef) -> Result<Option<Arc<Contract>>> {
        let now: Vec<(String, String)> =
            schema.fields().iter().map(|field| (field.name().clone(), type_name(field.data_type()))).collect();
        let before = self.since.as_ref().map(|since| since.schema.as_slice()).filter(|before| !before.is_empty());
        if let Some(before) = before.filter(|_| self.contract.discards()) {
            let contract = Contract::new(self.contract, before, schema)?.map(Arc::new);
            let mut state = self.state();
            // It goes on to be what it was.
            (state.schema, state.contract) = (before.to_vec(), contract.clone());
            return Ok(contract);
        }
        let frozen = before.filter(|_| self.contract == SchemaContract::Freeze);
        if let Some(change) = frozen.and_then(|before| change(before, &now)) {
            return Err(Error::new(ErrorKind::Schema, change)
                .cause("`schema_contract: freeze` allows no change")
                .hint("say `schema_contract: evolve`, name the `columns` to be read, or change the table back"));
        }
        self.state().schema = now;
        Ok(None)
    }

    /// The columns that must be read beside those that are asked for.
    pub(crate) fn needs(&self, schema: &SchemaRef) -> Result<Vec<usize>> {
        let at = |name: &str| {
            schema.index_of(name).map_err(|_| {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                Error::new(ErrorKind::Schema, format!("the extract has no column `{name}`")).hint(one_of(name, names))
            })
        };
        let mut needed = vec![at(memory::top(schema, &self.column))?];
        match &self.recognise {
            None => {}
            Some(key) if key.is_empty() => needed.extend(0..schema.fields().len()),
            Some(key) => {
                for name in key {
                    needed.push(at(name)?);
                }
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Ok(needed)
    }

    /// Looks at rows as they come, and leaves out those that were loaded before.
    pub(crate) fn pass(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let cursor = cursor_of(&batch, &self.column)?;
        if cursor.null_count() > 0 && self.missing == OnCursorMissing::Raise {
            return Err(Error::new(
                ErrorKind::Data,
                format!("a row has no `{}`, so it cannot be told whether it is new", self.column),
            )
            .hint("read such rows every time with `on_cursor_missing: include`, or never with `exclude`"));
        }
        let mut state = self.state();
        let (batch, cursor) = match &mut state.frontier {
            Some(frontier) => frontier.pass(batch)?,
            None => (batch, cursor),
        };
        let next = state.next();
        let Some(memory) = &mut state.memory else { return Ok(batch) };
        let key = self.recognise.as_deref().unwrap_or_default();
        let rows = batch.num_rows();
        let kept = memory.pass(batch, (&self.column, &cursor), key, next.as_ref())?;
        state.left_out += (rows - kept.num_rows()) as u64;
        Ok(kept)
    }

    fn cursor(&self) -> Cursor {
        let state = self.state();
        let before = self.since.as_ref().and_then(|since| since.value.clone());
        let (seen, columns, edge) = state.memory.as_ref().map(Memory::seen).unwrap_or_default();
        Cursor {
            of: self.of.clone(),
            schema: state.schema.clone(),
            column: self.column.clone(),
            // Without a row at or after it, the cursor stays where it was.
            value: state.next().or(before),
            seen,
            columns,
            lag: state.memory.as_ref().and_then(|memory| memory.lag),
            edge,
            files: state.files.as_ref().map(|(loaded, _)| loaded.clone()).unwrap_or_default(),
        }
    }

    /// What was read, for people.
    pub(crate) fn describe(&self) -> String {
        let state = self.state();
        if let Some((_, about)) = &state.files {
            return about.clone();
        }
        let show = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let since = self.since.as_ref().and_then(|since| since.value.as_ref()).map(show);
        let lag = self.lag.filter(|_| since.is_some()).map(|lag| format!(" less {lag}")).unwrap_or_default();
        let from = since.map_or("from the beginning".to_owned(), |since| format!("from {since}{lag}"));
        let to = state.next().as_ref().map_or(", where nothing is".to_owned(), |next| format!(" to {}", show(next)));
        let known = match state.left_out {
            0 => String::new(),
            1 => "; 1 row was loaded before and left out".to_owned(),
            rows => format!("; {rows} rows were loaded before and left out"),
        };
        let contract = state.contract.as_ref().map(|contract| format!("; {}", contract.describe())).unwrap_or_default();
        let beside = match state.frontier.as_ref().map_or(0, |frontier| frontier.beside) {
            0 => String::new(),
            1 => "; 1 row came that was not asked for, and was left out".to_owned(),
            rows => format!("; {rows} rows came that were not asked for, and were left out"),
        };
        format!("{} {from}{to}{known}{beside}{contract}", self.column)
    }
}
