use super::*;
use crate::store::{RunFilter, SqliteStore, find_run};
use gristmill_model::spec::FoundTable;
use gristmill_model::{
    Checkpoint, Committed, JobPhase, JobReport, JobSpec, StagedLoad, StepKind, StepReport, StepState,
};
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;

mod tables;

/// What the fake runner does when a job with this label comes.
#[derive(Debug, Clone)]
enum Does {
    /// Ends with this error.
    Fails(ErrorKind),
    /// Ends when it is asked to.
    Hangs,
    /// Takes so many milliseconds, then does well.
    Takes(u64),
    Panics,
    /// Stages under this generation.
    Moves(u32),
    /// Commits only the first of its loads, then fails.
    Half,
    /// Says that this view failed.
    FailsAt(&'static str),
}

/// A runner that follows a script: it proves the protocol, nothing about rows.
#[derive(Debug, Default)]
struct Fake {
    log: Mutex<Vec<String>>,
    jobs: Mutex<Vec<JobSpec>>,
    script: Mutex<BTreeMap<String, VecDeque<Does>>>,
    ledger: Mutex<BTreeSet<String>>,
    tables: Mutex<Vec<FoundTable>>,
    /// Told when a job hangs.
    hanging: tokio::sync::Notify,
}

impl Fake {
    fn says(&self, label: &str, does: &[Does]) {
        self.script.lock().unwrap().insert(label.to_owned(), does.iter().cloned().collect());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    async fn work(&self, job: JobSpec, cancel: CancellationToken) -> JobReport {
        let phase = match &job.phase {
            JobPhase::Stage => "stage",
            JobPhase::Commit { .. } => "commit",
            JobPhase::Abort { .. } => "abort",
            JobPhase::Recover { .. } => "recover",
            JobPhase::Tables => "tables",
        };
        let names: Vec<&str> = job.steps.iter().map(StepName::as_str).collect();
        let label = format!("{phase} {}", names.join("+"));
        self.jobs.lock().unwrap().push(job.clone());
        self.log.lock().unwrap().push(label.clone());
        let does = self.script.lock().unwrap().get_mut(&label).and_then(VecDeque::pop_front);
        // As the engine does: each action that was asked for is reported as failed.
        let failed = |kind| {
            let steps = job.steps.iter().map(|step| {
                let mut report = StepReport::new(step.clone(), StepKind::Load);
                report.state = if kind == ErrorKind::Canceled { StepState::Canceled } else { StepState::Failed };
                report
            });
            let error = Some(Error::new(kind, format!("{label} failed")));
            JobReport { steps: steps.collect(), error, ..JobReport::default() }
        };
        let mut half = false;
        let mut generation = None;
        match does {
            Some(Does::Fails(kind)) => return failed(kind),
            Some(Does::Panics) => panic!("as the script says"),
            Some(Does::Hangs) => {
                self.hanging.notify_one();
                cancel.cancelled().await;
                return failed(ErrorKind::Canceled);
            }
            Some(Does::Takes(millis)) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Some(Does::FailsAt(view)) => {
                let mut report = StepReport::new(view.into(), StepKind::Sql);
                report.state = StepState::Failed;
                return JobReport { steps: vec![report], ..failed(ErrorKind::Check) };
            }
            Some(Does::Half) => half = true,
            Some(Does::Moves(to)) => generation = Some(to),
            None => {}
        }
        let mut report = JobReport { peak_memory: Some(1000), ..JobReport::default() };
        match &job.phase {
            JobPhase::Stage => {
                for (step, key) in &job.loads {
                    let mut key = key.clone();
                    key.generation = generation.unwrap_or(key.generation);
                    report.staged.push(StagedLoad {
                        step: step.clone(),
                        key,
                        schema: serde_json::Value::Null,
                        staged: Vec::new(),
                        checkpoint: Checkpoint::default(),
                        source_key: Vec::new(),
                    });
                }
            }
            JobPhase::Commit { staged } => {
                for load in staged {
                    let already = !self.ledger.lock().unwrap().insert(load.key.text());
                    let at = Utc::now();
                    let (key, checkpoint) = (load.key.clone(), Checkpoint::default());
                    let committed = Committed { key, rows: 5, files: 0, bytes: 0, checkpoint, at, already };
                    report.committed.push((load.step.clone(), committed));
                    if half {
                        report.error = Some(Error::new(ErrorKind::Unavailable, "lost the connection"));
                        break;
                    }
                }
            }
            JobPhase::Recover { dead } => report.notes.push(format!("swept after {}", dead[0])),
            JobPhase::Abort { .. } => {}
            JobPhase::Tables => {
                let tables = self.tables.lock().unwrap().clone();
                report.tables = job.steps.iter().map(|step| (step.clone(), tables.clone())).collect();
            }
        }
        report
    }
}

impl JobRunner for Fake {
    fn run<'a>(
        &'a self,
        job: JobSpec,
        _: EventSink,
        cancel: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = JobReport> + Send + 'a>> {
        Box::pin(self.work(job, cancel))
    }
}

/// A project in a temporary folder, and a driver for it.
struct Yard {
    folder: tempfile::TempDir,
    fake: Arc<Fake>,
    events: Arc<Mutex<Vec<RunEvent>>>,
    cancel: CancellationToken,
}

const TWO_LOADS: &str = "
  orders: {extract: {from: db, table: orders}}
  rates: {extract: {from: db, table: rates}}
  lake: {load: {from: orders, to: db, table: a, strategy: replace}}
  warehouse: {load: {from: rates, to: db, table: b, strategy: replace}}
";

impl Yard {
    fn new(pipelines: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("gristmill.yaml"),
            "name: yard\nconnections: {db: {type: sqlite, path: x.db}, lake: {type: files, url: ./lake}}\n",
        )
        .unwrap();
        std::fs::create_dir(folder.path().join("pipelines")).unwrap();
        let yard = Self { folder, fake: Arc::default(), events: Arc::default(), cancel: CancellationToken::new() };
        for (name, steps) in pipelines {
            yard.write(name, steps);
        }
        yard
    }

    fn write(&self, name: &str, steps: &str) {
        let (head, steps) = steps.split_once("\nsteps:").unwrap_or(("", steps));
        let text = format!("{head}\nsteps:{steps}");
        std::fs::write(self.folder.path().join(format!("pipelines/{name}.yaml")), text).unwrap();
    }

    fn state(&self) -> std::path::PathBuf {
        self.project().state.clone()
    }

    fn project(&self) -> Project {
        Project::load(self.folder.path(), None).unwrap()
    }

    async fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.state()).await.unwrap()
    }

    async fn driver(&self) -> Driver {
        let events = Arc::clone(&self.events);
        Driver::new(
            Arc::new(self.project()),
            Arc::new(self.store().await),
            Arc::<Fake>::clone(&self.fake),
            EventSink::new(move |event| events.lock().unwrap().push(event)),
            DriverOptions { cancel: self.cancel.clone(), ..DriverOptions::default() },
        )
    }

    async fn run(&self, pipeline: &str) -> RunReport {
        self.driver().await.run(&request(pipeline)).await.unwrap()
    }
}

fn day(day: u32) -> Interval {
    Interval::day(NaiveDate::from_ymd_opt(2024, 1, day).unwrap())
}

fn request(pipeline: &str) -> RunRequest {
    RunRequest::new(pipeline, day(15))
}

/// How each step ended, as `step=state`.
fn ends(report: &RunReport) -> Vec<String> {
    let actions = report.steps.iter().filter(|step| step.kind.is_action());
    actions.map(|step| format!("{}={}", step.step, step.state.as_str())).collect()
}

#[tokio::test]
async fn nothing_is_committed_before_everything_is_staged() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("stage lake", &[Does::Takes(80)]);
    let report = yard.run("p").await;
    assert_eq!(report.state, RunState::Success, "{report:?}");
    assert_eq!(ends(&report), ["lake=success", "warehouse=success"]);
    let log = yard.fake.log();
    assert_eq!(log[..2].iter().collect::<BTreeSet<_>>().len(), 2);
    assert!(
        log[..2].iter().all(|line| line.starts_with("stage")) && log[2..].iter().all(|line| line.starts_with("commit"))
    );
    assert_eq!(report.peak_memory, Some(1000));
    let store = yard.store().await;
    let read = find_run(&store, "last").await.unwrap();
    assert_eq!((read.state, read.report.as_ref()), (RunState::Success, Some(&report)));
    let steps = store.steps(&report.run).await.unwrap();
    assert!(steps.iter().all(|step| step.state == StepState::Success), "{steps:?}");
    let finished =
        yard.events.lock().unwrap().iter().filter(|event| matches!(event, RunEvent::StepFinished { .. })).count();
    assert_eq!(finished, 2);
}

#[tokio::test]
async fn a_failed_attempt_is_tried_again_and_then_succeeds() {
    let yard = Yard::new(&[("p", &format!("retries: 2\nretry_delay: 10ms\nsteps:{TWO_LOADS}"))]);
    yard.fake.says("stage lake", &[Does::Fails(ErrorKind::Unavailable), Does::Fails(ErrorKind::Storage)]);
    let report = yard.run("p").await;
    assert_eq!(ends(&report), ["lake=success", "warehouse=success"], "{report:?}");
    assert_eq!(report.steps.iter().find(|step| step.step.as_str() == "lake").unwrap().attempts, 3);
    let steps = yard.store().await.steps(&report.run).await.unwrap();
    let lake = steps.iter().find(|step| step.step.as_str() == "lake").unwrap();
    let errors: Vec<Option<ErrorKind>> =
        lake.attempts.iter().map(|attempt| attempt.error.as_ref().map(Error::kind)).collect();
    assert_eq!(errors, [Some(ErrorKind::Unavailable), Some(ErrorKind::Storage), None]);
    let retries = yard.events.lock().unwrap().iter().filter(|event| matches!(event, RunEvent::Retry { .. })).count();
    assert_eq!(retries, 2);
}

#[tokio::test]
async fn a_failure_throws_away_what_is_staged_and_says_whose_fault_it_was() {
    let yard = Yard::new(&[(
        "p",
        &format!(
            "{TWO_LOADS}  late: {{command: touch late, after: [warehouse]}}\n  later: {{command: touch later, after: [late]}}\n"
        ),
    )]);
    yard.fake.says("stage warehouse", &[Does::Fails(ErrorKind::Schema)]);
    let report = yard.run("p").await;
    assert_eq!(report.state, RunState::Failed);
    assert_eq!(
        ends(&report).into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(
            ["lake=canceled", "warehouse=failed", "late=upstream_failed", "later=upstream_failed"].map(str::to_owned)
        )
    );
    assert_eq!(report.error.as_ref().unwrap().message(), "stage warehouse failed");
    let log = yard.fake.log();
    assert!(!log.iter().any(|line| line.starts_with("commit")), "{log:?}");
    assert!(log.contains(&"abort lake".to_owned()) && log.contains(&"abort warehouse".to_owned()), "{log:?}");
    assert!(!yard.folder.path().join("late").exists());
    let late = report.steps.iter().find(|step| step.step.as_str() == "late").unwrap();
    assert_eq!(late.notes, ["not begun, because `warehouse` failed"]);
}

#[tokio::test]
async fn a_view_that_fails_is_to_blame_and_not_the_load_that_reads_it() {
    let yard = Yard::new(&[(
        "p",
        "\n  orders: {extract: {from: db, table: t}}\n  cleaned: {sql: SELECT * FROM orders}\n  out: {load: {from: cleaned, to: db, table: a, strategy: replace}}\n",
    )]);
    yard.fake.says("stage out", &[Does::FailsAt("cleaned")]);
    let report = yard.run("p").await;
    let states: Vec<(&str, &str)> = report.steps.iter().map(|step| (step.step.as_str(), step.state.as_str())).collect();
    assert_eq!(states, [("orders", "canceled"), ("cleaned", "failed"), ("out", "upstream_failed")]);
    assert_eq!(report.state, RunState::Failed);
}

#[tokio::test]
async fn a_step_after_a_load_runs_when_the_load_is_committed() {
    let yard = Yard::new(&[("p", &format!("{TWO_LOADS}  say: {{command: echo done > said, after: [lake]}}\n"))]);
    let report = yard.run("p").await;
    assert!(report.succeeded(), "{report:?}");
    assert!(yard.folder.path().join("said").exists());
    let order: Vec<String> = yard
        .events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            RunEvent::StepFinished { report, .. } => Some(report.step.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(order.last().map(String::as_str), Some("say"), "{order:?}");
}

#[tokio::test]
async fn a_commit_that_breaks_half_way_goes_on_with_the_rest() {
    let steps = "retries: 1\nretry_delay: 5ms\nsteps:\n  v: {extract: {from: db, table: t}}\n  a: {load: {from: v, to: db, table: a, strategy: replace}}\n  b: {load: {from: v, to: db, table: b, strategy: replace}}\n";
    let yard = Yard::new(&[("p", steps)]);
    yard.fake.says("commit a+b", &[Does::Half]);
    let report = yard.run("p").await;
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(yard.fake.log(), ["stage a+b", "commit a+b", "commit b"]);
    assert_eq!(yard.fake.jobs.lock().unwrap()[0].shared, ["v".into()]);
    // Without a retry the first stays published, the second is thrown away and resumed by the next run.
    yard.write("p", steps.strip_prefix("retries: 1\n").unwrap());
    yard.fake.says("commit a+b", &[Does::Half]);
    let report = yard.run("p").await;
    assert_eq!(ends(&report), ["a=success", "b=failed"]);
    let report = yard.run("p").await;
    assert!(report.succeeded());
    let last = yard.fake.jobs.lock().unwrap().iter().rev().find(|job| job.phase == JobPhase::Stage).cloned().unwrap();
    let generations: Vec<u32> = last.loads.iter().map(|(_, key)| key.generation).collect();
    assert_eq!((generations, last.resumed), (vec![3, 2], vec!["b".into()]));
}

#[tokio::test]
async fn ctrl_c_stops_what_runs_and_publishes_nothing() {
    let yard = Yard::new(&[("p", &format!("{TWO_LOADS}  slow: {{command: sleep 30}}\n"))]);
    yard.fake.says("stage lake", &[Does::Hangs]);
    let cancel = yard.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        cancel.cancel();
    });
    let began = Instant::now();
    let report = yard.run("p").await;
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(report.state, RunState::Canceled);
    assert_eq!(report.error.as_ref().map(Error::kind), Some(ErrorKind::Canceled));
    assert_eq!(ends(&report), ["lake=canceled", "warehouse=canceled", "slow=canceled"]);
    assert!(!yard.fake.log().iter().any(|line| line.starts_with("commit")));
    assert_eq!(yard.store().await.run(&report.run).await.unwrap().unwrap().state, RunState::Canceled);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_stopped() {
    let yard = Yard::new(&[(
        "p",
        "\n  v: {extract: {from: db, table: t}}\n  a: {load: {from: v, to: db, table: a, strategy: replace}, timeout: 50ms}\n  c: {command: sleep 30, timeout: 50ms, after: [a]}\n",
    )]);
    yard.fake.says("stage a", &[Does::Hangs]);
    let report = yard.run("p").await;
    assert_eq!(report.error.as_ref().map(Error::kind), Some(ErrorKind::Timeout), "{report:?}");
    assert_eq!(report.error.as_ref().unwrap().message(), "`a` took longer than 50ms");
    let report = yard.run("p").await;
    assert_eq!(ends(&report), ["a=success", "c=failed"]);
    assert_eq!(report.error.unwrap().message(), "`c` took longer than 50ms");
}

#[tokio::test]
async fn a_command_gets_the_run_in_its_environment_and_its_words_are_heard() {
    let yard = Yard::new(&[(
        "p",
        "params: {region: eu}\nsteps:\n  c:\n    command: {run: 'echo \"$GRISTMILL_DS $GRISTMILL_PARAM_REGION $EXTRA $FROM_FILE {{ ds_nodash }}\"; echo oh >&2; test \"$GRISTMILL_RUN_ID\" = {{ run_id }} && pwd > where; exit 3', env: {EXTRA: more}}\n",
    )]);
    std::fs::write(yard.folder.path().join(".env"), "FROM_FILE=dotenv\nEXTRA=less\n").unwrap();
    let report = yard.run("p").await;
    let error = report.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Command);
    assert!(error.message().starts_with("the command of `c` ended with status 3; its last lines:"), "{error}");
    assert!(error.message().contains("\n  2024-01-15 eu more dotenv 20240115"), "{error}");
    assert!(error.message().contains("\n  oh"), "{error}");
    let here = std::fs::read_to_string(yard.folder.path().join("where")).unwrap();
    assert_eq!(Path::new(here.trim()), yard.project().root);
    let heard =
        yard.events.lock().unwrap().iter().any(|event| matches!(event, RunEvent::Note { text, .. } if text == "oh"));
    assert!(heard);
}

#[tokio::test]
async fn what_a_stopped_command_started_ends_with_it() {
    let yard = Yard::new(&[(
        "p",
        "\n  c: {command: '(trap \"\" TERM; sleep 1; touch survived) & sleep 30', timeout: 100ms}\n",
    )]);
    let report = yard.run("p").await;
    assert_eq!(report.state, RunState::Failed);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!yard.folder.path().join("survived").exists());
}

#[tokio::test]
async fn long_and_strange_output_is_passed_on_in_pieces() {
    let yard = Yard::new(&[("p", "\n  c: {command: 'head -c 100000 /dev/zero; printf \"\\377\\n\\nlast\"'}\n")]);
    assert!(yard.run("p").await.succeeded());
    let events = yard.events.lock().unwrap();
    let lines: Vec<&String> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::Note { text, .. } => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(lines.iter().map(|line| line.matches('\0').count()).sum::<usize>(), 100_000);
    assert!(lines.iter().all(|line| line.len() <= 8 * 1024 + 3));
    assert_eq!(lines.last().map(|line| line.as_str()), Some("last"));
}

const EXPORT: &str = "\n  done: {command: echo x >> exported}\n";
const WAITS: &str = "\n  w: {wait_for: {pipeline: export, step: done}}\n  v: {extract: {from: db, table: t}, after: [w]}\n  a: {load: {from: v, to: db, table: a, strategy: replace}}\n";

#[tokio::test]
async fn an_awaited_pipeline_is_run_first_and_once() {
    let yard = Yard::new(&[("export", EXPORT), ("p", WAITS), ("q", WAITS)]);
    let report = yard.run("p").await;
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(report.awaited.len(), 1);
    assert_eq!((report.awaited[0].pipeline.as_str(), report.awaited[0].state), ("export", RunState::Success));
    for pipeline in ["p", "q"] {
        let report = yard.run(pipeline).await;
        assert!(report.succeeded() && report.awaited.is_empty());
        assert_eq!(report.steps[0].notes, ["`export` (2024-01-15) had succeeded before"]);
    }
    assert_eq!(std::fs::read_to_string(yard.folder.path().join("exported")).unwrap(), "x\n");
    let other = RunRequest { interval: day(16), ..request("p") };
    assert_eq!(yard.driver().await.run(&other).await.unwrap().awaited.len(), 1, "another date is another run");
}

#[tokio::test]
async fn a_fixed_date_is_awaited_once_for_all_dates() {
    let yard = Yard::new(&[("export", EXPORT), ("p", "\n  w: {wait_for: {pipeline: export, date: 2024-01-01}}\n")]);
    let reports = yard
        .driver()
        .await
        .run_many(
            &request("p"),
            NaiveDate::from_ymd_opt(2024, 1, 3).unwrap(),
            NaiveDate::from_ymd_opt(2024, 1, 5).unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(reports.iter().map(|report| report.awaited.len()).collect::<Vec<_>>(), [1, 0, 0]);
    assert_eq!(reports[0].awaited[0].interval, day(1));
}

#[tokio::test]
async fn an_awaited_pipeline_that_fails_fails_the_step_that_waits() {
    let yard = Yard::new(&[("export", "\n  done: {command: exit 4}\n"), ("p", WAITS)]);
    let report = yard.run("p").await;
    assert_eq!(ends(&report), ["w=failed", "a=upstream_failed"]);
    assert!(report.error.unwrap().message().contains("the awaited pipeline `export` (2024-01-15) did not succeed"));
    assert!(yard.fake.log().is_empty());
}

#[tokio::test]
async fn a_wait_that_is_tried_again_ends_with_what_kept_it_from_succeeding() {
    let waits = format!("retries: 1\nretry_delay: 5ms\nsteps:{WAITS}");
    let yard = Yard::new(&[("export", "\n  done: {command: exit 4}\n"), ("p", &waits)]);
    let error = yard.run("p").await.error.unwrap();
    assert!(error.message().contains("did not succeed") && error.to_string().contains("status 4"), "{error}");
}

#[tokio::test]
async fn a_runner_that_panics_fails_the_step_at_once() {
    let yard = Yard::new(&[("p", &format!("retries: 2\nretry_delay: 10ms\nsteps:{TWO_LOADS}"))]);
    yard.fake.says("stage lake", &[Does::Panics]);
    let report = yard.run("p").await;
    assert_eq!(report.error.unwrap().kind(), ErrorKind::Internal);
    assert_eq!(yard.fake.log().iter().filter(|line| *line == "stage lake").count(), 1);
}

#[tokio::test]
async fn pipelines_that_wait_for_each_other_are_refused() {
    let waits = |other: &str| format!("\n  w: {{wait_for: {{pipeline: {other}}}}}\n");
    let yard = Yard::new(&[("a", &waits("b")), ("b", &waits("a")), ("c", &waits("c"))]);
    let report = yard.run("a").await;
    let error = report.error.unwrap();
    assert!(error.message().contains("a (2024-01-15) → b (2024-01-15) → a (2024-01-15)"), "{error}");
    let error = yard.driver().await.run(&request("c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_run_that_goes_on_elsewhere_is_waited_for_and_refused_a_rival() {
    let gate = tempfile::tempdir().unwrap();
    let (begun, go) = (gate.path().join("begun"), gate.path().join("go"));
    let command = format!("touch {}; until test -e {}; do sleep 0.02; done", begun.display(), go.display());
    let yard = Yard::new(&[
        ("export", &format!("\n  done: {{command: \"{command}\"}}\n")),
        ("p", "\n  w: {wait_for: {pipeline: export, poke_interval: 20ms}}\n"),
    ]);
    let first = yard.driver().await;
    let going_on = tokio::spawn(async move { first.run(&request("export")).await });
    while !begun.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rival = yard.driver().await.run(&request("export")).await.unwrap_err();
    assert_eq!(rival.kind(), ErrorKind::Conflict);
    assert!(rival.message().contains("of the same pipeline and date is going on"), "{rival}");
    let store = yard.store().await;
    let opened = async {
        // Once the other one has looked, and waits: then its step is at work.
        let waits = async || {
            let run = find_run(&store, "last").await.unwrap();
            let steps = store.steps(&run.id).await.unwrap();
            run.pipeline.as_str() == "p" && steps.iter().any(|step| step.state == StepState::Running)
        };
        while !waits().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::fs::write(&go, "").unwrap();
    };
    let (report, ()) = tokio::join!(yard.run("p"), opened);
    assert!(report.succeeded() && report.awaited.is_empty(), "{report:?}");
    assert_eq!(report.steps[0].notes, ["`export` (2024-01-15) has succeeded in another process"]);
    assert!(going_on.await.unwrap().unwrap().succeeded());
}

#[tokio::test]
async fn an_append_that_is_done_is_skipped_aloud() {
    let yard = Yard::new(&[(
        "p",
        "\n  v: {extract: {from: db, table: t}}\n  a: {load: {from: v, to: db, table: a, strategy: append}}\n  b: {load: {from: v, to: db, table: b, strategy: replace}}\n  c: {command: 'true', after: [a]}\n",
    )]);
    assert!(yard.run("p").await.succeeded());
    let report = yard.run("p").await;
    assert!(report.succeeded());
    assert_eq!(
        ends(&report).into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["a=skipped", "b=success", "c=success"].map(str::to_owned))
    );
    let skipped = report.steps.iter().find(|step| step.step.as_str() == "a").unwrap();
    assert!(skipped.notes[0].contains("loaded already (generation 1)"), "{:?}", skipped.notes);
    assert_eq!(yard.fake.log()[2..], ["stage b", "commit b"]);
}

#[tokio::test]
async fn a_full_refresh_of_an_append_is_refused_and_takes_nothing() {
    let steps = |strategy: &str| {
        format!(
            "\n  v: {{extract: {{from: db, table: t}}}}\n  a: {{load: {{from: v, to: db, table: a, strategy: {strategy}}}}}\n"
        )
    };
    let yard = Yard::new(&[("p", &steps("append"))]);
    let again = RunRequest { full_refresh: true, ..request("p") };
    assert!(yard.driver().await.run(&again).await.unwrap().succeeded(), "there is nothing to double yet");
    let refused = yard.driver().await.run(&again).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.message().contains("`append` cannot replace them"), "{refused}");
    let store = yard.store().await;
    assert_eq!(store.runs(&RunFilter::default()).await.unwrap().len(), 1, "a refused run is no run");
    let slot = yard.fake.jobs.lock().unwrap()[0].loads[0].1.slot.clone();
    assert_eq!(store.loads(&slot).await.unwrap().len(), 1);
    assert_eq!(ends(&yard.run("p").await), ["a=skipped"]);
    yard.write("p", &steps("replace"));
    let report = yard.driver().await.run(&again).await.unwrap();
    assert!(report.succeeded());
    let last = yard.fake.jobs.lock().unwrap().iter().rev().find(|job| job.phase == JobPhase::Stage).cloned().unwrap();
    assert!(last.full_refresh && last.resumed.is_empty());
    assert_eq!(last.loads[0].1.generation, 2);
}

/// Does something until the script lets a job hang, and no further, as a killed process does.
async fn until_it_hangs<T>(yard: &Yard, work: impl Future<Output = T>) {
    tokio::select! {
        _ = work => panic!("it has ended"),
        () = yard.fake.hanging.notified() => {}
    }
}

/// Begins a run and lets it die where the script hangs: the record stays, and the lock is free.
async fn dies(yard: &Yard) -> RunId {
    let driver = yard.driver().await;
    until_it_hangs(yard, driver.run(&request("p"))).await;
    let dead = find_run(&yard.store().await, "last").await.unwrap();
    assert_eq!(dead.state, RunState::Running);
    dead.id
}

async fn stand(yard: &Yard, run: &RunId) -> Vec<(String, StepState)> {
    let steps = yard.store().await.steps(run).await.unwrap();
    let loads = steps.into_iter().filter(|step| step.kind == StepKind::Load);
    loads.map(|step| (step.step.to_string(), step.state)).collect()
}

#[tokio::test]
async fn a_run_that_died_between_two_commits_is_published_whole() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("commit warehouse", &[Does::Hangs]);
    let dead = dies(&yard).await;
    let recovered = yard.driver().await.recover(false).await.unwrap();
    let told = recovered.notes.join("\n");
    assert!(told.contains("warehouse/2024-01-15/db:b#1` was about to be published, and is now: 5 rows"), "{told}");
    let ledger: Vec<String> = yard.fake.ledger.lock().unwrap().iter().cloned().collect();
    assert_eq!(ledger, ["p/lake/2024-01-15/db:a#1", "p/warehouse/2024-01-15/db:b#1"]);
    let success = |step: &str| (step.to_owned(), StepState::Success);
    assert_eq!(stand(&yard, &dead).await, [success("lake"), success("warehouse")]);
    assert!(yard.store().await.unfinished(None).await.unwrap().is_empty());
    assert!(yard.driver().await.recover(true).await.unwrap().notes.is_empty());
    let report = yard.run("p").await;
    assert!(report.succeeded(), "{report:?}");
    let last = yard.fake.jobs.lock().unwrap().iter().rev().find(|job| job.phase == JobPhase::Stage).cloned().unwrap();
    assert!(last.resumed.is_empty() && last.loads[0].1.generation == 2, "{last:?}");
}

#[tokio::test]
async fn what_is_committed_after_a_load_is_staged_beside_it_and_recovered_after_it() {
    // `a` comes after `z`: neither the names nor the file give the order away.
    const ORDERED: &str = "
  orders: {extract: {from: lake, path: orders/}}
  rates: {extract: {from: lake, path: rates/}}
  a: {load: {from: orders, to: db, table: a, strategy: replace}, after: [z]}
  z: {load: {from: rates, to: db, table: z, strategy: replace}}
";
    let yard = Yard::new(&[("p", ORDERED)]);
    assert!(yard.run("p").await.succeeded());
    let mut log = yard.fake.log();
    log[..2].sort();
    assert_eq!(log, ["stage a", "stage z", "commit z", "commit a"]);
    yard.fake.says("commit z", &[Does::Hangs, Does::Fails(ErrorKind::Unavailable)]);
    let dead = dies(&yard).await;
    let committed = || yard.fake.ledger.lock().unwrap().len();
    let before = committed();
    let told = yard.driver().await.recover(false).await.unwrap().notes.join("\n");
    assert!(told.contains("/a/2024-01-15/db:a#2` is not published before `z` is"), "{told}");
    assert_eq!(committed(), before);
    yard.driver().await.recover(true).await.unwrap();
    let success = |step: &str| (step.to_owned(), StepState::Success);
    assert_eq!(stand(&yard, &dead).await, [success("z"), success("a")]);
    // Where the first can never be published, nor is the second.
    let yard = Yard::new(&[("p", ORDERED)]);
    yard.fake.says("commit z", &[Does::Hangs, Does::Fails(ErrorKind::Conflict)]);
    dies(&yard).await;
    let told = yard.driver().await.recover(false).await.unwrap().notes.join("\n");
    assert!(told.contains("it comes after `z`, which is given up"), "{told}");
    assert_eq!(yard.fake.ledger.lock().unwrap().len(), 0);
    let told = yard.driver().await.recover(true).await.unwrap().notes.join("\n");
    assert!(!told.contains("published"), "told once: {told}");
    // A check of the second keeps the first back.
    let yard = Yard::new(&[("p", ORDERED)]);
    yard.fake.says("stage a", &[Does::Fails(ErrorKind::Data)]);
    assert!(!yard.run("p").await.succeeded());
    assert!(!yard.fake.log().iter().any(|line| line.starts_with("commit")), "{:?}", yard.fake.log());
}

#[tokio::test]
async fn what_was_decided_waits_for_its_target_and_is_not_swept_meanwhile() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("commit warehouse", &[Does::Hangs, Does::Fails(ErrorKind::Unavailable)]);
    let dead = dies(&yard).await;
    let recovered = yard.driver().await.recover(false).await.unwrap();
    let told = recovered.notes.join("\n");
    assert!(told.contains("is not published, though it was about to be") && told.contains("tries again"), "{told}");
    assert!(!yard.fake.log().iter().any(|line| line.starts_with("recover")), "{:?}", yard.fake.log());
    assert_eq!(stand(&yard, &dead).await[1].1, StepState::Failed);
    yard.driver().await.recover(true).await.unwrap();
    assert_eq!(stand(&yard, &dead).await[1].1, StepState::Success);
}

#[tokio::test]
async fn what_was_decided_and_is_gone_is_said_and_left_to_the_next_run() {
    // A conflict: another run has moved the cursor that the rows were read from. It would be one for ever.
    for kind in [ErrorKind::NotFound, ErrorKind::Conflict] {
        let yard = Yard::new(&[("p", TWO_LOADS)]);
        yard.fake.says("commit warehouse", &[Does::Hangs, Does::Fails(kind)]);
        dies(&yard).await;
        let report = yard.run("p").await;
        assert!(report.succeeded(), "{report:?}");
        let told = report.notes.join("\n");
        assert!(told.contains("it is given up; run the pipeline for that interval again"), "{told}");
        let jobs = yard.fake.jobs.lock().unwrap().clone();
        let last = jobs.iter().rev().find(|job| job.phase == JobPhase::Stage).unwrap();
        assert_eq!(last.loads[0].0.as_str(), "warehouse");
        assert_eq!((last.loads[0].1.generation, last.resumed.len()), (1, 1));
        assert!(yard.driver().await.recover(true).await.unwrap().notes.is_empty(), "{kind:?} is told once");
    }
}

#[tokio::test]
async fn what_was_decided_for_another_target_is_not_published_there() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("commit warehouse", &[Does::Hangs]);
    dies(&yard).await;
    yard.write("p", &TWO_LOADS.replace("table: b, strategy: replace", "table: b, strategy: append"));
    let told = yard.driver().await.recover(false).await.unwrap().notes.join("\n");
    assert!(told.contains("the step `warehouse` was changed meanwhile"), "{told}");
    assert_eq!(yard.fake.ledger.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_dead_run_of_another_profile_is_left_to_its_own() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("stage lake", &[Does::Hangs]);
    let dead = dies(&yard).await;
    std::fs::write(
        yard.folder.path().join("gristmill.yaml"),
        "name: yard\nconnections: {db: {type: sqlite, path: x.db}}\nprofiles: {pg: {connections: {db: {type: sqlite, path: y.db}}}}\n",
    )
    .unwrap();
    let driver = yard.driver().await;
    let other = Driver { project: Arc::new(Project::load(yard.folder.path(), Some("pg")).unwrap()), ..driver };
    assert!(other.recover(true).await.unwrap().dead.is_empty());
    assert_eq!(yard.driver().await.recover(false).await.unwrap().dead, [dead]);
}

#[tokio::test]
async fn a_run_whose_process_died_is_marked_and_its_generation_resumed() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("stage lake", &[Does::Hangs]);
    let dead = dies(&yard).await;
    let report = yard.run("p").await;
    assert!(report.succeeded(), "{report:?}");
    assert!(report.notes[0].contains("had died; it is marked as failed"), "{:?}", report.notes);
    assert!(report.notes[1].contains(&format!("swept after {dead}")), "{:?}", report.notes);
    let store = yard.store().await;
    assert_eq!(store.run(&dead).await.unwrap().unwrap().state, RunState::Failed);
    for job in yard.fake.jobs.lock().unwrap().iter() {
        assert!(job.loads.iter().all(|(_, key)| key.generation == 1));
        assert_eq!(job.resumed.is_empty(), job.run == dead && !matches!(job.phase, JobPhase::Recover { .. }));
    }
    assert!(yard.driver().await.recover(true).await.unwrap().dead.is_empty());
    assert_eq!(std::fs::read_dir(yard.state().join("owners")).unwrap().count(), 1, "only the start lock is left");
}

#[tokio::test]
async fn a_thorough_recovery_looks_at_what_failed_runs_left() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("stage lake", &[Does::Fails(ErrorKind::Query)]);
    yard.run("p").await;
    assert!(yard.driver().await.recover(false).await.unwrap().notes.is_empty());
    let recovered = yard.driver().await.recover(true).await.unwrap();
    assert_eq!(recovered.notes.len(), 1, "{recovered:?}");
    assert_eq!(yard.fake.log().last().map(String::as_str), Some("recover lake+warehouse"));
}

#[tokio::test]
async fn a_target_whose_ledger_is_ahead_of_the_store_is_followed() {
    let yard = Yard::new(&[(
        "p",
        "\n  v: {extract: {from: db, table: t}}\n  a: {load: {from: v, to: db, table: a, strategy: replace}}\n",
    )]);
    yard.fake.says("stage a", &[Does::Moves(7)]);
    assert!(yard.run("p").await.succeeded());
    assert!(yard.run("p").await.succeeded());
    let ledger: Vec<String> = yard.fake.ledger.lock().unwrap().iter().cloned().collect();
    assert_eq!(ledger, ["p/a/2024-01-15/db:a#7", "p/a/2024-01-15/db:a#8"]);
}

#[tokio::test]
async fn several_dates_run_in_order_and_stop_at_the_first_failure() {
    let yard = Yard::new(&[("p", "\n  c: {command: 'echo {{ ds }} >> days; test {{ ds }} != 2024-01-03'}\n")]);
    let date = |day| NaiveDate::from_ymd_opt(2024, 1, day).unwrap();
    let driver = yard.driver().await;
    let reports = driver.run_many(&request("p"), date(1), date(9)).await.unwrap();
    let states: Vec<RunState> = reports.iter().map(|report| report.state).collect();
    assert_eq!(states, [RunState::Success, RunState::Success, RunState::Failed]);
    let days = std::fs::read_to_string(yard.folder.path().join("days")).unwrap();
    assert_eq!(days, "2024-01-01\n2024-01-02\n2024-01-03\n");
    assert_eq!(driver.run_many(&request("p"), date(2), date(1)).await.unwrap_err().kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn one_selected_step_runs_with_what_it_needs() {
    let yard = Yard::new(&[(
        "p",
        &format!(
            "{TWO_LOADS}  before: {{command: touch before}}\n  after: {{command: touch after, after: [lake, before]}}\n"
        ),
    )]);
    let selected = RunRequest { selection: Some("after".into()), ..request("p") };
    let report = yard.driver().await.run(&selected).await.unwrap();
    assert_eq!(ends(&report), ["lake=success", "before=success", "after=success"]);
    assert_eq!(yard.fake.log(), ["stage lake", "commit lake"]);
    let missing = RunRequest { selection: Some("lak".into()), ..request("p") };
    assert_eq!(yard.driver().await.run(&missing).await.unwrap_err().hint_text(), Some("did you mean `lake`?"));
    assert_eq!(yard.store().await.runs(&RunFilter::default()).await.unwrap().len(), 1, "a refused run is no run");
}

fn locks(yard: &Yard) -> usize {
    std::fs::read_dir(yard.state().join("owners")).unwrap().count()
}

#[tokio::test]
async fn a_recovery_that_dies_is_done_again_by_the_next() {
    let yard = Yard::new(&[("p", TWO_LOADS)]);
    yard.fake.says("commit warehouse", &[Does::Hangs, Does::Hangs]);
    let dead = dies(&yard).await;
    let driver = yard.driver().await;
    until_it_hangs(&yard, driver.recover(false)).await;
    let recovered = yard.driver().await.recover(false).await.unwrap();
    assert_eq!(recovered.dead, std::slice::from_ref(&dead));
    assert_eq!(stand(&yard, &dead).await[1], ("warehouse".to_owned(), StepState::Success));
    assert_eq!(yard.fake.log().last().map(String::as_str), Some("recover lake+warehouse"));
}

#[tokio::test]
async fn what_could_not_be_thrown_away_is_thrown_away_before_the_next_run() {
    let yard = Yard::new(&[("p", TWO_LOADS), ("q", "\n  c: {command: 'true'}\n")]);
    yard.fake.says("stage lake", &[Does::Fails(ErrorKind::Query)]);
    yard.fake.says("abort lake", &[Does::Fails(ErrorKind::Unavailable)]);
    assert!(!yard.run("p").await.succeeded());
    assert_eq!(locks(&yard), 2, "the start lock, and the sign that something is left");
    assert!(yard.run("q").await.succeeded());
    assert!(!yard.fake.log().iter().any(|line| line.starts_with("recover")), "another pipeline does not look again");
    assert!(yard.run("p").await.succeeded());
    assert_eq!(locks(&yard), 1);
    let log = yard.fake.log();
    let recovered = log.iter().position(|line| line == "recover lake+warehouse").unwrap();
    assert!(recovered < log.iter().rposition(|line| line == "stage lake").unwrap(), "{log:?}");
}
