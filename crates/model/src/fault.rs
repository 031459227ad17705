//! Points that a load passes on its way, at which tests let it go wrong.
//!
//! Each step that leaves something behind (a staged file, a log entry, a row of a ledger, a line in the store) says where
//! it is: [`at`]. In a build with debug assertions a [`Plan`] may be installed that fails, delays or kills there; a release
//! has neither the plan nor the call, so nobody can set one by accident. What a plan says, and how it kills, is the
//! command line's; here are only the names, in one list for code, campaign and docs (docs/reliability.md).

use crate::Result;
use std::io;

macro_rules! points {
    ($($(#[doc = $about:literal])+ $point:ident = $name:literal,)+) => {
        /// A point that a load passes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point {
            $($(#[doc = $about])+ $point,)+
        }

        impl Point {
            /// All of them, in the order in which a load passes them.
            pub const ALL: &'static [Self] = &[$(Self::$point,)+];

            /// Its name in plans and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }

            /// Where it is.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$point => concat!($($about,)+),)+
                }
            }
        }
    };
}

points! {
    /// Something is about to be written to the store of runs.
    BeforeState = "before state write",
    /// It is written, and its transaction is open.
    DuringState = "during state write",
    /// It is in the store.
    AfterState = "after state write",
    /// Whether a target can be written is being tried.
    DuringProbe = "during probe",
    /// A writer is about to stage its first row.
    BeforeStage = "before stage",
    /// Whose the staged rows will be is about to be noted: a file, a note of an upload, a labelled table.
    BeforeIntent = "before intent",
    /// It is noted, and nothing is staged yet.
    AfterIntent = "after intent",
    /// A batch of rows goes to a writer.
    DuringStage = "during stage",
    /// Bytes go to a staged file.
    StagedBytes = "staged bytes",
    /// A writer has staged all of its rows.
    AfterStage = "after stage",
    /// All rows of a job are staged; the checks have not been judged.
    BeforeAudit = "before audit",
    /// The checks have passed; refused rows are about to be made durable.
    DuringAudit = "during audit",
    /// The job may be committed.
    AfterAudit = "after audit",
    /// The commit of a load begins.
    BeforeCommit = "before commit",
    /// The entry that decides a load is about to be written to a target's log.
    BeforeLog = "before log entry",
    /// Bytes of a log entry, of its mark, or of a note in a staging folder are being written.
    LogBytes = "log bytes",
    /// It is there: the load is committed.
    AfterLog = "after log entry",
    /// A file, or a partition, is about to be published.
    BeforePublish = "before publish",
    /// New files are gathered beside the old ones, or have just changed places with them.
    DuringPublish = "during publish",
    /// It is published.
    AfterPublish = "after publish",
    /// Old files or rows are about to be removed.
    BeforeDelete = "before delete",
    /// Some, or all, of them are gone.
    AfterDelete = "after delete",
    /// The log entry is about to be marked as done.
    BeforeMark = "before mark",
    /// It is marked.
    AfterMark = "after mark",
    /// The load is about to be entered into a database's ledger.
    BeforeLedger = "before ledger write",
    /// It is entered, and its transaction is open.
    DuringLedger = "during ledger write",
    /// New rows are in the table, and the transaction is open.
    AfterInsert = "after insert",
    /// The transaction is committed.
    AfterLedger = "after ledger write",
    /// What is left in the staging place is about to be swept.
    BeforeSweep = "before sweep",
    /// It is swept.
    AfterSweep = "after sweep",
    /// A recovery has found a dead owner's load that was not committed, and is about to give it up.
    BeforeGiveUp = "before give up",
    /// A recovery has done with the targets of a dead run, and is about to record that.
    BeforeForget = "before forget",
}

/// What happens at points.
pub trait Plan: Send + Sync {
    /// A point is passed. May delay, may not come back.
    ///
    /// # Errors
    /// What the plan says.
    fn at(&self, point: Point) -> Result<()>;

    /// Bytes are about to be written: whether only the first half of them is to be.
    ///
    /// # Errors
    /// What the plan says.
    fn tears(&self, point: Point) -> Result<bool>;

    /// Ends the process the hard way.
    fn kill(&self) -> !;
}

#[cfg(debug_assertions)]
static PLAN: std::sync::OnceLock<Box<dyn Plan>> = std::sync::OnceLock::new();

/// Lets a plan decide what happens at points, for the rest of the process; the first one stays.
#[cfg(debug_assertions)]
pub fn install(plan: Box<dyn Plan>) {
    // A second one could only come from a mistake in a test.
    let _ = PLAN.set(plan);
}

/// Says that a point is passed. Nothing in a release.
///
/// # Errors
/// Those of the plan.
#[inline]
pub fn at(point: Point) -> Result<()> {
    #[cfg(debug_assertions)]
    if let Some(plan) = PLAN.get() {
        return plan.at(point);
    }
    let _ = point;
    Ok(())
}

/// Writes bytes, and says so; a plan may tear them, and the process with it. In a release it only writes.
///
/// # Errors
/// Those of `write`, and of the plan.
#[inline]
pub fn tearing(point: Point, bytes: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    #[cfg(debug_assertions)]
    if let Some(plan) = PLAN.get()
        && plan.tears(point).map_err(io::Error::other)?
    {
        write(&bytes[..bytes.len() / 2])?;
        plan.kill();
    }
    let _ = point;
    write(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn points_have_names_of_their_own_that_a_plan_can_tell_apart() {
        let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        for point in Point::ALL {
            let fits = |c: char| c.is_ascii_lowercase() || c == ' ';
            assert!(point.name().chars().all(fits) && point.name() != "any", "{point:?}");
            assert!(point.about().trim().ends_with('.'), "{point:?}");
        }
    }

    #[test]
    fn without_a_plan_nothing_happens() {
        assert_eq!(at(Point::AfterLog), Ok(()));
        let mut written = Vec::new();
        tearing(Point::LogBytes, b"whole", |bytes| {
            written.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        assert_eq!(written, b"whole");
    }
}
