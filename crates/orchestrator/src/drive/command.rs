//! `command` steps: a shell command in the project's folder.

use gristmill_model::spec::CommandSpec;
use gristmill_model::{CancellationToken, Error, ErrorKind, EventSink, Result, RunEvent, StepName, TemplateContext};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// The longest line that is passed on whole; a longer one comes in pieces.
const LINE: usize = 8 * 1024;
/// How many of the last lines an error shows.
const LAST_LINES: usize = 10;
/// How long a command may take to end after it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait for output after the command has ended: something it left in the background may hold the pipe.
const DRAIN: Duration = Duration::from_secs(1);

/// A command and what it runs in.
#[derive(Debug, Clone)]
pub(super) struct CommandJob {
    pub(super) step: StepName,
    pub(super) spec: CommandSpec,
    pub(super) folder: PathBuf,
    /// What `.env` adds where the real environment says nothing.
    pub(super) dotenv: BTreeMap<String, String>,
    pub(super) context: TemplateContext,
}

/// Runs a command by `sh -c` and waits for its end. Its output goes out line by line as notes.
///
/// Its environment is that of this process, then `.env`, then `GRISTMILL_DS`, `GRISTMILL_RUN_ID` and the other values
/// of the run by their template names in capitals, `GRISTMILL_PARAM_X` for each parameter, then the step's `env:`. It
/// gets a process group of its own, so that everything it started ends with it when it is stopped.
///
/// # Errors
/// [`ErrorKind::Command`] with its last lines when it ends with a status other than 0, [`ErrorKind::Canceled`] when it
/// was stopped.
pub(super) async fn run(job: CommandJob, events: EventSink, cancel: CancellationToken) -> Result<()> {
    let step = job.step.clone();
    let mut child = spawn(&job)?;
    let group = Group::of(&child);
    let last: Arc<Mutex<VecDeque<String>>> = Arc::default();
    let tell = |line: String| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.clone());
        events.send(RunEvent::Note { step: Some(step.clone()), text: line });
    };
    let output = futures::future::join(lines(child.stdout.take(), &tell), lines(child.stderr.take(), &tell));
    let mut output = std::pin::pin!(output);
    let mut read_all = false;
    let ended = loop {
        tokio::select! {
            status = child.wait() => break Some(status),
            _ = &mut output, if !read_all => read_all = true,
            () = cancel.cancelled() => break None,
        }
    };
    let Some(status) = ended else {
        group.stop(&mut child, &mut output, read_all).await;
        return Err(Error::new(ErrorKind::Canceled, format!("the command of `{step}` was stopped")));
    };
    if !read_all {
        let _ = tokio::time::timeout(DRAIN, &mut output).await;
    }
    group.leave();
    let status = status.map_err(|error| Error::io(&error, format!("the command of `{step}`")))?;
    if status.success() {
        return Ok(());
    }
    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let mut message = format!("the command of `{step}` ended with {}", told(status));
    if !last.is_empty() {
        message.push_str("; its last lines:");
        for line in last.iter() {
            message.push_str("\n  ");
            message.push_str(line);
        }
    }
    Err(Error::new(ErrorKind::Command, message))
}

fn spawn(job: &CommandJob) -> Result<Child> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(&job.spec.run).current_dir(&job.folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for (name, value) in &job.dotenv {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    for (name, value) in job.context.values() {
        command.env(format!("GRISTMILL_{}", name.to_uppercase()), value);
    }
    for (name, value) in job.context.params() {
        command.env(format!("GRISTMILL_PARAM_{}", name.to_uppercase()), value);
    }
    command.envs(&job.spec.env);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().map_err(|error| {
        let error = Error::io(&error, "`sh`");
        error.context(format!("the command of `{}` cannot be started", job.step))
    })
}

fn told(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| "an unknown status".to_owned(), |code| format!("status {code}"))
}

/// Passes output on line by line. Bytes that are not UTF-8 are shown as `�`.
async fn lines(output: Option<impl AsyncRead + Unpin>, tell: &(impl Fn(String) + Sync)) {
    let Some(output) = output else { return };
    let mut output = BufReader::new(output);
    let mut line: Vec<u8> = Vec::new();
    let send = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
        line.clear();
        tell(text);
    };
    loop {
        let (used, ended) = match output.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let room = LINE.saturating_sub(line.len()).max(1);
                let seen = &bytes[..bytes.len().min(room)];
                match seen.iter().position(|byte| *byte == b'\n') {
                    Some(at) => {
                        line.extend_from_slice(&seen[..at]);
                        (at + 1, true)
                    }
                    None => {
                        line.extend_from_slice(seen);
                        (seen.len(), line.len() >= LINE)
                    }
                }
            }
        };
        output.consume(used);
        if ended {
            send(&mut line);
        }
    }
    if !line.is_empty() {
        send(&mut line);
    }
}

/// The process group of a command; killed when it is dropped before [`Group::leave`].
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        #[cfg(not(unix))]
        let _ = child;
        Self {
            #[cfg(unix)]
            leader: child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw),
        }
    }

    /// Asks the group to end, and kills it when it does not. Output is read meanwhile, so that nobody hangs on a pipe.
    async fn stop(self, child: &mut Child, output: &mut (impl Future + Unpin), mut read_all: bool) {
        #[cfg(unix)]
        if let Some(leader) = self.leader {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::TERM);
        }
        let alarm = tokio::time::sleep(GRACE);
        let mut alarm = std::pin::pin!(alarm);
        loop {
            tokio::select! {
                _ = child.wait() => break,
                _ = &mut *output, if !read_all => read_all = true,
                () = &mut alarm => break,
            }
        }
        let _ = child.start_kill();
        // Dropping `self` kills whatever of the group is left.
    }

    /// The command has ended by itself: what it left running on purpose may go on.
    fn leave(self) {
        #[cfg(unix)]
        {
            let mut group = self;
            group.leader = None;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(leader) = self.leader {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}
