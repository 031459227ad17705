//! An HTTP server of our own that does as a test says: storms of errors, answers that are cut off, redirects, tokens.
//!
//! What only this server was asked is proved against a server of our own; what an API really does is asked of
//! [`crate::json_server`] and [`crate::datasette`].

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A request that was received.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Received {
    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, as it came.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let query = self.target.split_once('?')?.1;
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, beside `Content-Length` and `Connection`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Only so many bytes of the body are sent before the connection is closed.
    pub cut: Option<usize>,
    /// The connection is closed without any answer.
    pub hang_up: bool,
    /// Behind the body there is a space now and then, without an end, until the client hangs up.
    pub drips: bool,
}

impl Reply {
    /// A JSON document.
    pub fn json(body: impl Into<String>) -> Self {
        Self::status(200, body).header("Content-Type", "application/json")
    }

    /// A status with a text.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into().into_bytes(), cut: None, hang_up: false, drips: false }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Closes the connection after so many bytes of the body.
    #[must_use]
    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    /// Never comes to an end, and is never silent for long.
    #[must_use]
    pub fn dripping(mut self) -> Self {
        self.drips = true;
        self
    }

    /// Closes the connection instead of answering.
    #[must_use]
    pub fn hang_up() -> Self {
        Self { hang_up: true, ..Self::status(0, "") }
    }
}

type Answering = dyn Fn(&Received, usize) -> Reply + Send + Sync;

/// A running server; ends with the value.
pub struct HttpServer {
    /// `http://127.0.0.1:port`.
    pub url: String,
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    stopping: Arc<AtomicBool>,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl HttpServer {
    /// Answers every request as `answer` says; it is told how many requests came before.
    ///
    /// # Panics
    /// When there is no port to be had.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that needs the server fails aloud without it")]
    pub fn start(answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        let bound = TcpListener::bind(("127.0.0.1", 0));
        let Ok((port, listener)) = bound.and_then(|listener| Ok((listener.local_addr()?.port(), listener))) else {
            panic!("no port for an HTTP server");
        };
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let (log, stopped, answer): (_, _, Arc<Answering>) = (received.clone(), stopping.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || {
                    // A client that hangs up is the test's own affair.
                    let _ = serve(stream, &log, answer.as_ref());
                });
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), port, received, stopping }
    }

    /// What was received so far, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the listener up.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Received>>, answer: &Answering) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut received = Received {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        ..Received::default()
    };
    if received.method.is_empty() {
        return Ok(());
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        received.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = received.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    received.body = String::from_utf8_lossy(&body).into_owned();
    let before = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(received.clone());
        log.len() - 1
    };
    let reply = answer(&received, before);
    let mut stream = stream;
    if !reply.hang_up {
        let length = if reply.drips { usize::MAX >> 1 } else { reply.body.len() };
        let head = format!("HTTP/1.1 {} X\r\nContent-Length: {length}\r\nConnection: close\r\n", reply.status);
        let mut head = head.into_bytes();
        for (name, value) in &reply.headers {
            head.extend_from_slice(format!("{name}: ").as_bytes());
            // A header is bytes: letters up to `ÿ` are one each, as old servers send them.
            head.extend(value.chars().map(|char| u8::try_from(char).unwrap_or(b'?')));
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        stream.write_all(&head)?;
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())])?;
        stream.flush()?;
        if reply.drips {
            loop {
                std::thread::sleep(std::time::Duration::from_millis(20));
                stream.write_all(b" ")?;
            }
        }
    }
    stream.shutdown(Shutdown::Both)
}
