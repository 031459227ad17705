use super::*;
use crate::OpenContext;
use gristmill_model::ErrorKind;
use object_store::ObjectStoreExt;

fn context(project: &std::path::Path) -> OpenContext {
    OpenContext { project: project.to_owned(), state: project.join(".gristmill") }
}

fn open(url: &str, options: &StoreOptions) -> gristmill_model::Result<Store> {
    Store::open(url, options, &context(std::path::Path::new("/project")))
}

#[test]
fn a_folder_is_relative_to_the_project_and_need_not_exist() {
    let store = open("./lake/../lake", &StoreOptions::default()).unwrap();
    assert_eq!(store.local.as_deref(), Some(std::path::Path::new("/project/lake")));
    assert_eq!((store.prefix.as_ref(), store.url.as_str()), ("project/lake", "file:///"));
    assert_eq!(store.describe(), "/project/lake");
    assert_eq!(open("file:///data/my%20lake", &StoreOptions::default()).unwrap().prefix.as_ref(), "data/my lake");
}

#[test]
fn a_path_is_below_the_folder_and_an_absolute_one_stands_for_itself() {
    let store = open("lake", &StoreOptions::default()).unwrap();
    assert_eq!(store.locate("a/./b.csv").unwrap().as_ref(), "project/lake/a/b.csv");
    assert_eq!(store.locate("../x.csv").unwrap().as_ref(), "project/x.csv");
    assert_eq!(store.locate("/data/x.csv").unwrap().as_ref(), "data/x.csv");
    assert_eq!(store.short_name(&store.locate("a/b.csv").unwrap()), "a/b.csv");
    assert_eq!(store.short_name(&store.locate("/data/x.csv").unwrap()), "/data/x.csv");
}

#[test]
fn an_s3_url_is_bucket_and_prefix_and_its_description_has_no_secret() {
    let options = StoreOptions {
        endpoint: Some("http://localhost:9000".to_owned()),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("hush".to_owned()),
        ..StoreOptions::default()
    };
    let store = open("s3://bucket/some/folder/", &options).unwrap();
    assert_eq!((store.prefix.as_ref(), store.url.as_str()), ("some/folder", "s3://bucket"));
    assert!(store.multipart.is_some());
    assert_eq!(store.describe(), "s3://bucket/some/folder at http://localhost:9000");
    assert_eq!(store.locate("/a.csv").unwrap().as_ref(), "some/folder/a.csv");
    assert!(!format!("{store:?}{options:?}").contains("hush"));
}

#[test]
fn google_azure_and_http_open_without_touching_the_network() {
    let options = StoreOptions { anonymous: Some(true), ..StoreOptions::default() };
    assert_eq!(open("gs://bucket/a", &options).unwrap().kind(), StoreKind::Google);
    let options = StoreOptions {
        account_name: Some("acc".to_owned()),
        access_key: Some("aHVzaA==".to_owned()),
        ..StoreOptions::default()
    };
    assert_eq!(open("az://container/a", &options).unwrap().prefix.as_ref(), "a");
    let abfss = open("abfss://container@acc.dfs.core.windows.net/a/b", &options).unwrap();
    assert_eq!(abfss.describe(), "abfss://container@acc.dfs.core.windows.net/a/b");
    let http = open("https://user:hush@host:8443/a/b.csv?sig=hush", &StoreOptions::default()).unwrap();
    assert_eq!(http.describe(), "https://host:8443/a/b.csv");
    assert!(!http.can_list());
}

#[test]
fn what_cannot_be_a_store_is_a_configuration_error() {
    for url in ["ftp://host/a", "s3:///folder", "https://", "file://host/a"] {
        let error = open(url, &StoreOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
    }
    let half = StoreOptions { access_key_id: Some("id".to_owned()), ..StoreOptions::default() };
    assert!(open("s3://bucket", &half).unwrap_err().message().contains("belong together"));
    let wrong = StoreOptions { endpoint: Some("localhost:9000".to_owned()), ..StoreOptions::default() };
    assert!(open("s3://bucket", &wrong).unwrap_err().message().contains("endpoint"));
    let forbidden = StoreOptions {
        endpoint: Some("http://localhost:9000".to_owned()),
        allow_http: Some(false),
        ..StoreOptions::default()
    };
    assert!(open("s3://bucket", &forbidden).unwrap_err().message().contains("allow_http"));
}

#[test]
fn secrets_leave_every_url_of_a_text() {
    assert_eq!(
        redact("GET https://me:pw@host/a?sig=x failed (http://h/b?c) at abfss://c@acc/x"),
        "GET https://…@host/a?… failed (http://h/b?…) at abfss://c@acc/x"
    );
    assert_eq!(redact("no url ? here"), "no url ? here");
}

#[tokio::test]
async fn a_missing_local_file_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(".", &StoreOptions::default(), &context(folder.path())).unwrap();
    let location = store.locate("nowhere.csv").unwrap();
    let error = error(store.store.get(&location).await.unwrap_err(), "`nowhere.csv`");
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "`nowhere.csv` does not exist"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_one_clear_error_soon() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = StoreOptions {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("hush".to_owned()),
        ..StoreOptions::default()
    };
    let store = open("s3://bucket", &options).unwrap();
    let begun = std::time::Instant::now();
    let failure = store.store.get(&store.locate("a.csv").unwrap()).await.unwrap_err();
    let error = error(failure, "`s3://bucket/a.csv`");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
    assert!(begun.elapsed() < std::time::Duration::from_secs(30));
}

/// A server that gives the same answer to every request.
async fn answering(status: &'static str, body: &'static str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0u8; 4096];
                let _ = socket.read(&mut buffer).await;
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn what_a_server_refuses_is_told_apart() {
    for (status, body, kind) in [
        ("403 Forbidden", "<Error><Code>SignatureDoesNotMatch</Code></Error>", ErrorKind::Denied),
        ("401 Unauthorized", "", ErrorKind::Denied),
        ("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>", ErrorKind::NotFound),
        ("503 Slow Down", "", ErrorKind::Unavailable),
        ("418 Teapot", "", ErrorKind::Storage),
    ] {
        let port = answering(status, body).await;
        let options = StoreOptions {
            endpoint: Some(format!("http://127.0.0.1:{port}")),
            access_key_id: Some("id".to_owned()),
            secret_access_key: Some("hush".to_owned()),
            ..StoreOptions::default()
        };
        let store = open("s3://bucket", &options).unwrap();
        let failure = store.store.get(&store.locate("a.csv").unwrap()).await.unwrap_err();
        let error = error(failure, "`s3://bucket/a.csv`");
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert_eq!(error.is_retryable(), kind == ErrorKind::Unavailable);
        assert!(!error.to_string().contains("hush"));
    }
}

#[test]
fn a_url_with_a_secret_in_front_of_the_bucket_is_refused_without_repeating_it() {
    let folder = tempfile::tempdir().unwrap();
    let context = OpenContext { project: folder.path().to_owned(), state: folder.path().to_owned() };
    for url in
        ["s3://AKIA:hush@bucket/x", "gs://hush@bucket", "az://a:hush@b", "abfss://c:hush@a.dfs.core.windows.net/"]
    {
        let error = Store::open(url, &StoreOptions::default(), &context).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hush"), "{error}");
        assert!(error.hint_text().unwrap().contains("keys of the connection"), "{error}");
    }
}
