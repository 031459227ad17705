//! The table `staged` of `gristmill sql --staged RUN.STEP`: rows that a load had staged when a check failed.

use crate::context;
use gristmill_model::spec::{Step, StepBody};
use gristmill_model::yaml::{Node, parse, to_error};
use gristmill_model::{ConnectionName, Error, ErrorKind, KeptLoad, Result, StepKind, one_of};
use gristmill_orchestrator::store::{RunRecord, StepRecord, find_run};
use gristmill_orchestrator::{Project, RunState, Store};

/// What the table is called.
const NAME: &str = "staged";

/// A step that reads the rows, and the connection that it reads them from where that is not one of the project's.
pub(super) struct Staged {
    pub(super) step: Step,
    pub(super) connection: Option<(ConnectionName, Node)>,
}

/// Finds what is kept of a load, `RUN.STEP`.
///
/// # Errors
/// No such run or load; nothing is kept of it, and why.
pub(super) async fn find(text: &str, project: &Project) -> Result<Staged> {
    let Some((run, step)) = text.split_once('.') else {
        return Err(Error::new(ErrorKind::Usage, format!("`{text}` names no step"))
            .hint("give the run and its load: `--staged last.load_orders`"));
    };
    let Some(store) = context::existing_store(project).await? else {
        return Err(Error::new(ErrorKind::NotFound, "there are no runs yet").hint("begin one with `gristmill run`"));
    };
    let run = find_run(store.as_ref(), run).await?;
    if run.profile != project.spec.profile {
        let profile =
            run.profile.as_deref().map_or_else(|| "no profile".to_owned(), |name| format!("profile `{name}`"));
        let flag = run.profile.as_deref().map_or_else(
            || "leave `--profile` (and GRISTMILL_PROFILE) out".to_owned(),
            |name| format!("give `--profile {name}`"),
        );
        return Err(Error::new(ErrorKind::Usage, format!("run `{}` was under {profile}", run.id)).hint(flag));
    }
    let loads = store.unfinished(Some(&run.id)).await?;
    let kept = loads.into_iter().filter_map(|load| load.kept).find(|kept| kept.step.as_str() == step);
    match kept {
        Some(kept) => open(*kept).await,
        None => Err(why_not(&run, &store.steps(&run.id).await?, step)),
    }
}

/// Why nothing is kept of a step.
fn why_not(run: &RunRecord, steps: &[StepRecord], step: &str) -> Error {
    let loads = || steps.iter().filter(|step| step.kind == StepKind::Load).map(|step| step.step.as_str());
    let Some(record) = steps.iter().find(|record| record.step.as_str() == step) else {
        return Error::new(ErrorKind::NotFound, format!("run `{}` has no step `{step}`", run.id))
            .hint(one_of(step, loads()));
    };
    if record.kind != StepKind::Load {
        let error = Error::new(
            ErrorKind::Usage,
            format!("`{step}` is of kind `{}`, and only loads stage rows", record.kind.as_str()),
        );
        return error.hint(one_of("", loads()));
    }
    if record.report.as_ref().is_some_and(|report| report.load.is_some()) {
        return Error::new(ErrorKind::NotFound, format!("`{step}` of run `{}` was published", run.id))
            .hint("its rows are in its target");
    }
    if run.state == RunState::Running {
        return Error::new(ErrorKind::Conflict, format!("run `{}` goes on", run.id)).hint("wait for its end");
    }
    Error::new(ErrorKind::NotFound, format!("nothing is kept of what `{step}` of run `{}` staged", run.id)).hint(
        "rows are kept where a check fails after they were staged, until the next run of the pipeline or `gristmill recover`; \
         in an object store they cannot be read before they are published",
    )
}

async fn open(kept: KeptLoad) -> Result<Staged> {
    let mut extract = kept.rows.extract;
    let connection = match kept.rows.folder {
        None => None,
        Some(folder) => {
            if tokio::fs::metadata(&folder).await.is_err() {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("what `{}` staged is gone: `{folder}`", kept.step),
                )
                .hint("a recovery, or somebody else, has thrown it away; run the pipeline again"));
            }
            let name = ConnectionName::from("_staged");
            extract.from = name.clone();
            let keys = serde_json::json!({"type": "files", "url": folder}).to_string();
            Some((name, parse("<staged>", &keys).map_err(|mistakes| to_error(&mistakes))?))
        }
    };
    Ok(Staged { step: Step::new(NAME.into(), StepBody::Extract(extract)), connection })
}
