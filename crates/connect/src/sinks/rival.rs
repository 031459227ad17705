//! Two runs with the same load: two checkouts of one project, say, that both load Monday into one warehouse.

use gristmill_model::{Checkpoint, Error, ErrorKind, LoadKey, OwnerId, Result, Staged};

/// Refuses to take another owner's load for one's own: rows that were staged here are not the ones the target holds.
/// `entered` is whose load the target knows under `key`. A run that finishes what another has staged has a part in it,
/// and one without rows of its own loses none.
///
/// # Errors
/// [`ErrorKind::Conflict`].
pub(crate) fn stop_if_of_another(key: &LoadKey, entered: &OwnerId, owner: &OwnerId, staged: &[Staged]) -> Result<()> {
    let takes_part = *entered == *owner || staged.iter().any(|staged| staged.task.owner == *entered);
    if takes_part || staged.iter().all(|staged| staged.rows == 0) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("the load `{key}` was committed by the run `{}` while this run was staging it", entered.0),
    )
    .hint("two projects load the same slot of one target: give each its own target, or run it from one place only"))
}

/// Refuses to write a checkpoint that does not follow the target's `newest` one: another run has read from the same
/// cursor in the meantime, and its rows are among those staged here. Loads without a cursor have nothing to say.
///
/// # Errors
/// [`ErrorKind::Conflict`].
pub(crate) fn stop_unless_next(key: &LoadKey, next: &Checkpoint, newest: Option<&Checkpoint>) -> Result<()> {
    let newest = newest.map_or(0, |newest| newest.sequence);
    if next.sequence == 0 || Some(next.sequence) == newest.checked_add(1) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!("another run has moved the cursor of `{}` while `{key}` was being staged", key.slot.target),
    )
    .cause("both have read the same new rows")
    .hint("run again: what is left to read begins where the other ended"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::{Interval, RunId, Slot, TaskKey};

    #[test]
    fn another_owners_load_is_not_taken_for_ones_own() {
        let interval = Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap_or_default());
        let slot = Slot { pipeline: "p".into(), step: "s".into(), interval, target: "t:t".to_owned() };
        let key = LoadKey { slot, generation: 1 };
        let owner = |name: &str| OwnerId(RunId::new(name));
        let staged = |by: &str, rows: u64| {
            let task = TaskKey { load: key.clone(), owner: owner(by), partition: 0, attempt: 0 };
            vec![Staged { task, rows, bytes: 0, files: Vec::new(), payload: serde_json::Value::Null }]
        };
        let verdict = |entered: &str, me: &str, staged: &[Staged]| {
            stop_if_of_another(&key, &owner(entered), &owner(me), staged).map_err(|error| error.kind())
        };
        assert_eq!(verdict("a", "a", &staged("a", 3)), Ok(()));
        assert_eq!(verdict("a", "b", &staged("a", 3)), Ok(()), "somebody finishes what the dead had staged");
        assert_eq!(verdict("a", "b", &staged("b", 0)), Ok(()), "nothing is lost");
        assert_eq!(verdict("a", "b", &[]), Ok(()));
        assert_eq!(verdict("a", "b", &staged("b", 3)), Err(ErrorKind::Conflict));
    }
}
