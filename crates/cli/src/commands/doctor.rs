//! `gristmill doctor`: looks whether this machine is ready to run the project.

use super::conn;
use crate::args::DoctorArgs;
use crate::context;
use crate::exit::{self, Outcome};
use crate::printer::{Printer, Tone};
use gristmill_model::{ByteSize, Error, Result};
use gristmill_orchestrator::Project;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Less free space than this is worth a warning: staging, spilling and dead letters all need some.
const LITTLE_SPACE: u64 = 1 << 30;

/// Less memory than this is worth a warning.
const LITTLE_MEMORY: u64 = 512 << 20;

/// How one of the looks turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One of the looks.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    seen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn new(what: &str, verdict: Verdict, seen: impl Into<String>, hint: Option<&str>) -> Self {
        Self { what: what.to_owned(), verdict, seen: seen.into(), hint: hint.map(str::to_owned) }
    }

    fn failed(what: &str, error: &Error) -> Self {
        let text = error.to_string();
        let seen = text.split("\n  hint: ").next().unwrap_or_default();
        Self::new(what, Verdict::Failed, seen, error.hint_text())
    }
}

/// Looks at everything and says what it saw.
pub(crate) async fn run(args: &DoctorArgs, printer: &Printer) -> Result<Outcome> {
    let project = context::load(&args.project.project, args.project.profile.as_deref()).await?;
    let looked_at = project.clone();
    let mut findings = tokio::task::spawn_blocking(move || machine(&looked_at))
        .await
        .map_err(|error| Error::internal("looking at the machine ended early").cause(error))?;
    for name in project.connections.keys() {
        findings.push(connection(&project, name.as_str()).await);
    }
    for finding in &findings {
        let mark = match finding.verdict {
            Verdict::Ok => printer.paint(Tone::Good, "ok     "),
            Verdict::Warning => printer.paint(Tone::Warning, "warning"),
            Verdict::Failed => printer.paint(Tone::Bad, "failed "),
        };
        printer.line(format!("{mark} {}: {}", finding.what, finding.seen))?;
        if let Some(hint) = &finding.hint {
            printer.line(format!("          {} {hint}", printer.paint(Tone::Good, "hint:")))?;
        }
    }
    printer.document(&findings)?;
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    Ok(if failed { Outcome::Ended(exit::FAILED) } else { Outcome::Done })
}

/// The looks that block: files, disk, memory, cores.
fn machine(project: &Arc<Project>) -> Vec<Finding> {
    let version = env!("CARGO_PKG_VERSION");
    let what = format!("{version} on {} {}", std::env::consts::OS, std::env::consts::ARCH);
    let mistakes = project.validate();
    let files = match mistakes.len() {
        0 => {
            Finding::new("project", Verdict::Ok, format!("`{}` in {}", project.spec.name, project.root.display()), None)
        }
        several => Finding::new(
            "project",
            Verdict::Failed,
            format!("{several} mistakes in its files"),
            Some("see them with `gristmill validate`"),
        ),
    };
    vec![
        Finding::new("gristmill", Verdict::Ok, what, None),
        files,
        state_folder(&project.state),
        disk(&project.state),
        memory(),
        cores(),
    ]
}

/// Whether a file can be made, synced and locked where the state goes.
fn state_folder(state: &Path) -> Finding {
    let try_out = || -> std::io::Result<()> {
        std::fs::create_dir_all(state)?;
        let path = state.join(format!("doctor-{}", std::process::id()));
        let outcome = std::fs::File::create_new(&path).and_then(|mut file| {
            file.write_all(b"?")?;
            file.sync_all()?;
            file.try_lock().map_err(std::io::Error::from)
        });
        std::fs::remove_file(&path)?;
        outcome
    };
    match try_out() {
        Ok(()) => {
            Finding::new("state folder", Verdict::Ok, format!("{} can be written and locked", state.display()), None)
        }
        Err(error) => Finding::failed("state folder", &Error::io(&error, format!("`{}`", state.display()))),
    }
}

fn disk(state: &Path) -> Finding {
    // The folder may not be there yet; its nearest ancestor is on the same disk, usually.
    let there: PathBuf = state.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned();
    match rustix::fs::statvfs(&there) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let seen = format!("{} free at {}", ByteSize(free), there.display());
            if free < LITTLE_SPACE {
                let hint = "free some space: staging, spilling and dead letters need it";
                return Finding::new("disk", Verdict::Warning, seen, Some(hint));
            }
            Finding::new("disk", Verdict::Ok, seen, None)
        }
        Err(error) => Finding::failed("disk", &Error::io(&error.into(), format!("`{}`", there.display()))),
    }
}

fn memory() -> Finding {
    let limit = crate::local_engine::memory_limit();
    let seen = format!("{} for a run, unless `--memory` or `defaults: {{memory: …}}` says otherwise", ByteSize(limit));
    if limit < LITTLE_MEMORY {
        let hint = "a run may have to spill to disk early; give the container more memory";
        return Finding::new("memory", Verdict::Warning, seen, Some(hint));
    }
    Finding::new("memory", Verdict::Ok, seen, None)
}

fn cores() -> Finding {
    match std::thread::available_parallelism() {
        Ok(cores) => Finding::new("cores", Verdict::Ok, cores.to_string(), None),
        Err(error) => Finding::failed("cores", &Error::io(&error, "the number of cores")),
    }
}

async fn connection(project: &Project, name: &str) -> Finding {
    let what = format!("connection {name}");
    match conn::test_one(project, name).await {
        Ok(conn::Tested { result: Ok(info), millis, kind, .. }) => Finding::new(
            &what,
            Verdict::Ok,
            format!("{kind}, {} ({})", info.server, crate::printer::time(millis)),
            None,
        ),
        Ok(conn::Tested { result: Err(error), .. }) | Err(error) => Finding::failed(&what, &error),
    }
}
