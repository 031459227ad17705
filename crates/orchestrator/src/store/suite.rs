//! The tests every [`Store`] must pass. An implementation calls [`run`] with a way to make an empty store.
//!
//! They panic where a store breaks its contract, so they are for tests only.
#![expect(clippy::expect_used, reason = "a test suite, public so that every store can call it")]

use super::{DecidedLoad, LoadRecord, NewRun, RunFilter, Store, TakenLoad, WantedLoad, find_run};
use crate::{RunReport, RunState};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use gristmill_model::spec::{LoadSpec, Strategy};
use gristmill_model::{
    Checkpoint, Committed, Error, ErrorKind, Interval, KeptLoad, LoadKey, RunId, Slot, StagedLoad, StepKind,
    StepReport, StepState,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs the whole suite; `make` answers with an empty store each time.
///
/// # Panics
/// Where the store breaks its contract.
pub async fn run<S, F>(mut make: impl FnMut() -> F)
where
    S: Store + 'static,
    F: Future<Output = S>,
{
    a_run_is_recorded_and_read_back(&make().await).await;
    one_run_of_a_slot_goes_on_at_a_time(&make().await).await;
    an_unfinished_load_is_resumed_and_a_finished_one_gets_the_next_generation(&make().await).await;
    a_finished_load_that_is_wanted_once_is_not_taken_again(&make().await).await;
    generations_are_unique_across_profiles(&make().await).await;
    a_crash_fails_the_run_and_leaves_its_loads_to_be_resumed(&make().await).await;
    a_load_that_was_committed_before_the_crash_has_succeeded(&make().await).await;
    a_run_ends_once(&make().await).await;
    a_moved_generation_is_kept(&make().await).await;
    a_generation_that_another_profile_holds_can_be_shared(&make().await).await;
    what_is_decided_is_kept_until_it_is_committed_given_up_or_taken_again(&make().await).await;
    what_is_kept_to_be_looked_at_is_known_until_it_is_let_go_or_taken_again(&make().await).await;
    an_unfinished_load_is_known_as_it_was_described_last(&make().await).await;
    runs_are_listed_newest_first_and_filtered(&make().await).await;
    attempts_are_kept(&make().await).await;
    a_run_that_is_refused_leaves_nothing_behind(&make().await).await;
    replays_and_the_newest_load_of_a_series_are_found(&make().await).await;
    rivals_for_one_slot_are_told_apart(Arc::new(make().await)).await;
}

fn day(day: u32) -> Interval {
    Interval::day(NaiveDate::from_ymd_opt(2024, 1, day).unwrap_or_default())
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(second)
}

fn slot(on: u32) -> Slot {
    Slot { pipeline: "sales".into(), step: "load".into(), interval: day(on), target: "lake:out/".into() }
}

fn new_run(id: &str, on: u32) -> NewRun {
    NewRun {
        id: RunId::from(id),
        pipeline: "sales".into(),
        profile: None,
        interval: day(on),
        params: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
        started: at(i64::from(on)),
        steps: vec![("orders".into(), StepKind::Extract), ("load".into(), StepKind::Load)],
        loads: vec![wanted(slot(on), false)],
    }
}

fn wanted(slot: Slot, once: bool) -> WantedLoad {
    WantedLoad { slot, spec: load_into("out/"), once }
}

fn load_into(path: &str) -> LoadSpec {
    let spec = LoadSpec::new("v".into(), "lake".into(), Strategy::Replace);
    LoadSpec { path: Some(path.to_owned()), ..spec }
}

fn key(on: u32, generation: u32) -> LoadKey {
    LoadKey { slot: slot(on), generation }
}

fn committed(key: LoadKey) -> Committed {
    Committed { key, rows: 7, files: 1, bytes: 9, checkpoint: Checkpoint::default(), at: at(99), already: false }
}

fn report(id: &str, on: u32, state: RunState) -> RunReport {
    let mut load = StepReport::new("load".into(), StepKind::Load);
    load.state = if state == RunState::Success { StepState::Success } else { StepState::Failed };
    load.rows_out = Some(7);
    RunReport {
        run: RunId::from(id),
        pipeline: "sales".into(),
        profile: None,
        interval: day(on),
        state,
        steps: vec![load],
        millis: 5,
        peak_memory: Some(1),
        error: (state == RunState::Failed).then(|| Error::new(ErrorKind::Check, "no").hint("look")),
        notes: vec!["a note".to_owned()],
        awaited: Vec::new(),
    }
}

async fn begin(store: &dyn Store, run: &NewRun) -> TakenLoad {
    store.begin(run).await.expect("the run begins").remove(0)
}

async fn finish(store: &dyn Store, id: &str, on: u32, key: LoadKey) {
    store.committed(&RunId::from(id), &committed(key)).await.expect("the load is recorded");
    store.end(&report(id, on, RunState::Success), at(100)).await.expect("the run ends");
}

async fn a_run_is_recorded_and_read_back(store: &dyn Store) {
    let run = new_run("r1", 1);
    let taken = begin(store, &run).await;
    assert_eq!(taken, TakenLoad { key: key(1, 1), resumed: false, finished: false });
    let read = store.run(&run.id).await.expect("a run").expect("the run");
    assert_eq!((read.state, read.ended, read.started), (RunState::Running, None, run.started));
    assert_eq!((read.pipeline, read.profile, read.interval, read.params), (run.pipeline, None, day(1), run.params));
    let steps = store.steps(&run.id).await.expect("steps");
    let names: Vec<(&str, StepState)> = steps.iter().map(|step| (step.step.as_str(), step.state)).collect();
    assert_eq!(names, [("orders", StepState::Pending), ("load", StepState::Pending)]);
    finish(store, "r1", 1, taken.key.clone()).await;
    let read = store.run(&run.id).await.expect("a run").expect("the run");
    assert_eq!((read.state, read.ended), (RunState::Success, Some(at(100))));
    assert_eq!(read.report, Some(report("r1", 1, RunState::Success)));
    let load = store.loads(&slot(1)).await.expect("loads").remove(0);
    let wanted = LoadRecord {
        key: key(1, 1),
        profile: None,
        run: run.id.clone(),
        committed: Some(committed(taken.key)),
        spec: None,
        decided: None,
        kept: None,
    };
    assert_eq!(load, wanted);
    assert_eq!(store.run(&RunId::from("nobody")).await.expect("an answer"), None);
}

async fn one_run_of_a_slot_goes_on_at_a_time(store: &dyn Store) {
    begin(store, &new_run("r1", 1)).await;
    let refused = store.begin(&new_run("r2", 1)).await.expect_err("a second run");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.message().contains("run `r1` of the same pipeline and date is going on"), "{refused}");
    begin(store, &new_run("r3", 2)).await;
    let other = NewRun { profile: Some("pg".to_owned()), ..new_run("r4", 1) };
    begin(store, &other).await;
    store.end(&report("r1", 1, RunState::Failed), at(9)).await.expect("the run ends");
    begin(store, &new_run("r5", 1)).await;
}

async fn an_unfinished_load_is_resumed_and_a_finished_one_gets_the_next_generation(store: &dyn Store) {
    begin(store, &new_run("r1", 1)).await;
    store.end(&report("r1", 1, RunState::Failed), at(1)).await.expect("the run ends");
    let taken = begin(store, &new_run("r2", 1)).await;
    assert_eq!(taken, TakenLoad { key: key(1, 1), resumed: true, finished: false });
    finish(store, "r2", 1, taken.key).await;
    let taken = begin(store, &new_run("r3", 1)).await;
    assert_eq!(taken, TakenLoad { key: key(1, 2), resumed: false, finished: false });
}

async fn a_finished_load_that_is_wanted_once_is_not_taken_again(store: &dyn Store) {
    let once = |id: &str| {
        let mut run = new_run(id, 1);
        run.loads[0].once = true;
        run
    };
    let taken = begin(store, &once("r1")).await;
    assert!(!taken.finished);
    finish(store, "r1", 1, taken.key).await;
    let taken = begin(store, &once("r2")).await;
    assert_eq!(taken, TakenLoad { key: key(1, 1), resumed: false, finished: true });
    store.end(&report("r2", 1, RunState::Success), at(2)).await.expect("the run ends");
    let taken = begin(store, &new_run("r3", 1)).await;
    assert_eq!(taken.key, key(1, 2));
    // A later generation that came to nothing does not open the slot again.
    store.end(&report("r3", 1, RunState::Failed), at(3)).await.expect("the run ends");
    let taken = begin(store, &once("r4")).await;
    assert_eq!(taken, TakenLoad { key: key(1, 1), resumed: false, finished: true });
}

async fn generations_are_unique_across_profiles(store: &dyn Store) {
    let pg = |id: &str| NewRun { profile: Some("pg".to_owned()), ..new_run(id, 1) };
    let taken = begin(store, &new_run("r1", 1)).await;
    finish(store, "r1", 1, taken.key).await;
    let taken = begin(store, &pg("r2")).await;
    assert_eq!(taken, TakenLoad { key: key(1, 2), resumed: false, finished: false });
    // The other profile's unfinished load is not this one's to resume.
    let taken = begin(store, &new_run("r3", 1)).await;
    assert_eq!(taken, TakenLoad { key: key(1, 3), resumed: false, finished: false });
    store.crashed(&RunId::from("r2"), at(5)).await.expect("a mark");
    assert_eq!(begin(store, &pg("r4")).await, TakenLoad { key: key(1, 2), resumed: true, finished: false });
}

async fn a_crash_fails_the_run_and_leaves_its_loads_to_be_resumed(store: &dyn Store) {
    let run = new_run("r1", 1);
    begin(store, &run).await;
    store.attempt_began(&run.id, &"load".into(), 1, at(1)).await.expect("an attempt");
    assert_eq!(store.unfinished(None).await.expect("loads").len(), 0, "a run that goes on has nothing to recover");
    assert!(store.crashed(&run.id, at(2)).await.expect("a mark"));
    assert!(!store.crashed(&run.id, at(3)).await.expect("a second mark"));
    let read = store.run(&run.id).await.expect("a run").expect("the run");
    assert_eq!((read.state, read.ended, read.report), (RunState::Failed, Some(at(2)), None));
    assert!(read.error.is_some_and(|error| error.message().contains("ended without a word")));
    let steps = store.steps(&run.id).await.expect("steps");
    assert_eq!((steps[0].state, steps[1].state), (StepState::UpstreamFailed, StepState::Failed));
    assert_eq!(steps[1].attempts[0].ended, Some(at(2)));
    let left = store.unfinished(Some(&run.id)).await.expect("loads");
    assert_eq!(left.iter().map(|load| &load.key).collect::<Vec<_>>(), [&key(1, 1)]);
    assert!(begin(store, &new_run("r2", 1)).await.resumed);
    assert_eq!(store.unfinished(Some(&run.id)).await.expect("loads").len(), 0, "another run holds it now");
}

async fn a_load_that_was_committed_before_the_crash_has_succeeded(store: &dyn Store) {
    let run = new_run("r1", 1);
    let taken = begin(store, &run).await;
    store.committed(&run.id, &committed(taken.key)).await.expect("the load is recorded");
    assert!(store.crashed(&run.id, at(2)).await.expect("a mark"));
    let steps = store.steps(&run.id).await.expect("steps");
    assert_eq!((steps[0].state, steps[1].state), (StepState::UpstreamFailed, StepState::Success));
}

async fn a_run_ends_once(store: &dyn Store) {
    begin(store, &new_run("r1", 1)).await;
    store.crashed(&RunId::from("r1"), at(1)).await.expect("a mark");
    store.end(&report("r1", 1, RunState::Success), at(2)).await.expect("no error");
    let read = store.run(&RunId::from("r1")).await.expect("a run").expect("the run");
    assert_eq!((read.state, read.ended), (RunState::Failed, Some(at(1))));
}

async fn a_moved_generation_is_kept(store: &dyn Store) {
    let taken = begin(store, &new_run("r1", 1)).await;
    let run = RunId::from("r1");
    store.generation_moved(&run, &taken.key, &key(1, 8)).await.expect("moved");
    assert!(store.generation_moved(&run, &taken.key, &key(1, 9)).await.is_err(), "nobody holds the first any more");
    assert!(store.committed(&run, &committed(taken.key)).await.is_err(), "nor can it be committed");
    finish(store, "r1", 1, key(1, 8)).await;
    assert_eq!(begin(store, &new_run("r2", 1)).await.key, key(1, 9));
}

async fn replays_and_the_newest_load_of_a_series_are_found(store: &dyn Store) {
    let newest = async |profile: Option<&str>| {
        let found = store.newest(&slot(1), profile).await.expect("the newest");
        found.map(|load| (load.run.to_string(), load.key.slot.interval))
    };
    assert_eq!(newest(None).await, None);
    for (id, on) in [("r1", 2), ("r2", 1)] {
        let taken = begin(store, &new_run(id, on)).await;
        finish(store, id, on, taken.key).await;
    }
    let unfinished = begin(store, &new_run("r3", 3)).await;
    assert!(!unfinished.finished);
    assert_eq!(newest(None).await, Some(("r2".to_owned(), day(1))));
    assert_eq!(newest(Some("pg")).await, None);
    assert_eq!(store.replays().await.expect("replays"), []);
    let origin = gristmill_model::Origin {
        run: RunId::from("r1"),
        step: "orders".into(),
        by: gristmill_model::RefusedBy::Check,
    };
    let replayed = Slot { step: slot(4).step.replaying(&origin), ..slot(4) };
    let run = NewRun { loads: vec![wanted(replayed, true)], ..new_run("r4", 4) };
    let taken = begin(store, &run).await;
    finish(store, "r4", 4, taken.key.clone()).await;
    let found = store.replays().await.expect("replays");
    assert_eq!(found.iter().map(|load| load.key.clone()).collect::<Vec<_>>(), [taken.key]);
    assert_eq!(newest(None).await, Some(("r2".to_owned(), day(1))), "a replay is a series of its own");
}

async fn a_generation_that_another_profile_holds_can_be_shared(store: &dyn Store) {
    let pg = |id: &str| NewRun { profile: Some("pg".to_owned()), ..new_run(id, 1) };
    let first = begin(store, &new_run("r1", 1)).await;
    finish(store, "r1", 1, first.key.clone()).await;
    let taken = begin(store, &pg("r2")).await;
    assert_eq!(taken.key, key(1, 2));
    let run = RunId::from("r2");
    store.generation_moved(&run, &taken.key, &first.key).await.expect("moved");
    finish(store, "r2", 1, first.key.clone()).await;
    let all = store.loads(&slot(1)).await.expect("loads");
    let seen: Vec<_> = all.iter().map(|load| (load.key.generation, load.committed.is_some())).collect();
    assert_eq!(seen, [(1, true), (1, true)]);
    // Where the profile has that generation itself, its row is taken over and stays committed.
    let taken = begin(store, &pg("r3")).await;
    store.generation_moved(&RunId::from("r3"), &taken.key, &first.key).await.expect("moved");
    store.committed(&RunId::from("r3"), &committed(first.key)).await.expect("the load is recorded");
    assert_eq!(store.loads(&slot(1)).await.expect("loads").len(), 2);
}

async fn what_is_kept_to_be_looked_at_is_known_until_it_is_let_go_or_taken_again(store: &dyn Store) {
    let taken = begin(store, &new_run("a", 1)).await;
    let run = RunId::from("a");
    let extract = gristmill_model::spec::ExtractSpec::new("staged".into());
    let rows = gristmill_model::KeptRows { folder: Some("/lake/_gristmill/staging/x".to_owned()), extract };
    let kept = KeptLoad { step: "load".into(), key: taken.key.clone(), rows };
    let held = async || store.loads(&slot(1)).await.expect("loads").remove(0).kept;
    store.kept(&run, std::slice::from_ref(&kept)).await.expect("written");
    assert_eq!(held().await, Some(Box::new(kept.clone())));
    store.kept(&run, &[]).await.expect("written");
    assert_eq!(held().await, None);
    let strange = KeptLoad { key: LoadKey { generation: 9, ..taken.key.clone() }, ..kept.clone() };
    assert!(store.kept(&run, &[strange]).await.is_err(), "nobody took it");
    store.kept(&run, &[kept]).await.expect("written");
    assert!(store.crashed(&run, at(1)).await.expect("written"));
    begin(store, &new_run("b", 1)).await;
    assert_eq!(held().await, None, "another run has taken the load over");
}

async fn an_unfinished_load_is_known_as_it_was_described_last(store: &dyn Store) {
    let spec = async || store.loads(&slot(1)).await.expect("loads").remove(0).spec.map(|spec| *spec);
    begin(store, &new_run("a", 1)).await;
    assert_eq!(spec().await, Some(load_into("out/")));
    assert!(store.crashed(&RunId::from("a"), at(1)).await.expect("written"));
    assert_eq!(spec().await, Some(load_into("out/")));
    let edited = WantedLoad { spec: LoadSpec { load_column: true, ..load_into("out/") }, ..wanted(slot(1), false) };
    let taken = begin(store, &NewRun { loads: vec![edited.clone()], ..new_run("b", 1) }).await;
    assert_eq!(spec().await, Some(edited.spec.clone()));
    let run = RunId::from("b");
    store.generation_moved(&run, &taken.key, &key(1, 4)).await.expect("moved");
    assert_eq!(spec().await, Some(edited.spec));
    store.committed(&run, &committed(key(1, 4))).await.expect("written");
    assert_eq!(spec().await, None, "it has left nothing");
}

async fn what_is_decided_is_kept_until_it_is_committed_given_up_or_taken_again(store: &dyn Store) {
    let decide = |key: &LoadKey| DecidedLoad {
        spec: serde_json::from_str(r#"{"from": "v", "to": "lake", "path": "out/", "strategy": "replace"}"#)
            .expect("a load"),
        staged: StagedLoad {
            step: "load".into(),
            key: key.clone(),
            schema: serde_json::Value::Null,
            staged: Vec::new(),
            checkpoint: Checkpoint::default(),
            source_key: Vec::new(),
        },
    };
    let held = async || store.loads(&slot(1)).await.expect("loads").remove(0).decided;
    let taken = begin(store, &new_run("r1", 1)).await;
    let run = RunId::from("r1");
    let decided = decide(&taken.key);
    store.decided(&run, std::slice::from_ref(&decided)).await.expect("written");
    assert_eq!(held().await, Some(Box::new(decided.clone())));
    store.given_up(&run, std::slice::from_ref(&taken.key)).await.expect("written");
    assert_eq!(held().await, None);
    store.decided(&run, std::slice::from_ref(&decided)).await.expect("written");
    let strange = decide(&key(1, 7));
    assert!(store.decided(&run, &[strange]).await.is_err(), "nobody took it");
    store.crashed(&run, at(1)).await.expect("a mark");
    let left = store.unfinished(Some(&run)).await.expect("loads").remove(0);
    assert_eq!(left.decided, Some(Box::new(decided.clone())));
    begin(store, &new_run("r2", 1)).await;
    assert_eq!(held().await, None, "the new run stages again");
    store.decided(&RunId::from("r2"), &[decided]).await.expect("written");
    finish(store, "r2", 1, taken.key).await;
    assert_eq!(held().await, None);
}

async fn runs_are_listed_newest_first_and_filtered(store: &dyn Store) {
    for on in 1..=4 {
        begin(store, &new_run(&format!("run-{on}"), on)).await;
    }
    store.end(&report("run-3", 3, RunState::Success), at(50)).await.expect("the run ends");
    let ids = async |filter: RunFilter| -> Vec<String> {
        store.runs(&filter).await.expect("runs").into_iter().map(|run| run.id.to_string()).collect()
    };
    assert_eq!(ids(RunFilter::default()).await, ["run-4", "run-3", "run-2", "run-1"]);
    assert_eq!(ids(RunFilter { limit: Some(2), ..RunFilter::default() }).await, ["run-4", "run-3"]);
    assert_eq!(ids(RunFilter { interval: Some(day(2)), ..RunFilter::default() }).await, ["run-2"]);
    assert_eq!(ids(RunFilter { state: Some(RunState::Success), ..RunFilter::default() }).await, ["run-3"]);
    assert!(ids(RunFilter { pipeline: Some("x' OR 1=1 --".into()), ..RunFilter::default() }).await.is_empty());
    assert!(ids(RunFilter { profile: Some(Some("pg".to_owned())), ..RunFilter::default() }).await.is_empty());
    assert_eq!(ids(RunFilter { profile: Some(None), ..RunFilter::default() }).await.len(), 4);
    assert_eq!(find_run(store, "last").await.expect("a run").id.as_str(), "run-4");
    let mut waited = report("run-2", 2, RunState::Success);
    waited.awaited = vec![report("run-3", 3, RunState::Success), report("run-4", 4, RunState::Success)];
    store.end(&waited, at(60)).await.expect("the run ends");
    assert_eq!(find_run(store, "last").await.expect("a run").id.as_str(), "run-2", "the others it only awaited");
    assert_eq!(find_run(store, "un-2").await.expect("a run").id.as_str(), "run-2");
    assert_eq!(find_run(store, "run-").await.expect_err("several").kind(), ErrorKind::Usage);
    assert_eq!(find_run(store, "gone").await.expect_err("none").kind(), ErrorKind::NotFound);
}

async fn attempts_are_kept(store: &dyn Store) {
    let run = new_run("r1", 1);
    begin(store, &run).await;
    let step = "load".into();
    let error = Error::new(ErrorKind::Unavailable, "gone").cause("reset").hint("wait");
    store.attempt_began(&run.id, &step, 1, at(1)).await.expect("written");
    store.attempt_ended(&run.id, &step, 1, at(2), Some(&error)).await.expect("written");
    store.attempt_began(&run.id, &step, 2, at(3)).await.expect("written");
    store.attempt_ended(&run.id, &step, 2, at(4), None).await.expect("written");
    let mut done = StepReport::new(step, StepKind::Load);
    done.state = StepState::Success;
    let late = StepReport::new("late".into(), StepKind::Sql);
    store.steps_changed(&run.id, &[done.clone(), late]).await.expect("written");
    let steps = store.steps(&run.id).await.expect("steps");
    assert_eq!(steps.iter().map(|step| step.step.as_str()).collect::<Vec<_>>(), ["orders", "load", "late"]);
    assert_eq!((steps[1].state, steps[1].report.as_ref()), (StepState::Success, Some(&done)));
    let seen: Vec<_> = steps[1].attempts.iter().map(|attempt| (attempt.attempt, attempt.ended)).collect();
    assert_eq!(seen, [(1, Some(at(2))), (2, Some(at(4)))]);
    assert_eq!(steps[1].attempts[0].error.as_ref(), Some(&error));
}

async fn a_run_that_is_refused_leaves_nothing_behind(store: &dyn Store) {
    begin(store, &new_run("r1", 1)).await;
    let mut refused = new_run("r2", 1);
    refused.loads.push(wanted(slot(9), false));
    store.begin(&refused).await.expect_err("a second run");
    assert_eq!(store.run(&refused.id).await.expect("an answer"), None);
    assert!(store.loads(&slot(9)).await.expect("loads").is_empty());
}

async fn rivals_for_one_slot_are_told_apart(store: Arc<dyn Store>) {
    let rivals = (0..8).map(|rival| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.begin(&new_run(&format!("rival-{rival}"), 1)).await })
    });
    let mut winners = 0;
    for rival in futures::future::join_all(rivals).await {
        match rival.expect("no panic") {
            Ok(_) => winners += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    assert_eq!(winners, 1);
}
