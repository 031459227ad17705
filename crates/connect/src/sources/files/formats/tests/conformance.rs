//! Files of other projects, many of them broken on purpose, against what pyarrow and DuckDB make of them.

use super::*;
use object_store::local::LocalFileSystem;

/// Longer than this is a hang.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where we differ knowingly.
const DIFFERENCES: [(&str, &str); 1] =
    [("arrow-ipc-stream-fuzz-5718685113384960", "a duration in an unknown unit, without rows: pyarrow takes any unit")];

fn local(root: &std::path::Path, relative: &str) -> FileInput {
    let store = Arc::new(LocalFileSystem::new_with_prefix(root).unwrap());
    let location = Path::parse(relative).unwrap();
    let meta = block_on(store.head(&location)).unwrap();
    FileInput {
        store,
        meta,
        name: relative.rsplit('/').next().unwrap().to_owned(),
        compression: Compression::None,
        csv: CsvOptions::default(),
        json: JsonOptions::default(),
        stdin: false,
        piece: None,
    }
}

fn format_of(path: &str) -> FileFormat {
    if path.contains("arrow-ipc") {
        FileFormat::Arrow
    } else if path.starts_with("orc/") {
        FileFormat::Orc
    } else {
        FileFormat::Parquet
    }
}

async fn count(format: FileFormat, input: &FileInput) -> Result<u64> {
    let schema = reader(format).infer(input).await?.schema;
    let mut rows = reader(format).read(input.clone(), scan(schema));
    let mut count = 0;
    while let Some(batch) = futures::StreamExt::next(&mut rows).await {
        count += batch?.num_rows() as u64;
    }
    Ok(count)
}

/// What the process has taken at most, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}

#[test]
fn files_are_read_as_pyarrow_and_duckdb_read_them() {
    let Some(folder) = gristmill_testkit::conformance_dir("files") else { return };
    let oracle: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(folder.join("oracle.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for case in &oracle {
        let path = case["file"].as_str().unwrap();
        let input = local(&folder, path);
        let started = Instant::now();
        let ours = block_on(async { tokio::time::timeout(PATIENCE, count(format_of(path), &input)).await });
        let Ok(ours) = ours else {
            wrong.push(format!("{path}: takes longer than {PATIENCE:?}"));
            continue;
        };
        let verdicts: Vec<Option<u64>> = ["pyarrow", "duckdb"]
            .iter()
            .filter_map(|tool| case.get(tool))
            .map(|verdict| verdict["ok"].as_bool().unwrap().then(|| verdict["rows"].as_u64().unwrap()))
            .collect();
        if std::env::var_os("GRISTMILL_SHOW").is_some() {
            println!("{path}: {verdicts:?} {ours:?} {:?} {} MiB", started.elapsed(), peak_mib());
        }
        let agreed = verdicts.iter().all(|verdict| *verdict == verdicts[0]);
        match (&ours, verdicts[0]) {
            _ if !agreed => {}
            (Ok(rows), Some(expected)) if *rows == expected => {}
            (Err(_), None) => {}
            (Err(_), Some(_)) if DIFFERENCES.iter().any(|(name, _)| path.contains(name)) => {}
            _ => wrong.push(format!("{path}: they say {verdicts:?}, we say {ours:?}")),
        }
        if let Err(error) = &ours {
            assert!(!error.message().is_empty());
            assert!(error.to_string().contains(&input.name), "{path}: the error does not name the file: {error}");
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), oracle.len(), wrong.join("\n"));
    assert!(peak_mib() < 2048, "the process took {} MiB", peak_mib());
}

#[test]
fn json_texts_are_accepted_and_refused_as_the_grammar_says() {
    let Some(folder) = gristmill_testkit::conformance_dir("json") else { return };
    let mut wrong = Vec::new();
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let input = local(&folder, &name);
        let infer = block_on(async { tokio::time::timeout(PATIENCE, count(FileFormat::Json, &input)).await });
        // Reading must say the same without having inferred anything.
        let blind = scan(Arc::new(Schema::empty()));
        let read = block_on(reader(FileFormat::Json).read(input.clone(), blind).collect());
        let outcomes = [infer.expect("a hang").map(drop), read.map(drop)];
        for outcome in outcomes {
            let invalid = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Data);
            let readable = outcome.is_ok() || outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Schema);
            let right = match &name[..2] {
                "y_" => readable,
                "n_" => invalid,
                _ => readable || invalid,
            };
            if !right {
                wrong.push(format!("{name}: {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
