//! What goes wrong, and when.

use crate::chance::Chance;
use std::fmt;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Nothing: the run that the others are compared with.
    None,
    /// The server ends one connection that reads.
    EndReader,
    /// It ends the connection that holds the snapshot.
    EndHolder,
    /// It ends all of ours.
    EndAll,
    /// `pg_ctl restart -m fast`.
    Restart,
    /// `pg_ctl restart -m immediate`: the server crashes.
    Crash,
    /// Ours is killed, and run again.
    Kill,
    /// A column comes, or goes, about when the read begins.
    Alter,
    /// Rows come, go and change all the time.
    Changes,
    /// The table is rewritten, and rows change.
    VacuumFull,
}

/// In the order of a campaign: what is most different comes first, so that few runs see much.
pub(crate) const FAULTS: &[Fault] = &[
    Fault::EndReader,
    Fault::Crash,
    Fault::Kill,
    Fault::Changes,
    Fault::Alter,
    Fault::EndHolder,
    Fault::VacuumFull,
    Fault::Restart,
    Fault::EndAll,
    Fault::None,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => crate::driver::NONE,
            Self::EndReader => "one reader ended",
            Self::EndHolder => "snapshot's holder ended",
            Self::EndAll => "all connections ended",
            Self::Restart => "server restarted",
            Self::Crash => "server crashed",
            Self::Kill => "gristmill killed",
            Self::Alter => "column added or dropped",
            Self::Changes => "rows changed meanwhile",
            Self::VacuumFull => "vacuum full",
        })
    }
}

/// When a fault strikes.
#[derive(Debug)]
pub(crate) enum Moment {
    /// Once a session of that name is there: the run has begun, or holds its snapshot.
    Session(&'static str),
    /// In the middle of a COPY, once so many others have been seen, and this one has sent so many rows.
    Copying { after: u64, rows: u64 },
}

impl Moment {
    pub(crate) fn random(chance: &mut Chance, fault: Fault, units: u64, target: u64) -> Self {
        if matches!(fault, Fault::Alter) && chance.is(2, 3) {
            return Self::Session(chance.one(&["gristmill", "gristmill snapshot"]));
        }
        // Rows that are in the sockets' buffers have been sent, too: the first few of a unit are soon gone.
        Self::Copying { after: chance.number(0, units * 2 / 3 + 1), rows: chance.number(0, target / 3 + 1) }
    }

    /// SQL that ends when the moment has come.
    pub(crate) fn wait(&self) -> String {
        let ours = "pg_stat_activity where datname = current_database() and application_name";
        let come = match self {
            Self::Session(name) => format!("exists (select from {ours} = '{name}')"),
            Self::Copying { after, rows } => format!(
                "cardinality(seen) > {after} and exists (select from {ours} = 'gristmill' and state = 'active' and pid in \
                 (select pid from pg_stat_progress_copy where tuples_processed >= {rows}))"
            ),
        };
        format!(
            "do $$ declare seen text[] = '{{}}'; begin loop perform pg_stat_clear_snapshot(); \
               seen = array(select query from {ours} = 'gristmill' and query like 'COPY (%' union select unnest(seen)); \
               exit when {come}; perform pg_sleep(0.003); \
               if clock_timestamp() > now() + interval '60 seconds' then raise 'the moment never came'; end if; \
             end loop; end $$;"
        )
    }
}

/// SQL that strikes, for faults that are done so.
pub(crate) fn strike(fault: Fault, chance: &mut Chance) -> Option<String> {
    let end = |which: &str| {
        format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and {which};"
        )
    };
    Some(match fault {
        Fault::EndReader => {
            let one = end("application_name = 'gristmill' and query like 'COPY (%' and state = 'active' limit 1");
            // Some are hit more than once.
            let pause = "select pg_sleep(0.1);";
            if chance.is(1, 2) { one } else { format!("{one} {pause} {one} {pause} {one}") }
        }
        Fault::EndHolder => end("application_name = 'gristmill snapshot'"),
        Fault::EndAll => end("application_name like 'gristmill%'"),
        Fault::Alter => {
            let what = if chance.is(1, 2) { "add x int default 5" } else { "drop w" };
            format!("alter table t {what};")
        }
        Fault::VacuumFull => "vacuum full t;".to_owned(),
        _ => return None,
    })
}
