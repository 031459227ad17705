//! An S3-like store in trouble: each request of a load answered with an error, slowly, half, or not at all.

use super::cells::{Cell, Kind, cell};
use super::process::{Ran, run};
use super::{Bed, NEW, RECOVER};
use crate::chance::Chance;
use crate::driver::{Ended, Outcome};
use gristmill_testkit::http::{Fault, FaultyProxy, Passing};
use gristmill_testkit::postgres::PostgresServer;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CELLS: &[Cell] = &[
    cell(Kind::S3Folder("parquet"), "append", ""),
    cell(Kind::S3Folder("csv"), "partition_overwrite", ", partition_by: [day]"),
    cell(Kind::S3Folder("ndjson"), "partition_overwrite", ", partition_by: [day], readable_staging: true"),
    cell(Kind::S3File("parquet"), "replace", ""),
];

const TROUBLES: &[(&str, Fault)] = &[
    ("500 Internal Server Error", Fault::Status(500)),
    ("503 Slow Down", Fault::Status(503)),
    ("reset before it is asked", Fault::Hangup),
    ("done, and the answer lost", Fault::Lose),
    ("answer cut", Fault::Cut(20)),
    ("request cut", Fault::CutRequest(20)),
    ("slow", Fault::Late(Duration::from_millis(300))),
];

/// Loads through a proxy that is told what to do with which request; how the run ended, and how many requests there were.
fn through(
    bed: &Bed<'_>,
    yard: &super::Yard<'_>,
    mut tell: impl FnMut(&Passing, u64) -> Option<Fault> + Send + 'static,
) -> Result<(Ran, u64), String> {
    let count = Arc::new(AtomicU64::new(0));
    let counting = count.clone();
    let endpoint = &yard.store.as_ref().ok_or("no store")?.endpoint;
    let proxy = FaultyProxy::start(endpoint, move |passing| tell(passing, counting.fetch_add(1, Ordering::SeqCst)));
    let proxy = proxy.map_err(|error| format!("{}: {error}", bed.yard.cell))?;
    yard.connect(Some(&proxy.endpoint));
    let ran = run(&yard.folder, &NEW, "");
    yard.connect(None);
    Ok((ran?, count.load(Ordering::SeqCst)))
}

/// Whether a request is to complete an upload, or opens one.
fn of_upload(passing: &Passing, query: &str) -> bool {
    passing.method == "POST" && passing.path.contains(query)
}

#[test]
fn a_load_to_a_store_in_trouble_is_whole_or_refused_and_leaves_nothing() {
    let server = PostgresServer::start().unwrap();
    let cases = crate::number("GRISTMILL_FAULTS_RUNS").map_or(2, |runs| runs / 20 + 2);
    let seed = crate::number("GRISTMILL_FAULTS_SEED").unwrap_or(1);
    let mut outcome = Outcome::new(seed);
    for (number, cell) in CELLS.iter().enumerate() {
        let bed = Bed::new(*cell, &server);
        let (ran, requests) = through(&bed, &bed.yard.copied(), |_, _| None).unwrap();
        ran.must_be_done("a run through the proxy").unwrap();
        assert!(requests > 5, "{requests} requests");
        for (trouble, fault) in TROUBLES {
            for case in 0..cases {
                let mut chance = Chance::new(seed + number as u64, (case << 16) + trouble.len() as u64);
                let at = chance.number(0, requests);
                let yard = bed.yard.copied();
                let (ran, _) = through(&bed, &yard, move |_, now| (now == at).then_some(*fault)).unwrap();
                let done = ran.must_be_done("the run").and_then(|()| bed.is_new(&yard.rows()?));
                // Where the answer that opens an upload is lost, nobody knows of it.
                let done = done.and_then(|()| match yard.leftovers(1) {
                    left if left.is_empty() => Ok(Ended::Whole),
                    left => Err(format!("left behind: {left:#?}")),
                });
                let ended = done.unwrap_or_else(|problem| {
                    outcome.problem(format!("{cell}: {trouble} at request {at}: {problem}\n{}", ran.text));
                    Ended::Wrong
                });
                outcome.add(format!("S3, one request: {trouble}"), ended);
            }
        }
    }
    eprintln!("{outcome}");
    assert_eq!(outcome.wrong(), 0, "{outcome}");
}

#[test]
fn an_upload_that_was_completed_and_whose_answer_was_lost_is_not_completed_twice() {
    let server = PostgresServer::start().unwrap();
    for cell in CELLS {
        let bed = Bed::new(*cell, &server);
        let yard = bed.yard.copied();
        let lost = Arc::new(Mutex::new(Vec::new()));
        let seen = lost.clone();
        // The answer to the first completion of each upload is lost; what is asked then is answered.
        let tell = move |passing: &Passing, _: u64| {
            let mut lost = seen.lock().unwrap();
            let lose = of_upload(passing, "uploadId=") && !lost.contains(&passing.path);
            lose.then(|| lost.push(passing.path.clone())).map(|()| Fault::Lose)
        };
        let (ran, _) = through(&bed, &yard, tell).unwrap();
        ran.must_be_done("the run").unwrap();
        bed.is_new(&yard.rows().unwrap()).unwrap();
        assert!(!lost.lock().unwrap().is_empty(), "{cell}");
        assert_eq!(yard.leftovers(0), Vec::<String>::new(), "{cell}");
    }
}

#[test]
fn a_store_that_goes_away_in_the_middle_is_recovered_when_it_is_back() {
    let server = PostgresServer::start().unwrap();
    for (number, cell) in CELLS.iter().enumerate() {
        let bed = Bed::new(*cell, &server);
        let (_, requests) = through(&bed, &bed.yard.copied(), |_, _| None).unwrap();
        let mut chance = Chance::new(7, number as u64);
        for round in 0..3 {
            let yard = bed.yard.copied();
            let from = chance.number(requests * round / 3, requests * (round + 1) / 3);
            // A refusal is not tried again for long, unlike a server in trouble.
            let (ran, _) = through(&bed, &yard, move |_, now| (now >= from).then_some(Fault::Status(403))).unwrap();
            if ran.code == Some(0) {
                // Only the last of the sweeping was refused.
                bed.is_new(&yard.rows().unwrap()).unwrap();
            } else {
                ran.must_be_refused(&["refused", "trouble", "cannot"]).unwrap();
            }
            let recovered = run(&yard.folder, &RECOVER, "").unwrap();
            recovered.must_be_done("the recovery").unwrap();
            let told = format!("{cell}, from request {from} of {requests}\n{}\nthen\n{}", ran.text, recovered.text);
            bed.is_old_or_new(&yard.rows().unwrap()).map_err(|problem| format!("{problem}\n{told}")).unwrap();
            run(&yard.folder, &NEW, "").unwrap().must_be_done("the run after all").unwrap();
            bed.is_new(&yard.rows().unwrap()).map_err(|problem| format!("{problem}\n{told}")).unwrap();
            // Each of two writers may have opened an upload and then been refused to note it, and to abort it.
            assert_eq!(yard.leftovers(2), Vec::<String>::new(), "{told}");
        }
    }
}
