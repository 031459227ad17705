//! `gristmill dead-letters`: what was refused, why, and how it is loaded after all.

use super::run::conclude;
use crate::args::{DeadLettersArgs, DeadLettersCommand, LettersFilter, ReplayArgs, ShowLettersArgs};
use crate::exit::Outcome;
use crate::printer::{Cell, Printer, Table, Tone, number};
use crate::progress::Progress;
use crate::{context, local_engine};
use gristmill_engine::{Letter, LetterSet};
use gristmill_model::{CancellationToken, Error, ErrorKind, Origin, Result, RunId, StepName, one_of};
use gristmill_orchestrator::dag::Replay;
use gristmill_orchestrator::{Driver, DriverOptions, Project, RunReport, RunRequest, Store};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many reasons of a set are told in the table, shortened to so many letters.
const REASONS: usize = 2;
const REASON: usize = 60;

/// Does one of the commands.
pub(crate) async fn run(args: &DeadLettersArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    match &args.command {
        DeadLettersCommand::List(args) => list(args, printer).await,
        DeadLettersCommand::Show(args) => show(args, printer).await,
        DeadLettersCommand::Replay(args) => replay(args, printer, cancel).await,
    }
}

/// A set of letters, and what became of it.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    set: LetterSet,
    /// The loads that its rows have been added to since.
    replayed: Vec<Replayed>,
    /// Whether a replay of it was begun and not ended.
    unfinished: bool,
}

#[derive(Debug, Serialize)]
struct Replayed {
    load: StepName,
    run: RunId,
    rows: u64,
    at: chrono::DateTime<chrono::Utc>,
}

async fn list(args: &LettersFilter, printer: &Printer) -> Result<Outcome> {
    let (_, listed) = find(args, printer).await?;
    if listed.is_empty() {
        printer.note("no dead letters");
    } else {
        table(&listed).print(printer, "")?;
    }
    printer.document(&listed)?;
    Ok(Outcome::Done)
}

fn table(listed: &[Listed]) -> Table {
    let headings =
        ["run", "pipeline", "profile", "interval", "step", "refused by", "rows>", "load", "at", "replayed", "because"];
    let mut table = Table::new(&headings);
    for Listed { set, replayed, unfinished } in listed {
        table.row([
            set.origin.run.as_str().into(),
            set.pipeline.as_str().into(),
            set.profile.clone().unwrap_or_default().into(),
            set.interval.to_string().into(),
            set.origin.step.as_str().into(),
            set.origin.by.as_str().into(),
            number(set.rows).into(),
            set.load.clone().unwrap_or_default().into(),
            set.at.format("%Y-%m-%d %H:%M:%S").to_string().into(),
            if *unfinished { Cell::toned("begun", Tone::Warning) } else { Cell::toned(told(replayed), Tone::Good) },
            reasons(set).into(),
        ]);
    }
    table
}

/// Into which loads a set was replayed, and by which runs.
fn told(replayed: &[Replayed]) -> String {
    replayed.iter().map(|one| format!("{} by {}", one.load, one.run)).collect::<Vec<_>>().join(", ")
}

fn reasons(set: &LetterSet) -> String {
    let shown = set.reasons.iter().take(REASONS).map(|(reason, times)| {
        let short: String = reason.chars().take(REASON).collect();
        let dots = if short.len() < reason.len() { "…" } else { "" };
        format!("{short}{dots} ({})", number(*times))
    });
    let more = set.reasons.len().saturating_sub(REASONS);
    let more = (more > 0).then(|| format!("{more} more"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

async fn show(args: &ShowLettersArgs, printer: &Printer) -> Result<Outcome> {
    let (project, listed) = find(&args.filter, printer).await?;
    let mut letters: Vec<Letter> = Vec::new();
    for Listed { set, .. } in &listed {
        let most = args.limit.saturating_sub(letters.len());
        if most > 0 {
            letters.extend(local_engine::letters(&project, set, most).await?);
        }
    }
    if letters.is_empty() {
        printer.note("no dead letters");
    }
    for letter in &letters {
        let dim = |text: &str| printer.paint(Tone::Dim, text);
        let Letter { step, by, run, attempt, interval, at, .. } = letter;
        printer.line(format!(
            "{} {interval}, refused by a {}",
            printer.paint(Tone::Strong, step.as_str()),
            by.as_str()
        ))?;
        printer.line(format!("  {} {}", dim("error "), letter.error))?;
        printer.line(format!("  {} {}", dim("record"), letter.record))?;
        let place = Some(&letter.place).filter(|place| !place.is_empty());
        let unit = letter.unit.as_ref().filter(|unit| Some(*unit) != place);
        let whence: Vec<&str> = place.into_iter().chain(unit).map(String::as_str).collect();
        if !whence.is_empty() {
            printer.line(format!("  {} {}", dim("from  "), whence.join(", ")))?;
        }
        printer.line(format!(
            "  {} {run}, attempt {attempt}, {}",
            dim("run   "),
            at.format("%Y-%m-%d %H:%M:%S UTC")
        ))?;
    }
    let rows: u64 = listed.iter().map(|listed| listed.set.rows).sum();
    let shown = letters.len() as u64;
    if shown < rows {
        printer.note(format!("{} of {} dead letters; more with `--limit`", number(shown), number(rows)));
    }
    printer.document(&letters)?;
    Ok(Outcome::Done)
}

async fn replay(args: &ReplayArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    let (project, listed) = find(&args.filter, printer).await?;
    let is_ours = |listed: &Listed| listed.set.profile == project.spec.profile && !listed.set.loads.is_empty();
    // Who names a run knows what there is; otherwise what was replayed is done with.
    let is_new = |listed: &Listed| listed.replayed.is_empty() || listed.unfinished;
    let is_open = |listed: &Listed| args.filter.run.is_some() || !args.load.is_empty() || is_new(listed);
    let wanted: Vec<Listed> = listed.into_iter().filter(|listed| is_ours(listed) && is_open(listed)).collect();
    if wanted.is_empty() {
        printer.line("there is nothing to replay")?;
        printer.document(&serde_json::json!([]))?;
        return Ok(Outcome::Done);
    }
    let store = context::open_state(&project).await?;
    let runner = local_engine::runner(context::engine_options(&project, args.memory))?;
    let progress = Progress::new(printer);
    let options = DriverOptions { cancel, ..DriverOptions::default() };
    let driver = Driver::new(project, store.clone(), runner, progress.events(), options);
    let mut reports: Vec<RunReport> = Vec::new();
    let mut refused = None;
    for Listed { set, .. } in wanted {
        match replay_one(&driver, store.as_ref(), set, args).await {
            Ok(report) => reports.push(report),
            Err(error) => refused = Some(error),
        }
        if refused.is_some() || reports.last().is_some_and(|report| !report.succeeded()) {
            break;
        }
    }
    progress.finish();
    match refused {
        // Nothing else was said yet.
        Some(error) if reports.is_empty() => Err(error),
        Some(error) => {
            conclude(printer, &reports, true)?;
            printer.error(&error);
            Ok(Outcome::Ended(crate::exit::code_of(&error)))
        }
        None => conclude(printer, &reports, true),
    }
}

async fn replay_one(driver: &Driver, store: &dyn Store, set: LetterSet, args: &ReplayArgs) -> Result<RunReport> {
    let LetterSet { origin, pipeline, interval, loads, file, .. } = set;
    let what = format!("replaying what a {} of `{}` refused in run `{}`", origin.by.as_str(), origin.step, origin.run);
    let params = store.run(&origin.run).await?.map(|run| run.params).unwrap_or_default();
    let loads = loads.into_iter().map(|load| (load.step, load.key)).collect();
    let only = args.load.iter().map(|name| StepName::from(name.as_str())).collect();
    let replay = Some(Replay { origin, file, loads, only, over_newer: args.over_newer });
    let request = RunRequest { params, replay, ..RunRequest::new(pipeline, interval) };
    driver.run(&request).await.map_err(|error| error.context(what))
}

/// The sets that are meant, of loads that are committed, with what became of them.
async fn find(filter: &LettersFilter, printer: &Printer) -> Result<(Arc<Project>, Vec<Listed>)> {
    let project = context::load(&filter.project.project, filter.project.profile.as_deref()).await?;
    let (mut sets, mistakes) = local_engine::letter_sets(context::engine_options(&project, None)).await?;
    for mistake in mistakes {
        printer.warning(mistake.to_string());
    }
    if let Some(profile) = &filter.project.profile {
        sets.retain(|set| set.profile.as_ref() == Some(profile));
    }
    if let Some(name) = &filter.pipeline {
        sets.retain(|set| set.pipeline.as_str() == name);
    }
    let mut replays: BTreeMap<Origin, Vec<Replayed>> = BTreeMap::new();
    let mut begun: BTreeSet<Origin> = BTreeSet::new();
    if let Some(store) = context::existing_store(&project).await? {
        let mut open: BTreeMap<RunId, BTreeSet<String>> = BTreeMap::new();
        for run in sets.iter().map(|set| set.origin.run.clone()).collect::<BTreeSet<_>>() {
            let unfinished = store.unfinished(Some(&run)).await?;
            open.insert(run, unfinished.iter().map(|load| load.key.text()).collect());
        }
        // What is not loaded is not refused either: those rows will be looked at again.
        let is_open = |set: &LetterSet| {
            set.load.as_ref().is_some_and(|load| open.get(&set.origin.run).is_some_and(|open| open.contains(load)))
        };
        sets.retain(|set| !is_open(set));
        for load in store.replays().await? {
            let Some((name, origin)) = load.key.slot.step.replay() else { continue };
            match load.committed {
                Some(committed) => {
                    let replayed = Replayed { load: name, run: load.run, rows: committed.rows, at: committed.at };
                    replays.entry(origin).or_default().push(replayed);
                }
                None => drop(begun.insert(origin)),
            }
        }
    }
    if let Some(text) = &filter.run {
        let run = meant(text, &sets)?;
        sets.retain(|set| set.origin.run == run);
    }
    if let Some(step) = &filter.step {
        let refused: BTreeSet<&str> = sets.iter().map(|set| set.origin.step.as_str()).collect();
        if !refused.is_empty() && !refused.contains(step.as_str()) {
            return Err(Error::new(ErrorKind::NotFound, format!("no dead letters are of a step `{step}`"))
                .hint(one_of(step, refused)));
        }
        sets.retain(|set| set.origin.step.as_str() == step);
    }
    let listed = sets.into_iter().map(|set| {
        let replayed = replays.remove(&set.origin).unwrap_or_default();
        let unfinished = begun.contains(&set.origin);
        Listed { set, replayed, unfinished }
    });
    let listed = listed.collect();
    Ok((project, listed))
}

/// The run that a person means: its id, enough of its beginning or end, or `last` for the newest that has letters.
fn meant(text: &str, sets: &[LetterSet]) -> Result<RunId> {
    let runs: BTreeSet<&RunId> = sets.iter().map(|set| &set.origin.run).collect();
    let like = |run: &&&RunId| {
        let id = run.as_str();
        id == text || (text.len() >= 4 && (id.starts_with(text) || id.ends_with(text)))
    };
    let found: Vec<&&RunId> =
        if text == "last" { runs.last().into_iter().collect() } else { runs.iter().filter(like).collect() };
    match found.as_slice() {
        [run] => Ok((**run).clone()),
        [] => Err(Error::new(ErrorKind::NotFound, format!("no dead letters are of a run `{text}`"))
            .hint("`gristmill dead-letters list` shows the runs that have some")),
        several => Err(Error::new(ErrorKind::Usage, format!("`{text}` could be any of {} runs", several.len()))
            .hint("give more of its id")),
    }
}
