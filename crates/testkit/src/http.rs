//! A proxy in front of an HTTP server that breaks requests and answers on their way, as a test tells it to.
//!
//! It passes requests on as they are (a signature stays valid: the server sees the proxy's address in `Host`) and serves
//! one request a connection.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The longest head of a request or an answer.
const MOST_HEAD: usize = 64 << 10;

/// What happens to a request or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before there is any.
    Hangup,
    /// The proxy answers itself, with this status.
    Status(u16),
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// It comes in pieces of so many bytes.
    Trickle(usize),
    /// It claims to be of so many bytes, and is.
    Shorten(usize),
    /// The server does what it was asked for, and the connection is closed instead of an answer.
    Lose,
    /// The connection to the server is closed after so many bytes of the request's body, and that to the client, too.
    CutRequest(usize),
    /// The request waits for so long before it goes on.
    Late(Duration),
}

/// A request that passes.
#[derive(Debug, Clone)]
pub struct Passing {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// With the query.
    pub path: String,
    /// The bytes that are asked for, as the header says.
    pub range: Option<String>,
}

type Tell = Arc<Mutex<dyn FnMut(&Passing) -> Option<Fault> + Send>>;

/// A proxy on a free port of 127.0.0.1, on a thread of its own; ends with the value.
pub struct FaultyProxy {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for FaultyProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyProxy").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl FaultyProxy {
    /// Puts a proxy in front of `endpoint` (`http://host:port`); `tell` is asked for every request.
    ///
    /// # Errors
    /// No port to be had.
    pub fn start(endpoint: &str, tell: impl FnMut(&Passing) -> Option<Fault> + Send + 'static) -> io::Result<Self> {
        let server = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let tell: Tell = Arc::new(Mutex::new(tell));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                let accept = async {
                    while let Ok((client, _)) = listener.accept().await {
                        let (server, tell) = (server.clone(), tell.clone());
                        // A client that hangs up is no trouble of the proxy's.
                        tokio::spawn(async move { drop(pass(client, &server, &tell).await) });
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Self { endpoint, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A head, and what came with it of the body.
async fn head(from: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > MOST_HEAD || from.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// A head with `Connection: close`, and perhaps another length.
fn closing(head: &str, length: Option<usize>) -> String {
    let kept = head.trim_end().split("\r\n").filter(|line| {
        let key = line.split(':').next().unwrap_or_default();
        let replaced = length.is_some() && key.eq_ignore_ascii_case("content-length");
        !(key.eq_ignore_ascii_case("connection") || replaced)
    });
    let mut text = kept.collect::<Vec<_>>().join("\r\n");
    text.push_str("\r\nConnection: close");
    if let Some(length) = length {
        text.push_str(&format!("\r\nContent-Length: {length}"));
    }
    text + "\r\n\r\n"
}

async fn pass(mut client: TcpStream, server: &str, tell: &Tell) -> io::Result<()> {
    let (request, mut body) = head(&mut client).await?;
    let mut words = request.split(' ').map(str::to_owned);
    let passing = Passing {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        range: header(&request, "range"),
    };
    let fault = (tell.lock().unwrap_or_else(PoisonError::into_inner))(&passing);
    let length = header(&request, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while body.len() < length && client.read_buf(&mut body).await? > 0 {}
    match fault {
        Some(Fault::Hangup) => return Ok(()),
        Some(Fault::Status(status)) => {
            let answer = format!("HTTP/1.1 {status} no\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            return client.write_all(answer.as_bytes()).await;
        }
        Some(Fault::CutRequest(bytes)) => body.truncate(bytes),
        Some(Fault::Late(wait)) => tokio::time::sleep(wait).await,
        Some(Fault::Cut(_) | Fault::Trickle(_) | Fault::Shorten(_) | Fault::Lose) | None => {}
    }
    let mut upstream = TcpStream::connect(server).await?;
    upstream.write_all(closing(&request, None).as_bytes()).await?;
    upstream.write_all(&body).await?;
    match fault {
        Some(Fault::CutRequest(_)) => return Ok(()),
        // To its end, or the server might stop half-way.
        Some(Fault::Lose) => return upstream.read_to_end(&mut body).await.map(|_| ()),
        _ => {}
    }
    let (answer, mut chunk) = head(&mut upstream).await?;
    let shorter = match fault {
        Some(Fault::Shorten(length)) => Some(length),
        _ => None,
    };
    client.write_all(closing(&answer, shorter).as_bytes()).await?;
    let mut left = match fault {
        Some(Fault::Cut(bytes) | Fault::Shorten(bytes)) => bytes,
        _ => usize::MAX,
    };
    loop {
        let now = chunk.len().min(left);
        let step = match fault {
            Some(Fault::Trickle(bytes)) => bytes.max(1),
            _ => now.max(1),
        };
        for piece in chunk[..now].chunks(step) {
            client.write_all(piece).await?;
            if step < now {
                client.flush().await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        left -= now;
        chunk.clear();
        if left == 0 || upstream.read_buf(&mut chunk).await? == 0 {
            return client.flush().await;
        }
    }
}
