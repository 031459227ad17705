//! Sessions that write: strict, and in turn.

use crate::sources::mysql::MysqlConfig;
use crate::sources::mysql::connect::{Failure, Session, server_error};
use crate::sources::mysql::names::literal;
use gristmill_model::{Error, ErrorKind, Result};
use mysql_async::consts::StatusFlags;

/// What the server is to refuse instead of changing it. `NO_AUTO_VALUE_ON_ZERO`: a zero is a zero, not the next number.
/// Nothing of what a server may have set otherwise stays: it would change what statements mean.
const STRICT: &str = "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
                      ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";
/// How long to wait for others who hold a table, in seconds, before a try is over.
const LOCK_WAIT: u32 = 60;
/// What a value is changed to with no more than a warning: out of range, cut, not of the type, not a date, too long.
const CHANGED: [&str; 6] = ["1264", "1265", "1292", "1366", "1406", "1411"];

/// What the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) is_mariadb: bool,
    version: (u32, u32, u32),
}

impl Server {
    pub(crate) fn new(is_mariadb: bool, version: &str) -> Self {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        Self { is_mariadb, version: (next(), next(), next()) }
    }

    pub(crate) fn of(session: &Session) -> Self {
        Self::new(session.is_mariadb, &session.version)
    }

    /// Character set and collation of new texts: two are equal if their bytes are, as in other databases.
    pub(crate) fn exact_texts(&self) -> &'static str {
        match (self.is_mariadb, self.version >= (8, 0, 17)) {
            (true, _) => "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            (false, true) => "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin",
            // Spaces at the end count for nothing there.
            (false, false) => "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        }
    }

    /// The last second that a `timestamp` holds.
    pub(crate) fn last_timestamp(&self) -> i64 {
        if self.is_mariadb && self.version >= (11, 5, 0) { 4_294_967_295 } else { 2_147_483_647 }
    }
}

/// Opens a session that writes.
///
/// # Errors
/// As [`Session::open`].
pub(crate) async fn open(config: &MysqlConfig) -> Result<Session> {
    let mut session = Session::open(config).await?;
    let settings = format!(
        "SET SESSION sql_mode = '{STRICT}', lock_wait_timeout = {LOCK_WAIT}, sql_notes = 1, sql_safe_updates = 0, \
         completion_type = 0, foreign_key_checks = 1, unique_checks = 1"
    );
    let failed = |error| server_error(&error, config, "cannot set up a session");
    session.run(&settings).await.map_err(failed)?;
    session.run("SET SESSION TRANSACTION READ WRITE").await.map_err(failed)?;
    Ok(session)
}

/// The number of rows that the last statement changed.
pub(crate) fn changed_rows(session: &mut Session) -> Result<u64, Failure> {
    Ok(session.conn()?.affected_rows())
}

/// Runs a statement that puts values into columns; answers with the number of rows.
///
/// # Errors
/// As `refused` says it; a value that would be changed, which some servers only warn of.
pub(crate) async fn put(session: &mut Session, sql: &str, refused: impl Fn(&Failure) -> Error) -> Result<u64> {
    session.run(sql).await.map_err(|error| refused(&error))?;
    let rows = changed_rows(session).map_err(|error| refused(&error))?;
    refuse_warnings(session, refused).await?;
    Ok(rows)
}

/// Refuses what the server has only warned of.
///
/// # Errors
/// The first warning of a value that was changed.
pub(crate) async fn refuse_warnings(session: &mut Session, refused: impl Fn(&Failure) -> Error) -> Result<()> {
    if session.conn().map_err(|error| refused(&error))?.get_warnings() == 0 {
        return Ok(());
    }
    let warnings = session.ask("SHOW WARNINGS").await.map_err(|error| refused(&error))?;
    for warning in warnings {
        let [_, Some(code), Some(words)] = <[Option<String>; 3]>::try_from(warning).unwrap_or_default() else {
            continue;
        };
        if CHANGED.contains(&code.as_str()) {
            return Err(
                Error::new(ErrorKind::Data, "a value does not fit the table").cause(format!("{words} [{code}]"))
            );
        }
    }
    Ok(())
}

/// Whether a transaction is open.
pub(crate) async fn is_in_transaction(session: &mut Session) -> Result<bool, Failure> {
    session.run("DO 0").await?;
    let answer = session.conn()?.last_ok_packet().map(|answer| answer.status_flags());
    Ok(answer.is_some_and(|flags| flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS)))
}

/// Waits for its turn: two loads of one target come one after the other. Lasts until the session ends.
///
/// # Errors
/// As `refused` says it; a wait that somebody has ended.
pub(crate) async fn take_turn(
    session: &mut Session,
    database: &str,
    table: &str,
    refused: impl Fn(&Failure) -> Error,
) -> Result<()> {
    // Servers that do not tell names apart by case must not let two pass.
    let place = format!("{database}.{table}").to_lowercase();
    let hash = place
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let sql = format!("SELECT GET_LOCK({}, 10)", literal(&format!("gristmill:{hash:016x}")));
    loop {
        match session.value(&sql).await.map_err(|error| refused(&error))?.as_deref() {
            Some("1") => return Ok(()),
            // The server knows no wait without an end.
            Some(_) => {}
            None => {
                let message = format!("the wait for other loads of `{table}` was ended by the server");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_version() {
        let server = |is_mariadb, version| Server::new(is_mariadb, version);
        assert!(server(true, "10.11.19-MariaDB-0+deb12u1").exact_texts().ends_with("utf8mb4_nopad_bin"));
        assert!(server(false, "8.0.36").exact_texts().ends_with("utf8mb4_0900_bin"));
        assert!(server(false, "5.7.44-log").exact_texts().ends_with("utf8mb4_bin"));
        assert!(server(true, "11.8.2-MariaDB").last_timestamp() > server(true, "10.11.2-MariaDB").last_timestamp());
    }
}
