//! What has to be so when all callers have gone.

use super::client::{Connection, post};
use super::{BODIES, BODY, Gate, QUEUE, WAIT_MAX, overflow};
use crate::support::{Server, rows, sentence, until};

/// As before the flood: nobody is connected, and as much finds room as ever did.
pub(super) async fn as_before(server: &Server, gate: &Gate) {
    until("no connection is open", || open_connections(server) == 0).await;
    let mut burst = Connection::open_many(server.address, 2 * QUEUE).await;
    overflow(server, gate, &mut burst).await;
    all_places_are_free(server).await;
    drop(burst);
    server.still_answers();
    until("no connection is open", || open_connections(server) == 0).await;
}

/// Either end of a connection with the service, by the tables of the system. 0 where it has none of
/// them, as macOS: there only the other checks count.
fn open_connections(server: &Server) -> usize {
    const LISTENS: &str = "0A";
    /// Nobody has it open any more.
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let ports = [
        server.address.port(),
        #[cfg(feature = "grpc")]
        server.grpc_address.port(),
    ];
    let is_open = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        let mut port = || {
            let (_, port) = columns.next()?.rsplit_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        let (local, remote) = (port(), port());
        let ours = ports.iter().any(|port| [local, remote].contains(&Some(*port)));
        ours && columns.next().is_some_and(|state| ![LISTENS, TIME_WAIT].contains(&state))
    };
    table.lines().filter(is_open).count()
}

/// As many of the largest bodies as may be under way are, one byte before their end: were a single
/// place still taken, one of them would be refused.
async fn all_places_are_free(server: &Server) {
    let path = "/v2/models/pick/infer";
    let small = rows(&[0.25, 0.75]).to_string();
    let large = post(path, &format!("{small}{}", " ".repeat(BODY - small.len())));
    let (begin, end) = large.split_at(large.len() - 1);
    let mut callers = Connection::open_many(server.address, BODIES / BODY).await;
    for caller in &mut callers {
        caller.send(begin).await;
    }
    let mut other = Connection::open(server.address).await;
    let ask = async {
        loop {
            let answer = other.ask(&post(path, &small)).await;
            if answer.status != 200 {
                break answer;
            }
            // One of the large ones may have come just then, when this one had its place.
            for caller in callers.iter_mut() {
                if caller.is_answered() {
                    *caller = Connection::open(server.address).await;
                    caller.send(begin).await;
                }
            }
        }
    };
    let refused = tokio::time::timeout(WAIT_MAX, ask).await.unwrap();
    assert_eq!((refused.status, refused.retry_after.as_deref()), (429, Some("1")));
    let expected = "requests of 1048576 bytes are under way already; try again in a second";
    assert_eq!(sentence(&refused.json()), expected);
    for caller in &mut callers {
        assert_eq!(caller.ask(end).await.status, 200);
    }
}
