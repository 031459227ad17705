//! TLS: how much of it a connection wants, and how it is set up.

use super::config::Mistake;
use gristmill_model::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::config::ChannelBinding as Binding;

/// How much TLS a connection wants (libpq: `sslmode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// None.
    Disable,
    /// TLS where the server has it; its certificate is not checked.
    #[default]
    Prefer,
    /// TLS or nothing; the certificate is not checked.
    Require,
    /// TLS or nothing; the certificate must be from an authority of `sslrootcert`, whatever name it is for.
    VerifyCa,
    /// TLS or nothing; certificate and host name are checked.
    VerifyFull,
}

/// Whether the password is bound to the TLS it is sent through (libpq: `channel_binding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where there is TLS and the server can.
    #[default]
    Prefer,
    /// Always: no server gets a proof of the password that could not have shown its certificate to us itself.
    Require,
}

impl ChannelBinding {
    /// As the driver says it.
    pub(super) fn driver(self) -> Binding {
        match self {
            Self::Disable => Binding::Disable,
            Self::Prefer => Binding::Prefer,
            Self::Require => Binding::Require,
        }
    }
}

/// What a connection wants of TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    pub(crate) mode: SslMode,
    /// The certificates to trust.
    pub(crate) roots: Option<PathBuf>,
    /// Our own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// What the keys of a connection, its URL or its service say of TLS.
#[derive(Debug, Default)]
pub(super) struct TlsKeys {
    pub(super) mode: Option<SslMode>,
    pub(super) roots: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) binding: Option<ChannelBinding>,
}

impl TlsKeys {
    /// What is said here wins.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            mode: self.mode.or(other.mode),
            roots: self.roots.or(other.roots),
            certificate: self.certificate.or(other.certificate),
            key: self.key.or(other.key),
            binding: self.binding.or(other.binding),
        }
    }

    /// Takes an option of a URL or a service, `place`; whether it was one of ours.
    ///
    /// # Errors
    /// A word that the option does not have.
    pub(super) fn take(&mut self, name: &str, value: &str, place: &str) -> Result<bool, Mistake> {
        match name {
            "sslmode" => self.mode = Some(parse_sslmode(value, place)?),
            "sslrootcert" => self.roots = Some(PathBuf::from(value)),
            "sslcert" => self.certificate = Some(PathBuf::from(value)),
            "sslkey" => self.key = Some(PathBuf::from(value)),
            "channel_binding" => {
                self.binding = Some(match value {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => {
                        let valid = "valid: `disable`, `prefer`, `require`".to_owned();
                        let message = format!("unknown `channel_binding` `{value}` in the {place}");
                        return Err(("url", message, Some(valid)));
                    }
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What is wanted, and how the password is bound to it; relative paths start at `project`.
    ///
    /// # Errors
    /// Files that nobody would look at, a check without what it needs, half of an identity.
    pub(super) fn checked(self, project: &Path) -> Result<(Tls, ChannelBinding), Mistake> {
        let mode = self.mode.unwrap_or_default();
        let binding = self.binding.unwrap_or_default();
        must_look_at(self.roots.as_deref(), mode)?;
        let none = |key: &'static str| {
            let message = format!("`{key}` is of no use with `sslmode: disable`");
            (key, message, Some(format!("say `sslmode: require`, or leave `{key}` out")))
        };
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((project.join(certificate), project.join(key))),
            (None, None) => None,
            (Some(_), None) => {
                let hint = "give the key of the certificate as `sslkey`".to_owned();
                return Err(("sslcert", "`sslcert` goes with `sslkey`".to_owned(), Some(hint)));
            }
            (None, Some(_)) => {
                let hint = "give the certificate of the key as `sslcert`".to_owned();
                return Err(("sslkey", "`sslkey` goes with `sslcert`".to_owned(), Some(hint)));
            }
        };
        if mode == SslMode::Disable && identity.is_some() {
            return Err(none("sslcert"));
        }
        if mode == SslMode::Disable && binding == ChannelBinding::Require {
            return Err(none("channel_binding"));
        }
        Ok((Tls { mode, roots: self.roots.map(|path| project.join(path)), identity }, binding))
    }
}

/// Whoever names the certificates to trust expects the server's to be checked; libpq would, for `require` as well. And whoever
/// wants one authority has to name it: of those that everybody trusts, any would do.
pub(crate) fn must_look_at(sslrootcert: Option<&Path>, sslmode: SslMode) -> Result<(), Mistake> {
    match (sslrootcert, sslmode) {
        (None, SslMode::VerifyCa) => {
            let message = "`sslmode: verify-ca` needs `sslrootcert`".to_owned();
            Err((
                "sslmode",
                message,
                Some("name the authority's certificate, or say `sslmode: verify-full`".to_owned()),
            ))
        }
        (None, _) | (Some(_), SslMode::VerifyCa | SslMode::VerifyFull) => Ok(()),
        (Some(_), _) => {
            let message = "`sslrootcert` is only looked at with `sslmode: verify-full` or `verify-ca`".to_owned();
            Err(("sslrootcert", message, Some("say `sslmode: verify-full`, or leave `sslrootcert` out".to_owned())))
        }
    }
}

fn parse_sslmode(text: &str, place: &str) -> Result<SslMode, Mistake> {
    Ok(match text {
        "disable" => SslMode::Disable,
        "prefer" | "allow" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            let valid = "valid: `disable`, `prefer`, `require`, `verify-ca`, `verify-full`".to_owned();
            return Err(("url", format!("unknown `sslmode` `{text}` in the {place}"), Some(valid)));
        }
    })
}

/// The TLS side of a session with a database.
///
/// # Errors
/// A certificate file that cannot be read.
pub(crate) async fn client_config(wanted: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let internal = |error: rustls::Error| Error::internal("cannot set up TLS").cause(error);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(internal)?;
    let mut roots = RootCertStore::empty();
    let is_checked = matches!(wanted.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    match wanted.roots.as_deref().filter(|_| is_checked) {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates(path).await? {
                roots.add(certificate).map_err(|error| unreadable(path, error))?;
            }
        }
    }
    let builder = match wanted.mode {
        SslMode::VerifyFull => builder.with_root_certificates(roots),
        SslMode::VerifyCa => {
            let verifier = Arc::new(AnyName { provider, roots: Some(roots) });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            let verifier = Arc::new(AnyName { provider, roots: None });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let Some((certificate, key)) = &wanted.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate).await?;
    builder.with_client_auth_cert(chain, secret_key(key).await?).map_err(|error| {
        let files = format!("`{}` and `{}`", certificate.display(), key.display());
        Error::new(ErrorKind::Config, format!("{files} are no certificate and its key")).cause(error)
    })
}

/// The certificates of a PEM file, which are to be trusted.
///
/// # Errors
/// A file that cannot be read, or that holds none.
pub(crate) async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = tokio::fs::read(path)
        .await
        .map_err(|error| Error::io(&error, format!("the certificate file `{}`", path.display())))?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unreadable(path, error))?;
    if found.is_empty() { Err(unreadable(path, "it holds no certificate")) } else { Ok(found) }
}

fn unreadable(path: &Path, cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("the certificate file `{}` cannot be read", path.display())).cause(cause)
}

/// The key of a PEM file, which nobody else may read (libpq: at most the group, of a file that is root's).
async fn secret_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let what = || format!("the key file `{}`", path.display());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = tokio::fs::metadata(path).await.map_err(|error| Error::io(&error, what()))?;
        let others = if file.uid() == 0 { 0o027 } else { 0o077 };
        if file.mode() & others != 0 {
            return Err(Error::new(ErrorKind::Config, format!("{} can be read by others", what()))
                .hint(format!("chmod 0600 {}", path.display())));
        }
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| Error::io(&error, what()))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        Error::new(ErrorKind::Config, format!("{} cannot be read", what()))
            .cause(error)
            .hint("it must be a PEM file with a private key that no passphrase protects")
    })
}

/// For modes that do not ask for the server's name: `verify-ca` asks for its authority, `prefer` and `require` encrypt without
/// asking who is there (libpq does the same). The handshake's signatures are always checked.
#[derive(Debug)]
struct AnyName {
    provider: Arc<CryptoProvider>,
    /// Who must have signed the certificate.
    roots: Option<RootCertStore>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let known = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(certificate)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, chain, now, known)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
