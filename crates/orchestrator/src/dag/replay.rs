//! A replay: the pipeline from a step on, with the letters of that step in place of its rows. Pure.
//!
//! What was refused is missing in targets that hold everything else. So a replay adds: `replace`, `delete+insert` and their kin
//! become `append`; `merge` and `scd2` stay, since they meet each row by its key. Each load has a slot of its own, named
//! after load and letters, and is done once.

use super::{Dag, left_behind, target};
use gristmill_model::spec::{
    CheckKind, ExtractSpec, LoadSpec, OneOrMany, PipelineSpec, SchemaContract, Step, StepBody, Strategy,
};
use gristmill_model::yaml::to_error;
use gristmill_model::{Error, ErrorKind, Letters, Origin, RefusedBy, Result, Slot, StepName, one_of};

/// What is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Which letters.
    pub origin: Origin,
    /// The file they are in, below the folder of all letters.
    pub file: String,
    /// The loads that the rows were read for, and the primary key of the source where a load goes by it.
    pub loads: Vec<(StepName, Vec<String>)>,
    /// Only into these of them; into all of them where none is named.
    pub only: Vec<StepName>,
    /// Also over rows of later dates, where a load meets rows by their key: they may be newer versions of these.
    pub over_newer: bool,
}

impl Replay {
    /// The step whose rows they are, as it is in the pipeline: what a replay refuses is of the step that it replays.
    fn step(&self) -> StepName {
        written(&self.origin.step)
    }

    /// What it is, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Origin { run, step, by } = &self.origin;
        format!("a replay of what a {} of `{step}` refused in run `{run}`", by.as_str())
    }

    /// The loads of the pipeline that the rows go to.
    ///
    /// # Errors
    /// A step that the pipeline does not have any more; rows that no load reads.
    pub fn targets(&self, spec: &PipelineSpec) -> Result<Vec<StepName>> {
        let (step, by) = (&self.step(), self.origin.by);
        let Some(refused) = spec.step(step.as_str()) else {
            return Err(Error::new(ErrorKind::NotFound, format!("`{}` has no step `{step}` any more", spec.name))
                .hint("its dead letters can be looked at, and go with the next run of that date"));
        };
        let dag = Dag::new(spec).map_err(|mistakes| to_error(&mistakes))?;
        let is_load = |name: &StepName| matches!(spec.step(name.as_str()), Some(Step { body: StepBody::Load(_), .. }));
        let below = dag.downstream(step.as_str());
        let reads = |name: &StepName| {
            if refused.body.kind().is_action() {
                name == step
            } else {
                below.contains(name) && read_by(&dag, name, step)
            }
        };
        let mut targets: Vec<StepName> =
            self.loads.iter().map(|(name, _)| written(name)).filter(|name| is_load(name) && reads(name)).collect();
        for name in &self.only {
            if !targets.contains(name) {
                let names = targets.iter().map(StepName::as_str);
                let message = format!("what a {} of `{step}` refused was not read for a load `{name}`", by.as_str());
                return Err(Error::new(ErrorKind::Usage, message).hint(one_of(name.as_str(), names)));
            }
        }
        targets.retain(|name| self.only.is_empty() || self.only.contains(name));
        if targets.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("no load reads the rows of `{step}`"))
                .hint("there is nothing they could be replayed into"));
        }
        Ok(targets)
    }

    /// The pipeline of the replay.
    ///
    /// # Errors
    /// As [`Replay::targets`]; letters that cannot be made rows again.
    pub fn pipeline(&self, spec: &PipelineSpec) -> Result<PipelineSpec> {
        let targets = self.targets(spec)?;
        let origin = &self.step();
        let letters = Letters { by: self.origin.by, step: self.origin.step.clone(), file: self.file.clone() };
        let dag = Dag::new(spec).map_err(|mistakes| to_error(&mistakes))?;
        let below = dag.downstream(origin.as_str());
        let views = || spec.steps.iter().filter(|step| !step.body.kind().is_action());
        let is_view = |name: &StepName| views().any(|view| view.name == *name);
        let mut steps = Vec::new();
        for view in views() {
            let mut view = view.clone();
            view.after.retain(is_view);
            if let StepBody::Extract(extract) = &mut view.body {
                read_whole(extract);
            }
            if view.name == *origin {
                view.body = StepBody::Extract(from_letters(&view, &letters)?);
            }
            if view.name == *origin || below.contains(&view.name) {
                count_no_rows(&mut view);
            }
            steps.push(view);
        }
        for name in targets {
            let Some(step) = spec.step(name.as_str()) else { continue };
            let StepBody::Load(load) = &step.body else { continue };
            if load.makes_one_file() {
                let message = format!(
                    "`{name}` writes the one file `{}` as a whole, to which nothing can be added",
                    load.path.as_deref().unwrap_or_default()
                );
                return Err(Error::new(ErrorKind::Config, message)
                    .hint("run the pipeline for that date again, or name the loads to replay into with `--load`"));
            }
            let mut load = adding(load);
            if load.key.0.is_empty() && load.strategy != Strategy::Append {
                let key = self.loads.iter().find(|(known, _)| written(known) == name).map(|(_, key)| key.clone());
                load.key = OneOrMany(key.unwrap_or_default());
            }
            let mut step = step.clone();
            if name == *origin {
                // Rows that were on their way into this load alone.
                let view = StepName::from(format!("{}@letters", load.from));
                let body = StepBody::Extract(ExtractSpec::new(letters.connection()));
                steps.push(Step {
                    name: view.clone(),
                    body,
                    checks: Vec::new(),
                    cache: None,
                    after: Vec::new(),
                    ..step.clone()
                });
                load.from = view;
            }
            step.name = name.replaying(&self.origin);
            step.after.retain(is_view);
            step.body = StepBody::Load(load);
            count_no_rows(&mut step);
            steps.push(step);
        }
        Ok(PipelineSpec { steps, ..spec.clone() })
    }
}

/// The step that a step of a replay stands for.
fn written(step: &StepName) -> StepName {
    step.replay().map_or_else(|| step.clone(), |(load, _)| load)
}

/// Whether an action reads the rows of a view, and does not only come after it.
fn read_by(dag: &Dag, action: &StepName, view: &StepName) -> bool {
    dag.views(action.as_str()).contains(view)
}

/// The extract that reads letters in place of a view's own rows.
fn from_letters(view: &Step, letters: &Letters) -> Result<ExtractSpec> {
    if letters.by != RefusedBy::Reader {
        return Ok(ExtractSpec::new(letters.connection()));
    }
    let again = "run the pipeline again for that date, once the source is mended";
    match &view.body {
        StepBody::Extract(extract) if extract.dedup.is_some() => Err(Error::new(
            ErrorKind::Config,
            format!(
                "`{}` keeps one row of each key, and letters cannot be compared with rows that were kept",
                view.name
            ),
        )
        .hint(again)),
        // Whoever reads the letters says whether they hold enough.
        StepBody::Extract(extract) => Ok(ExtractSpec { from: letters.connection(), ..extract.clone() }),
        _ => Err(Error::new(
            ErrorKind::Config,
            format!("what could not be read from the source of `{}` cannot be read from its letters", view.name),
        )
        .hint(again)),
    }
}

/// A replay reads what other steps need as a whole, and moves no cursor.
fn read_whole(extract: &mut ExtractSpec) {
    if extract.incremental_key.take().is_some() {
        (extract.lag, extract.on_cursor_missing) = (None, None);
        extract.schema_contract = SchemaContract::Evolve;
    }
}

/// The number of rows that is fine for a run says nothing of a replay.
fn count_no_rows(step: &mut Step) {
    step.checks.retain(|check| !matches!(check.kind, CheckKind::RowCount { .. }));
}

/// A load as a replay does it.
fn adding(load: &LoadSpec) -> LoadSpec {
    let mut load = load.clone();
    // What empties the place of the rows is not for a few of them.
    (load.pre_sql, load.scope, load.delete_missing) = (OneOrMany::default(), None, false);
    if !matches!(load.strategy, Strategy::Merge | Strategy::Scd2) {
        load.strategy = Strategy::Append;
        load.key = OneOrMany::default();
        if load.table.is_some() {
            // Rows of a table are partitioned for what replaces some of them only.
            load.partition_by = OneOrMany::default();
        }
    }
    load
}

/// What loads of later dates may have made of the rows that a load is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    /// Nothing: each date has rows of its own, or those that are there stay as they are.
    Nothing,
    /// They have taken their place, all of them.
    Replaced,
    /// They may have brought newer versions of them, over which a replay would write.
    MayBeNewer,
    /// They may have brought newer versions of them, beside which a replay would add the old ones.
    MayBeDoubled,
}

/// What later loads may have done to the rows of a load like this one.
pub(crate) fn later(load: &LoadSpec) -> Later {
    match load.strategy {
        Strategy::Replace | Strategy::TruncateInsert => Later::Replaced,
        // A row of the past is refused by the target itself, and a scope says which rows are a date's own.
        Strategy::Append | Strategy::Scd2 => Later::Nothing,
        Strategy::Merge if load.insert_only => Later::Nothing,
        Strategy::Merge => Later::MayBeNewer,
        Strategy::DeleteInsert | Strategy::PartitionOverwrite if load.scope.is_some() => Later::Nothing,
        Strategy::DeleteInsert | Strategy::PartitionOverwrite => Later::MayBeDoubled,
    }
}

/// The load of a replay as it was, for whoever finishes what a dead one left: load and letters are told by its slot.
/// `decided` is the load that was about to be published.
pub(crate) fn replay_left_behind(spec: &PipelineSpec, slot: &Slot, decided: Option<&LoadSpec>) -> Option<Step> {
    let (name, _) = slot.step.replay()?;
    let written = Slot { step: name.clone(), ..slot.clone() };
    let step = spec.step(name.as_str()).cloned().or_else(|| left_behind(spec, &written, decided))?;
    let StepBody::Load(load) = &step.body else { return None };
    if target(load) != slot.target {
        return None;
    }
    let mut load = adding(load);
    if let Some(decided) = decided {
        // These two were told by the letters.
        (load.from, load.key) = (decided.from.clone(), decided.key.clone());
    }
    Some(Step { name: slot.step.clone(), body: StepBody::Load(load), ..step })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::Interval;
    use gristmill_model::spec::Defaults;
    use gristmill_model::yaml::parse;

    const PIPELINE: &str = "name: p
steps:
  before: {command: ls}
  orders:
    after: [before]
    extract: {from: lake, path: orders/, on_bad_row: dead_letter}
    checks: [{not_null: {column: id, on_fail: dead_letter}}, {row_count: {min: 10}}]
  people: {extract: {from: db, table: people, on_bad_row: dead_letter}, checks: [{row_count: {min: 10}}]}
  joined: {sql: SELECT * FROM orders JOIN people USING (id)}
  day: {load: {from: joined, to: db, table: t, strategy: delete+insert, key: [id], scope: a = 1, pre_sql: DELETE FROM t}}
  all: {load: {from: people, to: db, table: people2, strategy: replace}}
  one:
    load: {from: orders, to: db, table: o, strategy: merge, key: [id], delete_missing: true}
    checks: [{not_null: {column: id, on_fail: dead_letter}}]
";

    fn spec() -> PipelineSpec {
        PipelineSpec::from_node(&parse("p.yaml", PIPELINE).unwrap(), &["db", "lake"], &Defaults::default()).unwrap()
    }

    fn replay(step: &str, by: RefusedBy) -> Replay {
        let origin = Origin { run: "r1".into(), step: step.into(), by };
        let loads = [("day", vec![]), ("all", vec![]), ("one", vec!["id".to_owned()])];
        let loads = loads.into_iter().map(|(name, key)| (name.into(), key)).collect();
        Replay { origin, file: "p/2024-01-15/r1-day-1.parquet".to_owned(), loads, only: Vec::new(), over_newer: false }
    }

    fn letters(step: &str) -> Letters {
        let file = replay(step, RefusedBy::Reader).file;
        Letters { by: RefusedBy::Reader, step: step.into(), file }
    }

    fn load<'a>(spec: &'a PipelineSpec, name: &str) -> &'a LoadSpec {
        let StepBody::Load(load) = &spec.step(name).unwrap().body else { panic!("a load") };
        load
    }

    #[test]
    fn letters_take_the_place_of_rows_and_go_into_the_loads_that_read_them() {
        let replayed = replay("orders", RefusedBy::Check).pipeline(&spec()).unwrap();
        let names: Vec<&str> = replayed.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["orders", "people", "joined", "day@check.orders.r1", "one@check.orders.r1"]);
        let orders = replayed.step("orders").unwrap();
        let StepBody::Extract(extract) = &orders.body else { panic!("an extract") };
        assert_eq!(Letters::of(&extract.from).unwrap().step.as_str(), "orders");
        assert_eq!((orders.checks.len(), orders.after.len()), (1, 0));
        // Another step's rows are all there.
        assert_eq!(replayed.step("people").unwrap().checks.len(), 1);
        let day = load(&replayed, names[3]);
        assert_eq!((day.strategy, day.key.0.len(), &day.scope, day.pre_sql.0.len()), (Strategy::Append, 0, &None, 0));
        let one = load(&replayed, names[4]);
        assert_eq!((one.strategy, one.key.0.as_slice()), (Strategy::Merge, &["id".to_owned()][..]));
        assert!(!one.delete_missing);
        assert!(Dag::new(&replayed).is_ok());
    }

    #[test]
    fn what_a_reader_refused_is_read_as_the_step_reads() {
        let replayed = replay("orders", RefusedBy::Reader).pipeline(&spec()).unwrap();
        let StepBody::Extract(extract) = &replayed.step("orders").unwrap().body else { panic!("an extract") };
        assert_eq!(extract.path.as_ref().unwrap().0, ["orders/"]);
        assert_eq!(extract.incremental_key, None);
        let replayed = replay("people", RefusedBy::Reader).pipeline(&spec()).unwrap();
        let StepBody::Extract(extract) = &replayed.step("people").unwrap().body else { panic!("an extract") };
        assert_eq!((extract.table.as_deref(), &extract.from), (Some("people"), &letters("people").connection()));
        let error = replay("joined", RefusedBy::Reader).pipeline(&spec()).unwrap_err();
        assert!(error.message().contains("cannot be read from its letters"), "{error}");
    }

    #[test]
    fn rows_on_their_way_into_one_load_go_into_that_one() {
        let replayed = replay("one", RefusedBy::Target).pipeline(&spec()).unwrap();
        let actions: Vec<&str> =
            replayed.steps.iter().filter(|step| step.body.kind().is_action()).map(|step| step.name.as_str()).collect();
        assert_eq!(actions, ["one@target.one.r1"]);
        let one = load(&replayed, actions[0]);
        assert_eq!(one.from.as_str(), "orders@letters");
        assert_eq!(replayed.step(actions[0]).unwrap().checks.len(), 1);
        assert!(Dag::new(&replayed).is_ok());
    }

    #[test]
    fn what_a_replay_refused_is_replayed_like_everything_else() {
        let mut again = replay("one@check.orders.r0", RefusedBy::Target);
        again.loads = vec![("one@check.orders.r0".into(), vec!["id".to_owned()])];
        let replayed = again.pipeline(&spec()).unwrap();
        let one = load(&replayed, "one@target.one@check.orders.r0.r1");
        assert_eq!((one.strategy, one.key.0.as_slice()), (Strategy::Merge, &["id".to_owned()][..]));
        let (load, origin) = replayed.steps.last().unwrap().name.replay().unwrap();
        assert_eq!((load.as_str(), origin), ("one", again.origin));
    }

    #[test]
    fn only_loads_that_read_the_rows_can_be_named() {
        let named = |load: &str| Replay { only: vec![load.into()], ..replay("orders", RefusedBy::Check) };
        assert_eq!(named("one").targets(&spec()).unwrap(), ["one".into()]);
        assert!(named("all").targets(&spec()).is_err());
        let gone = replay("gone", RefusedBy::Check).targets(&spec()).unwrap_err();
        assert!(gone.message().contains("has no step `gone`"), "{gone}");
    }

    #[test]
    fn a_load_that_was_left_behind_is_known_by_its_slot() {
        let replayed = replay("orders", RefusedBy::Check).pipeline(&spec()).unwrap();
        let decided = load(&replayed, "one@check.orders.r1");
        let slot = |target: &str| Slot {
            pipeline: "p".into(),
            step: "one@check.orders.r1".into(),
            interval: Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap()),
            target: target.to_owned(),
        };
        let left = replay_left_behind(&spec(), &slot("db:o"), Some(decided)).unwrap();
        assert_eq!(left.body, StepBody::Load(decided.clone()));
        assert!(replay_left_behind(&spec(), &slot("db:other"), Some(decided)).is_none());
    }
}
