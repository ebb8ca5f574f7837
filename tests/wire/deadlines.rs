//! What takes too long, on the paused clock.

use std::rc::Rc;
use std::time::Duration;

use gradmesh::peer::LinkPolicy;
use gradmesh::router::SILENCE_MAX;
use gradmesh::transport::{Connection, Listener, MemoryTransport, Transport};
use gradmesh::wire::{
    FRAME_TIME_MAX, Frame, FrameReader, FrameWriter, HELLO_TIME_MAX, Limits, Pulse, shake_hands,
};
use gradmesh_actors::messages::LinkError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, advance, pause};

use crate::support::{DESK, Refused, Server, Wait, echo, hello, link};

#[actix::test]
async fn a_caller_that_stops_inside_a_frame_is_closed() {
    pause();
    let transport = MemoryTransport::default();
    let server = Server::start(&transport).await;
    let Connection { reader, writer, .. } = transport.connect(server.address).await.unwrap();
    // One direction through a pipe of our own, so that half a frame can be written.
    let mut reader = FrameReader::new(reader, Limits::HELLO, Pulse::new());
    let mut writer = writer;
    {
        let mut greeting = FrameWriter::new(&mut writer, Pulse::new());
        shake_hands(&mut reader, &mut greeting, &hello("slow"), None).await.unwrap();
    }
    writer.write_all(b"GMSH").await.unwrap();
    let begun = Instant::now();

    let error = reader.read().await.unwrap().unwrap();

    let text = gradmesh::wire::Fault::from_frame(error).to_string();
    assert_eq!(text, "frame took longer than 30000 ms");
    assert!(reader.read().await.unwrap().is_none(), "closed");
    assert!(begun.elapsed() >= FRAME_TIME_MAX.min(SILENCE_MAX));
}

#[actix::test]
async fn a_caller_without_a_hello_is_closed() {
    pause();
    let transport = MemoryTransport::default();
    let server = Server::start(&transport).await;
    let mut silent = transport.connect(server.address).await.unwrap();
    let begun = Instant::now();

    let mut all = Vec::new();
    silent.reader.read_to_end(&mut all).await.unwrap();

    assert_eq!(begun.elapsed().as_secs(), HELLO_TIME_MAX.as_secs());
}

#[actix::test]
async fn a_node_that_falls_silent_is_noticed() {
    pause();
    let transport: Rc<dyn Transport> = Rc::new(MemoryTransport::default());
    let listener = transport.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let link = link(&transport, listener.address());
    let stopped = tokio::task::spawn_local(shake_hands_then_stop(listener));
    let begun = Instant::now();

    let reply = link.request(DESK, echo("anybody?")).await;

    let cause = "silent for 3000 ms".to_owned();
    let error = LinkError::Disconnected { node: "server".to_owned(), cause };
    assert_eq!(reply, Err(Refused::Link(error)));
    assert_eq!(begun.elapsed().as_secs(), LinkPolicy::default().silence_max.as_secs());
    drop(stopped);
}

/// A worker that computes reads nothing meanwhile.
#[actix::test]
async fn a_thread_that_did_something_else_has_not_heard_silence() {
    pause();
    let limit = LinkPolicy::default().silence_max;
    let pulse = Pulse::new();
    let silent = tokio::task::spawn_local(async move { pulse.silent_for(limit).await });
    tokio::task::yield_now().await;

    advance(10 * limit).await;
    tokio::time::sleep(limit * 3 / 4).await;
    assert!(!silent.is_finished());

    let listened = Instant::now();
    silent.await.unwrap();
    assert!(listened.elapsed() <= limit / 2, "{:?}", listened.elapsed());
}

/// A handler may take as long as it likes: the node answers pings meanwhile.
#[actix::test]
async fn a_node_that_works_for_long_is_not_silent() {
    pause();
    let transport: Rc<dyn Transport> = Rc::new(MemoryTransport::default());
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let waiting = tokio::task::spawn_local(link.request(DESK, Wait { key: 1 }));

    tokio::time::sleep(10 * SILENCE_MAX).await;

    assert!(!waiting.is_finished());
}

#[actix::test]
async fn calls_to_a_dead_node_are_paced() {
    pause();
    let memory = MemoryTransport::default();
    let transport: Rc<dyn Transport> = Rc::new(memory.clone());
    let server = Server::start(&*transport).await;
    memory.cut(server.address);
    let link = link(&transport, server.address);
    let begun = Instant::now();
    // 0, 50, 150, 350, 750, 1550, then once a second.
    for _ in 0..10 {
        let reply = link.request(DESK, echo("anybody?")).await;
        assert!(matches!(reply, Err(Refused::Link(LinkError::Disconnected { .. }))), "{reply:?}");
    }
    let waited = begun.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(7)).contains(&waited), "{waited:?}");

    memory.heal(server.address);
    assert_eq!(link.request(DESK, echo("there?")).await, Ok(echo("there?")));
}

#[actix::test]
async fn a_cut_breaks_what_is_connected() {
    pause();
    let memory = MemoryTransport::default();
    let transport: Rc<dyn Transport> = Rc::new(memory.clone());
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let waiting = tokio::task::spawn_local(link.request(DESK, Wait { key: 1 }));
    link.request(DESK, echo("connected")).await.unwrap();

    memory.cut(server.address);

    let failed = waiting.await.unwrap();
    assert!(matches!(failed, Err(Refused::Link(LinkError::Disconnected { .. }))), "{failed:?}");
}

async fn shake_hands_then_stop(mut listener: Box<dyn Listener>) -> Option<Frame> {
    let connection = listener.accept().await.unwrap();
    let mut reader = FrameReader::new(connection.reader, Limits::HELLO, Pulse::new());
    let mut writer = FrameWriter::new(connection.writer, Pulse::new());
    shake_hands(&mut reader, &mut writer, &hello("server"), None).await.unwrap();
    std::future::pending().await
}
