//! Runs that are killed or stopped: what readers see is the old answer or the new one, and the next run ends as if
//! nothing had happened.

use crate::oracle::{self, Answer};
use crate::sales::{expected, metrics, project};
use crate::support::Folder;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const DAY: &str = "2024-01-15";
const RUN: [&str; 4] = ["run", ".", "--date", DAY];

/// Takes some orders of the day out of the source, so that the next run has another answer.
fn change(folder: &Folder, round: usize) {
    let database = rusqlite::Connection::open(folder.path().join("data/sales.db")).unwrap();
    database.execute("delete from orders where date = ? and order_id / 30 % 40 = ?", (DAY, round as i64)).unwrap();
}

fn lake(folder: &Folder) -> oracle::Enriched {
    oracle::enriched(&folder.path().join(format!("lake/enriched_orders/date={DAY}")))
}

/// That lake and warehouse each hold all of one answer; says which.
#[track_caller]
fn whole(folder: &Folder, old: &Answer, new: &Answer, when: &str) -> (bool, bool) {
    let (rows, figures) = (lake(folder), metrics(&folder.path().join("data/warehouse.db"), DAY));
    assert!(rows == old.enriched || rows == new.enriched, "{when}: {} rows are neither old nor new", rows.len());
    assert!(figures == old.metrics || figures == new.metrics, "{when}: the figures are neither old nor new");
    (rows == new.enriched, figures == new.metrics)
}

/// Everything below, hidden files too, but for what the target keeps on purpose: its log and its lock.
fn hidden(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "log" {
                hidden(&path, found);
            }
        } else if name != "lock" && !name.starts_with("part-") {
            found.push(path);
        }
    }
}

fn staged(folder: &Folder) -> Vec<PathBuf> {
    let mut found = Vec::new();
    hidden(&folder.path().join("lake/enriched_orders"), &mut found);
    found
}

/// When to strike: so long after a sign that can be seen from outside.
struct Moment(Sign, Duration);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sign {
    /// The process has begun.
    Begun,
    /// Something is staged in the lake.
    Staged,
    /// The lake's log has one more entry: it is decided, and perhaps not yet published.
    Logged,
    /// The partition lists other files.
    Published,
    /// SQLite is writing the warehouse.
    Journal,
}

const fn after(sign: Sign, millis: u64) -> Moment {
    Moment(sign, Duration::from_millis(millis))
}

fn listed(folder: &Folder) -> Vec<String> {
    let mut found = Vec::new();
    crate::support::walk(&folder.path().join("lake/enriched_orders"), &mut found);
    found.iter().map(|path| path.display().to_string()).collect()
}

fn log_entries(folder: &Folder) -> usize {
    std::fs::read_dir(folder.path().join("lake/enriched_orders/_gristmill/log")).unwrap().count()
}

/// Starts a run and strikes with the signal; gives the exit code, if it had one.
fn strike(folder: &Folder, Moment(sign, delay): &Moment, signal: &str) -> Option<i32> {
    let (entries, mut files) = (log_entries(folder), listed(folder));
    files.sort();
    let mut child = folder.command(&RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let data = folder.path().join("data");
    let journal = || ["-journal", "-wal"].iter().any(|end| data.join(format!("warehouse.db{end}")).exists());
    while child.try_wait().unwrap().is_none() {
        let seen = match sign {
            Sign::Begun => true,
            Sign::Staged => !staged(folder).is_empty(),
            Sign::Logged => log_entries(folder) > entries,
            Sign::Published => {
                let mut now = listed(folder);
                now.sort();
                now != files
            }
            Sign::Journal => journal(),
        };
        if seen {
            std::thread::sleep(*delay);
            break;
        }
        std::thread::yield_now();
    }
    // It may have ended just now.
    let _sent = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
    child.wait().unwrap().code()
}

#[test]
fn a_killed_run_leaves_the_old_answer_or_the_new_and_the_next_run_makes_it_good() {
    let folder = project();
    let mut old = expected(&folder, DAY);
    let moments = [
        after(Sign::Begun, 30),
        after(Sign::Staged, 0),
        after(Sign::Staged, 400),
        after(Sign::Logged, 0),
        after(Sign::Logged, 2),
        after(Sign::Published, 0),
        after(Sign::Published, 5),
        after(Sign::Journal, 0),
    ];
    for (round, moment) in moments.iter().enumerate() {
        change(&folder, round);
        let new = expected(&folder, DAY);
        let ended = strike(&folder, moment, "-KILL");
        let when = format!("killed {:?} after {:?}, exit {ended:?}", moment.1, moment.0);
        let seen = whole(&folder, &old, &new, &when);
        eprintln!("{when}: new in the lake {}, new in the warehouse {}", seen.0, seen.1);
        if round % 2 == 0 {
            let said = folder.ok(&["recover"]);
            eprintln!("{said}");
            // One that was through with both loads may have recorded its success, too.
            assert!(said.contains("had died") || seen == (true, true) || round == 0, "{when}: {said}");
            whole(&folder, &old, &new, &format!("{when}, recovered"));
            assert_eq!(folder.ok(&["recover"]).trim(), "nothing to recover", "{when}");
        }
        folder.ok(&RUN);
        assert_eq!(whole(&folder, &new, &new, &format!("{when}, run again")), (true, true));
        assert_eq!(staged(&folder), Vec::<PathBuf>::new(), "{when}");
        old = new;
    }
}

#[test]
fn control_c_ends_with_130_and_leaves_nothing_staged() {
    let folder = project();
    let mut old = expected(&folder, DAY);
    let moments = [after(Sign::Begun, 300), after(Sign::Staged, 0), after(Sign::Logged, 0)];
    for (round, moment) in moments.iter().enumerate() {
        change(&folder, 20 + round);
        let new = expected(&folder, DAY);
        let code = strike(&folder, moment, "-INT");
        let when = format!("round {round}, exit {code:?}");
        let (in_lake, in_warehouse) = whole(&folder, &old, &new, &when);
        assert!(code == Some(130) || (in_lake && in_warehouse), "{when}");
        assert_eq!(staged(&folder), Vec::<PathBuf>::new(), "{when}");
        if code == Some(130) {
            let last = folder.run(&["show", "last"]);
            assert!(last.out.contains("canceled"), "{last}");
        }
        folder.ok(&RUN);
        whole(&folder, &new, &new, &when);
        old = new;
    }
}
