//! Whether what was refused may be loaded after all: only into targets that lack it, and nothing but it.

use super::{Driver, slot};
use crate::dag::{Dag, Later, Replay, later};
use gristmill_model::spec::{PipelineSpec, StepBody};
use gristmill_model::yaml::to_error;
use gristmill_model::{Error, ErrorKind, Interval, Result, RunId, Slot, StepName};

impl Driver {
    /// Looks, for each load that a replay adds rows to, whether it is the one that the rows were refused for: a load that was
    /// made again has read them again.
    ///
    /// # Errors
    /// A load that has not been committed, has been made again since, or whose target another date has replaced.
    pub(super) async fn may_be_replayed(&self, replay: &Replay, spec: &PipelineSpec, interval: Interval) -> Result<()> {
        let run = &replay.origin.run;
        if self.store.run(run).await?.is_none() {
            // The history is lost; the targets' ledgers still keep a replay from being done twice.
            return Ok(());
        }
        let dag = Dag::new(spec).map_err(|mistakes| to_error(&mistakes))?;
        for name in replay.targets(spec)? {
            let Some(StepBody::Load(load)) = spec.step(name.as_str()).map(|step| &step.body) else { continue };
            let own = slot(spec, &name, load, interval);
            let noted = replay.loads.iter().map(|(noted, _)| noted);
            for noted in noted.filter(|noted| noted.replay().map_or(*noted == &name, |(load, _)| load == name)) {
                self.must_be_committed(&Slot { step: noted.clone(), ..own.clone() }, run).await?;
            }
            let is_incremental = !dag.cursors(spec, name.as_str()).is_empty();
            if !is_incremental && let Some(newer) = self.newest(&own).await?.filter(|newest| newest > run) {
                return Err(refused(&name, &format!("run `{newer}` has loaded that date again since"), run));
            }
            let newest = self.store.newest(&own, self.project.spec.profile.as_deref()).await?;
            let Some(newest) = newest.filter(|newest| newest.run > *run) else { continue };
            let since = format!("run `{}` for {}", newest.run, newest.key.slot.interval);
            match later(load) {
                Later::Nothing => {}
                Later::MayBeNewer if replay.over_newer => {}
                Later::Replaced => {
                    let why = format!("{since} has replaced everything in its target since");
                    return Err(refused(&name, &why, run));
                }
                Later::MayBeNewer => {
                    let why = format!("{since} may have loaded newer versions of these rows since");
                    return Err(refused(&name, &why, run).hint(
                        "run the pipeline for that date if it may, or say `--over-newer`: these rows then win by their key",
                    ));
                }
                Later::MayBeDoubled => {
                    let why =
                        format!("{since} may have loaded rows in the place of these since, and both would stand there");
                    return Err(refused(&name, &why, run));
                }
            }
        }
        Ok(())
    }

    async fn must_be_committed(&self, slot: &Slot, run: &RunId) -> Result<()> {
        let loads = self.store.loads(slot).await?;
        if loads.iter().any(|load| load.run == *run && load.committed.is_some()) {
            return Ok(());
        }
        Err(refused(&slot.step, "it was not committed in that run", run))
    }

    /// The last run that has committed a load of the slot, under the project's profile.
    async fn newest(&self, slot: &Slot) -> Result<Option<RunId>> {
        let loads = self.store.loads(slot).await?;
        let own =
            loads.into_iter().filter(|load| load.profile == self.project.spec.profile && load.committed.is_some());
        // Ids of runs are ordered by time.
        Ok(own.map(|load| load.run).max())
    }
}

fn refused(load: &StepName, why: &str, run: &RunId) -> Error {
    Error::new(ErrorKind::Conflict, format!("what run `{run}` refused cannot be added by `{load}`: {why}"))
        .hint("run the pipeline for that date, or name the loads to replay into with `--load`")
}
