//! What libpq's users have on their machines: password files and service files (PostgreSQL manual, libpq, "The Password
//! File" and "The Connection Service File").

use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::path::{Path, PathBuf};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// Where libpq looks, as the environment says.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// `PGPASSFILE`, or `.pgpass` in the home folder.
    pub(super) passfile: Option<PathBuf>,
    /// `PGSERVICEFILE`, or `.pg_service.conf` in the home folder; then `pg_service.conf` in `PGSYSCONFDIR`.
    pub(super) services: Vec<PathBuf>,
}

impl Places {
    pub(super) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let at_home = |name: &str| variable("HOME").map(|home| home.join(name));
        let own = variable("PGSERVICEFILE").or_else(|| at_home(".pg_service.conf"));
        let of_all = variable("PGSYSCONFDIR").map(|folder| folder.join("pg_service.conf"));
        Self {
            passfile: variable("PGPASSFILE").or_else(|| at_home(".pgpass")),
            services: own.into_iter().chain(of_all).collect(),
        }
    }
}

/// What a password file says about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Password(String),
    Nothing,
    /// The file is not used, for this reason.
    Ignored(String),
}

/// Looks a password up for a server. A file that others may read is ignored, as libpq does.
///
/// # Errors
/// A file that is there and cannot be read; hosts that have different passwords.
pub(super) async fn look_up(path: &Path, server: &Config) -> Result<Found> {
    let what = || format!("the password file `{}`", path.display());
    let about = match tokio::fs::metadata(path).await {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(Error::io(&error, what())),
    };
    if !about.is_file() {
        return Ok(Found::Ignored(format!("{} is no plain file", what())));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if about.permissions().mode() & 0o077 != 0 {
            let why = format!("{} is ignored: others may read it; run `chmod 0600 {}`", what(), path.display());
            return Ok(Found::Ignored(why));
        }
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|error| Error::io(&error, what()))?;
    let user = server.get_user().unwrap_or_default();
    let database = server.get_dbname().unwrap_or(user);
    let ports = server.get_ports();
    let mut passwords: Vec<Option<String>> = server
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
            password(&text, &host_of(host), port, database, user)
        })
        .collect();
    passwords.dedup();
    match passwords.as_slice() {
        [] | [None] => Ok(Found::Nothing),
        [Some(password)] => Ok(Found::Password(password.clone())),
        _ => Err(Error::new(ErrorKind::Config, format!("{} has different passwords for the hosts", what()))
            .hint("name one host, or give the connection a `password`")),
    }
}

/// The name under which a password file knows a host: the folders where servers put their socket by default are this machine.
fn host_of(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => match folder.to_str() {
            Some("/tmp" | "/var/run/postgresql" | "/run/postgresql") | None => "localhost".to_owned(),
            Some(folder) => folder.to_owned(),
        },
    }
}

/// The password in the first line that fits: `host:port:database:user:password`, a `*` fits all, `\` before `:` and `\`.
pub(super) fn password(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let port = port.to_string();
    text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [of_host, of_port, of_database, of_user, password, ..] = fields.as_slice() else { return None };
        let fits = |(raw, text): &(&str, String), wanted: &str| *raw == "*" || text == wanted;
        let all = fits(of_host, host) && fits(of_port, &port) && fits(of_database, database) && fits(of_user, user);
        all.then(|| password.1.clone()).filter(|password| !password.is_empty())
    })
}

/// The fields of a line, as they stand and without their backslashes.
fn fields(line: &str) -> Vec<(&str, String)> {
    let (mut found, mut begin, mut text) = (Vec::new(), 0, String::new());
    let mut letters = line.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => text.push(letters.next().map_or('\\', |(_, next)| next)),
            ':' => {
                found.push((&line[begin..at], std::mem::take(&mut text)));
                begin = at + 1;
            }
            _ => text.push(letter),
        }
    }
    found.push((&line[begin..], text));
    found
}

/// The options of a service, in their order: name and value.
type Options = Vec<(String, String)>;

/// Options of a service that we have no use for: ours are set, or would be the same.
const WITHOUT_EFFECT: [&str; 4] = ["client_encoding", "fallback_application_name", "gssencmode", "keepalives"];

/// The options of a service, out of the first of the files that has it.
///
/// # Errors
/// No such service, a file that cannot be read, a line that is none: message and hint.
pub(super) fn service(places: &Places, name: &str) -> Result<Options, (String, Option<String>)> {
    let mut names = Vec::new();
    for path in &places.services {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err((format!("the service file `{}` cannot be read: {error}", path.display()), None)),
        };
        let sections = sections(&text).map_err(|line| {
            let hint = "a service is `[name]`, and below it lines like `host=db.example.com`".to_owned();
            (format!("line {line} of the service file `{}` is not one", path.display()), Some(hint))
        })?;
        if let Some((_, options)) = sections.iter().find(|(known, _)| known == name) {
            return Ok(options.iter().filter(|(key, _)| !WITHOUT_EFFECT.contains(&key.as_str())).cloned().collect());
        }
        names.extend(sections.into_iter().map(|(name, _)| name));
    }
    let looked: Vec<String> = places.services.iter().map(|path| format!("`{}`", path.display())).collect();
    let hint = if names.is_empty() {
        "name the file with the environment variable `PGSERVICEFILE`, or write `host`, `user` and so on".to_owned()
    } else {
        one_of(name, names.iter().map(String::as_str))
    };
    let place = if looked.is_empty() { "any service file".to_owned() } else { looked.join(" or ") };
    Err((format!("there is no service `{name}` in {place}"), Some(hint)))
}

/// A section of a service file: its name, and its options.
pub(super) type Section = (String, Options);

/// The sections of a service file; else the number of the line that is wrong.
pub(super) fn sections(text: &str) -> Result<Vec<Section>, usize> {
    let mut found: Vec<Section> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            found.push((name.to_owned(), Vec::new()));
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(at + 1)?;
        let (_, options) = found.last_mut().ok_or(at + 1)?;
        options.push((key.trim_end().to_owned(), value.trim_start().to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let file = "# all of ours\nlocalhost:5432:shop:etl:one\ndb.example.com:*:*:etl:t\\:w\\\\o\n/run/pg:5433:*:*:three:rest\r\n\
                    *:*:shop\\:2:*:four\n\\*:1:x:y:five\nbroken:line\n*:*:*:nobody:\n";
        for (host, port, database, user, wanted) in [
            ("localhost", 5432, "shop", "etl", Some("one")),
            ("localhost", 5433, "shop", "etl", None),
            ("db.example.com", 5433, "x", "etl", Some("t:w\\o")),
            ("db.example.com", 5433, "x", "other", None),
            ("/run/pg", 5433, "x", "other", Some("three")),
            ("anywhere", 1, "shop:2", "me", Some("four")),
            ("any", 1, "x", "y", None),
            ("*", 1, "x", "y", Some("five")),
            ("any", 1, "x", "nobody", None),
        ] {
            assert_eq!(
                password(file, host, port, database, user).as_deref(),
                wanted,
                "{host}:{port}:{database}:{user}"
            );
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_others_may_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        let server: Config = "host=a,b port=1,2 user=u dbname=d".parse().unwrap();
        let set = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!(look_up(&path, &server).await.unwrap(), Found::Nothing);
        set("*:*:*:*:secret", 0o600);
        assert_eq!(look_up(&path, &server).await.unwrap(), Found::Password("secret".to_owned()));
        for mode in [0o640, 0o604, 0o620] {
            set("*:*:*:*:secret", mode);
            let found = look_up(&path, &server).await.unwrap();
            assert!(matches!(&found, Found::Ignored(why) if why.contains("chmod 0600")), "{found:?}");
        }
        assert!(matches!(look_up(folder.path(), &server).await.unwrap(), Found::Ignored(_)));
        set("a:1:d:u:one\nb:2:d:u:two", 0o600);
        let error = look_up(&path, &server).await.unwrap_err();
        assert!(error.message().contains("different passwords") && !format!("{error:?}").contains("two"), "{error:?}");
    }

    #[test]
    fn a_service_is_the_section_of_that_name_in_the_first_file_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let (own, of_all) = (folder.path().join("own"), folder.path().join("all"));
        let places = Places { passfile: None, services: vec![own.clone(), of_all.clone()] };
        let error = service(&places, "shop").unwrap_err();
        assert!(error.0.contains("there is no service `shop`"), "{error:?}");
        std::fs::write(&own, "# mine\n[shop]\nhost=one\n port = 5433 \nkeepalives=1\n\n[empty]\n").unwrap();
        std::fs::write(&of_all, "[shop]\nhost=two\n[store]\nhost=three\noptions=-c a=b").unwrap();
        let pairs = |of: &[(&str, &str)]| of.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        assert_eq!(service(&places, "shop"), Ok(pairs(&[("host", "one"), ("port", "5433")])));
        assert_eq!(service(&places, "store"), Ok(pairs(&[("host", "three"), ("options", "-c a=b")])));
        assert_eq!(service(&places, "empty"), Ok(Vec::new()));
        assert!(service(&places, "shap").unwrap_err().1.unwrap().contains("`shop`"));
        for wrong in ["host=one", "[shop]\nhost"] {
            std::fs::write(&own, wrong).unwrap();
            assert!(service(&places, "shop").unwrap_err().0.contains("line"), "{wrong}");
        }
    }
}
