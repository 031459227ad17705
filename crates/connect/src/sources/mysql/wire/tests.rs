//! Logging in to a server that is played here, for what the servers of other tests do not ask for.

use super::Wire;
use super::frames::Frames;
use crate::sources::mysql::config::MysqlConfig;
use crate::sources::mysql::connect::Failure;
use gristmill_model::yaml::parse;
use mysql_async::DriverError;
use mysql_common::packets::AuthPlugin;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const NONCE: [u8; 20] = *b"abcdefghijklmnopqrst";
const PASSWORD: &str = "s3cr3t";
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
/// A public key that was made for this test, and is used for nothing else.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyDvtVeFBPbzW/T5O7JEi\n\
2lSHYMQzsrOBDbOou6+VCAqtkd5DIktb+RqeXesbLSgRt8NvkRhKhhCb7Xj8i8CX\n\
VU5mbKKsR2TPA+n0slBcfk/yQGzp0eGtMqvzra+rbv8PW7e3Edp7kRgRHRPe6vuv\n\
Wp+sJQ1DwNT2ms0rUMsTfrtrnv5OhqoKy+22AEwCZ8rz5rqbo8pUIh3j9MpNSlhm\n\
ltn4F12ZVkfMryA5BgiBu77X7a9FinEPvavBH01dcQs/ihGVAQzMnI0AbSqCmFow\n\
qDFIrHwazy8Bu8fYpiwsPqADNa+TRytNCwlwD/wEVOt6rtjyJR0F0bws5Her/Bbk\n\
+wIDAQAB\n\
-----END PUBLIC KEY-----\n";

fn config(place: &str) -> MysqlConfig {
    let yaml = format!("{{user: reader, password: {PASSWORD}, database: shop, {place}}}");
    let node = parse("c.yaml", &yaml).unwrap();
    MysqlConfig::from_node(&node, Path::new(".")).unwrap()
}

/// The server's side.
struct Server {
    stream: DuplexStream,
    frames: Frames,
}

impl Server {
    async fn say(&mut self, payload: &[u8]) {
        let framed = self.frames.framed(payload);
        self.stream.write_all(&framed).await.unwrap();
    }

    async fn hear(&mut self) -> Vec<u8> {
        loop {
            if let Some(place) = self.frames.next().unwrap() {
                return self.frames.bytes()[place].to_vec();
            }
            assert_ne!(self.stream.read_buf(self.frames.room()).await.unwrap(), 0, "the client hung up");
        }
    }

    /// Greets the client, and hears who it is.
    async fn greet(&mut self, plugin: &str) {
        let (first, rest) = NONCE.split_at(8);
        // Version 10, the server's version, the connection's number; the capabilities are in two halves.
        let hello = [
            &b"\x0a8.0.36\0"[..],
            &7u32.to_le_bytes(),
            first,
            &[0, 0xFF, 0xF7, 45, 2, 0, 0xFF, 0xDF, 21],
            &[0; 10],
            rest,
            &[0],
            plugin.as_bytes(),
            &[0],
        ];
        self.say(&hello.concat()).await;
        let response = self.hear().await;
        let has = |part: &[u8]| response.windows(part.len()).any(|window| window == part);
        assert!(has(b"reader\0") && has(b"shop\0") && has(plugin.as_bytes()), "{response:?}");
        assert!(has(&proof(plugin, &NONCE)), "{response:?}");
        assert!(!has(PASSWORD.as_bytes()));
    }
}

fn proof(plugin: &str, nonce: &[u8]) -> Vec<u8> {
    AuthPlugin::from_bytes(plugin.as_bytes()).gen_data(Some(PASSWORD), nonce).unwrap().to_vec()
}

async fn log_in(place: &str, server: impl AsyncFnOnce(&mut Server)) -> Result<Wire, Failure> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let config = config(place);
    let mut played = Server { stream: theirs, frames: Frames::default() };
    let (logged_in, ()) = tokio::join!(Wire::begin(Box::new(ours), &config, None, Some("shop")), async {
        server(&mut played).await;
    });
    logged_in
}

#[tokio::test]
async fn a_server_that_remembers_the_password_takes_its_proof() {
    let wire = log_in("host: a", async |server| {
        server.greet("caching_sha2_password").await;
        server.say(&[1, 3]).await;
        server.say(OK).await;
    });
    assert_eq!(wire.await.unwrap().id, 7);
}

#[tokio::test]
async fn the_password_itself_is_told_only_where_nobody_listens() {
    let told = log_in("socket: /tmp/s", async |server| {
        server.greet("caching_sha2_password").await;
        server.say(&[1, 4]).await;
        assert_eq!(server.hear().await, format!("{PASSWORD}\0").as_bytes());
        server.say(OK).await;
    });
    told.await.unwrap();
    let sealed = log_in("host: a", async |server| {
        server.greet("caching_sha2_password").await;
        server.say(&[1, 4]).await;
        assert_eq!(server.hear().await, [2]);
        server.say(&[&[1], KEY.as_bytes()].concat()).await;
        assert_eq!(server.hear().await.len(), 256);
        server.say(OK).await;
    });
    sealed.await.unwrap();
}

#[tokio::test]
async fn a_server_may_ask_for_another_way_once_and_only_for_one_that_is_known() {
    let other = *b"ABCDEFGHIJKLMNOPQRST";
    let switched = log_in("host: a", async |server| {
        server.greet("caching_sha2_password").await;
        server.say(&[&b"\xFEmysql_native_password\0"[..], &other, &[0]].concat()).await;
        assert_eq!(server.hear().await, proof("mysql_native_password", &other));
        server.say(OK).await;
    });
    switched.await.unwrap();
    for (asked, known) in [("client_ed25519", true), ("auth_gssapi_client", true), ("mysql_old_password", false)] {
        let refused = log_in("host: a", async |server| {
            server.greet("mysql_native_password").await;
            server.say(&[&b"\xFE"[..], asked.as_bytes(), &[0], &other, &[0]].concat()).await;
        });
        match refused.await.unwrap_err() {
            Failure::Driver(DriverError::UnknownAuthPlugin { name }) => assert!(known && name == asked, "{name}"),
            Failure::Driver(DriverError::MysqlOldPasswordDisabled) => assert!(!known),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn what_the_server_says_against_it_is_its_own_refusal() {
    let refused = log_in("host: a", async |server| {
        server.greet("mysql_native_password").await;
        server.say(b"\xFF\x15\x04#28000Access denied").await;
    });
    let error = refused.await.unwrap_err();
    assert!(matches!(&error, Failure::Server(said) if said.code == 1045 && said.message == "Access denied"), "{error}");
    let unwelcome = log_in("host: a", async |server| server.say(b"\xFF\x6A\x04Host is not allowed").await);
    let error = unwelcome.await.unwrap_err();
    assert!(matches!(&error, Failure::Server(said) if said.code == 1130), "{error}");
    let gone = log_in("host: a", async |server| {
        server.greet("mysql_native_password").await;
        server.stream.shutdown().await.unwrap();
    });
    assert!(matches!(gone.await.unwrap_err(), Failure::Io(_)));
}
