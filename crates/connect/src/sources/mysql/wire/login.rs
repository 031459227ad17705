//! Connecting and logging in.

use super::frames::{Frames, LARGEST};
use super::{State, Stream, Wire, parse, refusal, unexpected};
use crate::sources::mysql::config::MysqlConfig;
use crate::sources::mysql::connect::Failure;
use crate::sources::postgres::SslMode;
use mysql_async::{DriverError, IoError};
use mysql_common::constants::CapabilityFlags;
use mysql_common::crypto;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// utf8mb4_general_ci, until the session says more.
const COLLATION: u8 = 45;
/// The version of a server that knows it.
const VERSION: (u16, u16, u16) = (5, 5, 3);

fn failed(error: io::Error) -> Failure {
    Failure::Io(IoError::Io(error))
}

/// The ways to log in that are spoken here. The library knows others, but panics where a feature of it is not compiled.
fn known(plugin: &AuthPlugin<'_>) -> Result<AuthPlugin<'static>, Failure> {
    match plugin {
        AuthPlugin::MysqlNativePassword => Ok(AuthPlugin::MysqlNativePassword),
        AuthPlugin::CachingSha2Password => Ok(AuthPlugin::CachingSha2Password),
        AuthPlugin::MysqlOldPassword => Err(Failure::Driver(DriverError::MysqlOldPasswordDisabled)),
        other => {
            let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
            Err(Failure::Driver(DriverError::UnknownAuthPlugin { name }))
        }
    }
}

/// Who logs in, and what both sides have said of it.
struct Login<'a> {
    password: Option<&'a str>,
    plugin: AuthPlugin<'static>,
    nonce: Vec<u8>,
    /// What is sent cannot be read on its way.
    is_private: bool,
}

impl Login<'_> {
    /// What answers the server's challenge.
    fn proof(&self) -> Vec<u8> {
        self.plugin.gen_data(self.password, &self.nonce).map(|proof| proof.to_vec()).unwrap_or_default()
    }
}

impl Wire {
    /// Connects and logs in; `tls` is what TLS needs, where it is to be spoken.
    ///
    /// # Errors
    /// As the driver says them.
    pub(in super::super) async fn connect(
        config: &MysqlConfig,
        tls: Option<ClientConfig>,
        database: Option<&str>,
    ) -> Result<Self, Failure> {
        let stream: Box<dyn Stream> = match &config.socket {
            Some(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
            None => {
                let socket = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(failed)?;
                socket.set_nodelay(true).map_err(failed)?;
                // A server that vanished is noticed within minutes, not hours.
                let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
                SockRef::from(&socket).set_tcp_keepalive(&keepalive).map_err(failed)?;
                Box::new(socket)
            }
        };
        Self::begin(stream, config, tls, database).await
    }

    /// Logs in over what bytes go through.
    pub(super) async fn begin(
        stream: Box<dyn Stream>,
        config: &MysqlConfig,
        tls: Option<ClientConfig>,
        database: Option<&str>,
    ) -> Result<Self, Failure> {
        let frames = Frames::default();
        let (state, can, patience) = (State::Unsure, CapabilityFlags::empty(), config.read_timeout);
        let mut wire = Self { stream, frames, state, can, id: 0, patience };
        let place = wire.packet().await?;
        let payload = &wire.frames.bytes()[place];
        if payload.first() == Some(&0xFF) {
            return Err(refusal(payload, CapabilityFlags::empty()));
        }
        let hello: HandshakePacket<'_> = parse(payload, ())?;
        let can = wanted() & hello.capabilities();
        let mut nonce = [hello.scramble_1_ref(), hello.scramble_2_ref().unwrap_or_default()].concat();
        nonce.resize(20, 0);
        // Others are only spoken when the server asks for them.
        let plugin = match hello.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        wire.id = hello.connection_id();
        let tls = match tls {
            Some(_) if !can.contains(CapabilityFlags::CLIENT_SSL) && config.sslmode == SslMode::Prefer => None,
            Some(_) if !can.contains(CapabilityFlags::CLIENT_SSL) => {
                return Err(Failure::Driver(DriverError::NoClientSslFlagFromServer));
            }
            tls => tls,
        };
        wire.can = can - CapabilityFlags::CLIENT_SSL;
        let is_private = tls.is_some() || config.socket.is_some();
        if let Some(tls) = tls {
            wire.can = can;
            wire = wire.encrypt(tls, &config.host).await?;
        }
        wire.log_in(Login { password: config.password(), plugin, nonce, is_private }, &config.user, database).await?;
        wire.state = State::Idle;
        Ok(wire)
    }

    async fn encrypt(mut self, tls: ClientConfig, host: &str) -> Result<Self, Failure> {
        // Whatever came with the greeting came from nobody knows whom.
        if !self.frames.is_empty() {
            return Err(unexpected(&[]));
        }
        let mut request = Vec::new();
        SslRequest::new(self.can, LARGEST as u32, COLLATION).serialize(&mut request);
        self.send(&request).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            failed(io::Error::other(rustls::Error::General(format!("`{host}` is no name of a server"))))
        })?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, self.stream).await.map_err(failed)?;
        Ok(Self { stream: Box::new(stream), ..self })
    }

    async fn log_in(&mut self, mut login: Login<'_>, user: &str, database: Option<&str>) -> Result<(), Failure> {
        let response = HandshakeResponse::new(
            Some(login.proof()),
            VERSION,
            Some(user.as_bytes()),
            database.map(str::as_bytes),
            Some(login.plugin.borrow()),
            self.can,
            None,
            LARGEST as u32,
        );
        let mut packet = Vec::new();
        response.serialize(&mut packet);
        self.send(&packet).await?;
        let mut has_switched = false;
        loop {
            let place = self.answer().await?;
            let payload = &self.frames.bytes()[place];
            match payload {
                [0, ..] => return Ok(()),
                [0xFE] => return Err(Failure::Driver(DriverError::MysqlOldPasswordDisabled)),
                [0xFE, ..] if !has_switched => {
                    has_switched = true;
                    let asked: AuthSwitchRequest<'_> = parse(payload, ())?;
                    login.plugin = known(&asked.auth_plugin())?;
                    login.nonce = asked.plugin_data().to_vec();
                    self.send(&login.proof()).await?;
                }
                // The server remembers the password; its consent follows.
                [1, 3] if login.plugin == AuthPlugin::CachingSha2Password => {}
                [1, 4] if login.plugin == AuthPlugin::CachingSha2Password => self.tell(&login).await?,
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Tells the server the password itself, which it does not remember.
    async fn tell(&mut self, login: &Login<'_>) -> Result<(), Failure> {
        let mut password = login.password.unwrap_or_default().as_bytes().to_vec();
        password.push(0);
        if login.is_private {
            return self.send(&password).await;
        }
        self.send(&[2]).await?;
        let place = self.answer().await?;
        let payload = &self.frames.bytes()[place];
        let [1, key @ ..] = payload else { return Err(unexpected(payload)) };
        for (byte, salt) in password.iter_mut().zip(login.nonce.iter().cycle()) {
            *byte ^= salt;
        }
        let sealed = crypto::encrypt(&password, key);
        self.send(&sealed).await
    }
}

/// What we can: rows of prepared statements, and no more than one result at a time. The end of rows is told as it always was.
fn wanted() -> CapabilityFlags {
    CapabilityFlags::CLIENT_PROTOCOL_41
        | CapabilityFlags::CLIENT_SECURE_CONNECTION
        | CapabilityFlags::CLIENT_LONG_PASSWORD
        | CapabilityFlags::CLIENT_TRANSACTIONS
        | CapabilityFlags::CLIENT_PLUGIN_AUTH
        | CapabilityFlags::CLIENT_CONNECT_WITH_DB
        | CapabilityFlags::CLIENT_SSL
}
