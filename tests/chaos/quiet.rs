//! A link on which nothing follows.

use std::time::Duration;

use gradmesh::sim::{FaultyLink, SharedFrameCounts, reorder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::timeout;

#[tokio::test]
async fn a_message_that_is_overtaken_arrives_also_where_nothing_follows() {
    let through = async {
        let callee = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = link.local_addr().unwrap();
        let (_faults, active) = watch::channel(vec![reorder("*", "*", 1000).kind]);
        let counts = SharedFrameCounts::default();
        let (from, to) = ("a".to_owned(), "b".to_owned());
        let to_address = callee.local_addr().unwrap();
        FaultyLink { from, to, to_address, faults: active, counts: counts.clone(), seed: 1 }
            .serve(link);
        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.write_all(b"a message of another protocol").await.unwrap();
        let (mut called, _) = callee.accept().await.unwrap();
        let mut first = [0; 9];
        let read = called.read_exact(&mut first);
        timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
        assert_eq!((&first, counts.get().overtaken), (b"a message", 1));
    };
    LocalSet::new().run_until(through).await;
}
