//! The tests' S3 server as a process of its own: `s3-server DIR PORT KEY SECRET [BUCKET…]`. Port 0 is any free port;
//! the address is the first line it prints.

use std::io;
use std::net::Ipv4Addr;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "whoever started it waits for the address")]
async fn main() -> io::Result<()> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: s3-server DIR PORT KEY SECRET [BUCKET…]");
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().ok_or_else(usage);
    let (folder, port, key, secret) = (next()?, next()?, next()?, next()?);
    std::fs::create_dir_all(&folder)?;
    for bucket in words {
        std::fs::create_dir_all(std::path::Path::new(&folder).join(bucket))?;
    }
    let port: u16 = port.parse().map_err(|_| usage())?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);
    gristmill_testkit::s3::serve(listener, folder.as_ref(), &key, &secret).await
}
