//! TLS with a real server: who is trusted, who we are, and what the password is bound to.

use super::*;
use gristmill_testkit::postgres::{CERTIFIED, PostgresServer};

#[tokio::test]
async fn a_server_with_tls_is_spoken_to_in_tls_and_its_certificate_is_checked_when_that_is_asked_for() {
    let server = PostgresServer::start_with_tls().unwrap();
    let database = server.database();
    database.sql("create table t as select n from generate_series(1, 3000) n; analyze t");
    let open = |host: &str, more: &str| {
        connect(&format!(
            "{{type: postgres, host: {host}, port: {}, user: {USER}, password: \"{PASSWORD}\", database: {}{more}}}",
            server.port, database.name
        ))
        .unwrap()
    };
    let authority = format!(", sslmode: verify-full, sslrootcert: {}", server.authority().display());
    for (host, more, tls) in [
        ("127.0.0.1", "", "yes"),
        ("127.0.0.1", ", sslmode: require", "yes"),
        ("localhost", authority.as_str(), "yes"),
        ("127.0.0.1", ", sslmode: disable", "no"),
    ] {
        let info = open(host, more).test().await.unwrap();
        assert!(info.details.contains(&("tls".to_owned(), tls.to_owned())), "{host}{more}: {info:?}");
    }
    // An authority that nobody trusts, and a name that is not the certificate's.
    for (host, more) in [("localhost", ", sslmode: verify-full"), ("127.0.0.1", authority.as_str())] {
        let error = open(host, more).test().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{host}{more}: {error:?}");
        assert!(error.hint_text().unwrap().contains("sslrootcert"), "{error:?}");
    }
    let source = open("localhost", &authority).source(&extract("table: t\nunits: {target_rows: 1000}")).unwrap();
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    assert_eq!(plan.units.len(), 3);
    let scan =
        Scan { schema: source.schema().await.unwrap(), batch_size: 500, on_bad_row: OnFail::Fail, rejects: None };
    let mut rows = 0;
    for unit in &plan.units {
        rows += source.read(unit, &scan).collect().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    assert_eq!(rows, 3000);
}

/// A connection to a server that speaks TLS.
fn open(server: &PostgresServer, host: &str, user: &str, more: &str) -> Arc<dyn Connection> {
    let keys =
        format!("{{type: postgres, host: {host}, port: {}, user: {user}, database: postgres{more}}}", server.port);
    connect(&keys).unwrap()
}

#[tokio::test]
async fn verify_ca_asks_for_the_authority_and_not_for_the_name() {
    let server = PostgresServer::start_with_tls().unwrap();
    let ca = |authority: &std::path::Path| {
        format!(", password: \"{PASSWORD}\", sslmode: verify-ca, sslrootcert: {}", authority.display())
    };
    // The certificate is for `localhost`.
    for host in ["127.0.0.1", "localhost"] {
        let info = open(&server, host, USER, &ca(&server.authority())).test().await.unwrap();
        assert!(info.details.contains(&("tls".to_owned(), "yes".to_owned())), "{host}: {info:?}");
    }
    let (somebody, _) = server.client_certificate();
    let error = open(&server, "localhost", USER, &ca(&somebody)).test().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.message().starts_with("no secure connection"), "{error:?}");
}

#[tokio::test]
async fn a_client_with_a_certificate_needs_no_password() {
    let server = PostgresServer::start_with_tls().unwrap();
    server.database().sql(&format!("create role {CERTIFIED} login superuser"));
    let (certificate, key) = server.client_certificate();
    let identity = format!(", sslmode: require, sslcert: {}, sslkey: {}", certificate.display(), key.display());
    open(&server, "127.0.0.1", CERTIFIED, &identity).test().await.unwrap();
    // The same as options of a URL.
    let url = format!(
        "postgres://{CERTIFIED}@127.0.0.1:{}/postgres?sslmode=require&sslcert={}&sslkey={}",
        server.port,
        certificate.display(),
        key.display()
    );
    connect(&format!("{{type: postgres, url: \"{url}\"}}")).unwrap().test().await.unwrap();
    let nobody = open(&server, "127.0.0.1", CERTIFIED, ", sslmode: require").test().await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Denied, "{nobody:?}");
    assert!(nobody.hint_text().unwrap().contains("sslcert"), "{nobody:?}");
    // A certificate is for one user.
    let other = open(&server, "127.0.0.1", USER, &identity).test().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Denied, "{other:?}");

    let own = tempfile::tempdir().unwrap();
    let exposed = own.path().join("client.key");
    std::fs::copy(&key, &exposed).unwrap();
    std::fs::set_permissions(&exposed, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let wrong = |certificate: &std::path::Path, key: &std::path::Path| {
        format!(", sslmode: require, sslcert: {}, sslkey: {}", certificate.display(), key.display())
    };
    for (certificate, key, said) in [
        (certificate.as_path(), exposed.as_path(), "can be read by others"),
        (certificate.as_path(), certificate.as_path(), "can be read by others"),
        (key.as_path(), key.as_path(), "cannot be read"),
        (server.authority().as_path(), key.as_path(), "are no certificate and its key"),
    ] {
        let error = open(&server, "127.0.0.1", CERTIFIED, &wrong(certificate, key)).test().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.message().contains(said), "{error:?}");
    }
}

#[tokio::test]
async fn a_password_can_be_bound_to_the_tls_it_is_sent_through() {
    let server = PostgresServer::start_with_tls().unwrap();
    let bound = |binding: &str| format!(", password: \"{PASSWORD}\", channel_binding: {binding}");
    for binding in ["require", "prefer", "disable"] {
        open(&server, "127.0.0.1", USER, &bound(binding)).test().await.unwrap();
    }
    // Without TLS there is nothing to bind it to.
    let error = open(postgres::server(), "127.0.0.1", USER, &bound("require")).test().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.hint_text().unwrap().contains("channel_binding"), "{error:?}");
    open(postgres::server(), "127.0.0.1", USER, &bound("prefer")).test().await.unwrap();
}
