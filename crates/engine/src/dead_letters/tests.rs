use super::*;
use datafusion::arrow::array::Int32Array;
use datafusion::arrow::datatypes::{DataType, Field};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::path::Path;

fn of_job(state: &Path, run: &str, job: &str) -> Job {
    let interval = Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
    Job {
        state: state.to_owned(),
        pipeline: "p".to_owned(),
        profile: None,
        interval,
        run: run.into(),
        job: job.to_owned(),
        attempt: 1,
    }
}

fn drawer(job: &Job) -> Drawer {
    Drawer::new(&job.state, &job.pipeline, job.profile.as_deref(), &job.interval)
}

fn names(job: &Job) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(drawer(job).folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

async fn keep(job: Job, count: usize) -> PathBuf {
    let letters = DeadLetters::new(job, None).unwrap();
    let sink = letters.sink("v".into(), &Arc::new(Schema::empty()), || {});
    let many = std::thread::spawn(move || {
        for line in 0..count {
            sink.send(Reject { record: "x".repeat(90), error: "no".to_owned(), place: format!("a.csv:{line}") });
        }
    });
    many.join().unwrap();
    letters.finish().await.unwrap().unwrap()
}

#[tokio::test]
async fn many_letters_are_kept_in_few_batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = keep(of_job(folder.path(), "r1", "load"), 50_000).await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 50_000);
    assert!(reader.metadata().num_row_groups() < 5, "{}", reader.metadata().num_row_groups());
}

#[tokio::test]
async fn letters_go_with_the_load_that_is_thrown_away_and_with_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let of = |run: &str, job: &str| of_job(folder.path(), run, job);
    let replay = "load@check.v.r1";
    let jobs = [("r1", "load"), ("r1", "load-2"), ("r1", "load[a.b]"), ("r2", "load"), ("r3", "load"), ("r4", replay)];
    for (run, job) in jobs {
        keep(of(run, job), 1).await;
    }
    let drawer = drawer(&of("r1", "load"));
    drawer.throw_away(&"r1".into(), &"load[a.c]".into()).await;
    assert_eq!(names(&of("r1", "load")).len(), 6);
    drawer.throw_away(&"r1".into(), &"load[a.b]".into()).await;
    drawer.throw_away(&"r3".into(), &"load".into()).await;
    let left = ["r1-load-1.parquet", "r1-load-2-1.parquet", "r2-load-1.parquet", "r4-load@check.v.r1-1.parquet"];
    assert_eq!(names(&of("r1", "load")), left);
    // A replay takes no other letters' place; a run takes the place of the letters before it, and of their replays.
    drawer.supersede(&"r4".into(), &replay.into()).await;
    assert_eq!(names(&of("r1", "load")), left);
    drawer.supersede(&"r2".into(), &"load".into()).await;
    assert_eq!(names(&of("r1", "load")), ["r1-load-2-1.parquet", "r2-load-1.parquet"]);
}

#[test]
fn profiles_have_drawers_of_their_own() {
    let of = |profile: Option<&str>| {
        let job = Job { profile: profile.map(str::to_owned), ..of_job(Path::new("s"), "r", "load") };
        drawer(&job).folder().display().to_string()
    };
    assert_eq!(of(None), "s/dead_letters/p/2024-01-15");
    assert_eq!(of(Some("a/b")), "s/dead_letters/p@a%2Fb/2024-01-15");
}

#[tokio::test]
async fn what_a_set_holds_is_told_by_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let job = of_job(folder.path(), "r1", "load");
    let letters = DeadLetters::new(job.clone(), None).unwrap();
    let slot = gristmill_model::Slot {
        pipeline: "p".into(),
        step: "load".into(),
        interval: job.interval,
        target: "db:t".to_owned(),
    };
    letters.belong_to(&LoadKey { slot, generation: 2 }, vec![("load".into(), vec!["id".to_owned()])]);
    let schema = Schema::new(vec![Field::new("a", DataType::Int32, true)]);
    let values = Arc::new(Int32Array::from(vec![Some(1), None]));
    let rows = RecordBatch::try_new(Arc::new(schema), vec![values]).unwrap();
    let reasons = ["one".to_owned(), "two".to_owned()];
    letters.rows(&"v".into(), RefusedBy::Check, "lane 0", &rows, &reasons).unwrap();
    letters.rows(&"load".into(), RefusedBy::Target, "writer 0", &rows.slice(0, 1), &reasons).unwrap();
    letters.finish().await.unwrap().unwrap();
    let (sets, mistakes) = letter_sets(folder.path()).unwrap();
    assert_eq!((sets.len(), mistakes), (2, Vec::new()));
    assert_eq!(sets[1].origin.step.as_str(), "v");
    assert_eq!(sets[1].load.as_deref(), Some("p/load/2024-01-15/db:t#2"));
    assert_eq!(sets[1].loads, [LetterLoad { step: "load".into(), key: vec!["id".to_owned()] }]);
    assert_eq!((sets[1].rows, sets[1].reasons.len()), (2, 2));
    let first = &super::letters(folder.path(), &sets[1], 1).unwrap()[0];
    assert_eq!(
        (first.record.as_str(), first.error.as_str(), first.unit.as_deref()),
        (r#"{"a":1}"#, "one", Some("lane 0"))
    );
}
