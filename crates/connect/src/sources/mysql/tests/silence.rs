//! A server that says nothing: stopped and alive, or for a connection that something stands in the way of.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test]
async fn a_server_that_is_stopped_in_the_middle_of_a_read_is_given_up_and_can_be_read_again() {
    let server = MariadbServer::start().unwrap();
    let database = server.database();
    let impatient = |yaml: &str| {
        // So long that a busy machine is not taken for a dead one.
        let keys = format!("{{type: mysql, url: \"{}\", read_timeout: 8s, connect_timeout: 8s}}", database.url());
        connect(&keys).unwrap().source(&extract(yaml)).unwrap()
    };
    let source = impatient("query: select seq, repeat('x', 1000) as v from seq_1_to_100000000");
    let schema = source.schema().await.unwrap();
    let scan = Scan { schema, batch_size: 500, on_bad_row: OnFail::Fail, rejects: None };
    let plan = source.plan(&ReadRequest::default()).await.unwrap();
    let mut rows = source.read(&plan.units[0], &scan);
    rows.next().await.unwrap().unwrap();
    let suspended = server.suspend().unwrap();
    let error = loop {
        match rows.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the rows ended as if they were all"),
        }
    };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert!(error.cause_text().unwrap().contains("the server sent nothing for 8s"), "{error}");
    assert!(error.hint_text().unwrap().contains("read_timeout"), "{error}");
    // Who asks the stopped server anew is not kept waiting either.
    let asked = impatient("query: select 1 as n").schema().await.unwrap_err();
    assert_eq!((asked.kind(), asked.is_retryable()), (ErrorKind::Unavailable, true), "{asked}");
    drop(suspended);
    assert_eq!(read(impatient("query: select 1 as n").as_ref()).await.unwrap()[0].num_rows(), 1);
}

/// Passes connections on to a server, but for the first of them that begins a transaction: nothing of it arrives.
fn stalling(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stalled = Arc::new(AtomicBool::new(false));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, stalled) = (client.unwrap(), stalled.clone());
            let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut to_client);
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    let is_begin = buffer[..count].windows(17).any(|words| words == b"START TRANSACTION");
                    if is_begin && !stalled.swap(true, Ordering::SeqCst) {
                        // Whatever else is said comes to nothing, too.
                        while let Ok(1..) = client.read(&mut buffer) {}
                        break;
                    }
                    if server.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

#[tokio::test]
async fn a_table_does_not_stay_locked_for_a_transaction_that_does_not_begin() {
    let database = mariadb::database();
    database.sql("create table t(n int primary key); insert into t select seq from seq_1_to_20000; analyze table t");
    let keys = format!(
        "{{type: mysql, host: 127.0.0.1, port: {}, user: {USER}, password: \"{PASSWORD}\", database: {}, sslmode: disable}}",
        stalling(database.port),
        database.name
    );
    let source = connect(&keys).unwrap().source(&extract("table: t\nunits: {target_rows: 500}")).unwrap();
    source.schema().await.unwrap();
    let plan = source.plan(&ReadRequest { parallelism: 4, ..ReadRequest::default() }).await.unwrap();
    assert!(plan.why.contains("beginning transactions while the table is locked took longer than 10s"), "{}", plan.why);
    // Nobody holds the table any more, and one connection reads all of it.
    database.sql("set lock_wait_timeout = 5; insert into t values (0)");
    let scan =
        Scan { schema: source.schema().await.unwrap(), batch_size: 1000, on_bad_row: OnFail::Fail, rejects: None };
    let mut rows = 0;
    for unit in &plan.units {
        let batches = source.read(unit, &scan).collect().await;
        rows += batches.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    assert_eq!(rows, 20_001);
}
