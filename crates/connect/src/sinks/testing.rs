//! What the tests of several sinks share.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Hands bytes on between us and the server, and loses the server's answer to the first `commit` that `armed` is set for.
pub(crate) fn losing_proxy(server: u16, armed: Arc<AtomicBool>, commit: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let lose = Arc::new(AtomicBool::new(false));
            let (mut from, mut to, flag, armed) =
                (client.try_clone().unwrap(), server.try_clone().unwrap(), lose.clone(), armed.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    if buffer[..length].windows(commit.len()).any(|bytes| bytes == commit)
                        && armed.swap(false, Ordering::SeqCst)
                    {
                        flag.store(true, Ordering::SeqCst);
                    }
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
            let (mut from, mut to) = (server, client);
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    if lose.load(Ordering::SeqCst) || to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    port
}
