//! Requests between two nodes, over each transport.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::join_all;
use gradmesh::peer::{Proxy, REQUESTS_MAX, Reach};
use gradmesh::transport::{Connection, MemoryTransport, TcpTransport, Transport};
use gradmesh::wire::{
    Class, Fault, Frame, FrameReader, FrameWriter, Limits, Pulse, Role, Target, shake_hands,
};
use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::messages::{Body, LinkError, NodeConnected, WireMessage, ask};
use gradmesh_actors::presence::{Presence, WordId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;

use actix::Actor;

use crate::support::{
    Count, DESK, ECHO_MAX, Echo, LIMIT, Number, Refused, Release, Server, Stop, Wait, echo, hello,
    link, proxy,
};

macro_rules! on_each_transport {
    ($($name:ident),+ $(,)?) => {
        mod tcp {
            $(#[actix::test]
            async fn $name() {
                super::$name(std::rc::Rc::new(super::TcpTransport)).await;
            })+
        }
        mod memory {
            $(#[actix::test]
            async fn $name() {
                super::$name(std::rc::Rc::new(super::MemoryTransport::default())).await;
            })+
        }
    };
}

on_each_transport!(
    a_request_gets_its_reply,
    a_refusal_arrives_with_its_numbers,
    a_body_of_16_mib_arrives_with_the_same_bits,
    replies_may_come_out_of_order,
    messages_to_one_target_keep_their_order,
    short_requests_do_not_overtake_long_ones,
    a_node_is_told_of_by_its_first_connection_and_the_end_of_its_last,
    a_beat_is_noted_and_of_an_unknown_life_answered_with_a_roll_call,
    the_death_of_the_node_fails_what_waits,
    a_node_that_restarts_is_called_again,
    a_watched_link_finds_out_by_itself_who_listens,
    a_node_that_is_not_there_is_disconnected,
    an_unknown_kind_leaves_the_connection_alone,
    a_missing_target_is_closed_and_may_come_later,
    a_stopped_actor_is_closed,
    a_request_that_nobody_can_read_is_a_protocol_error,
    an_undecodable_request_ends_its_connection_only,
    more_requests_than_the_limit_are_refused,
    a_caller_that_gives_up_makes_room,
    garbage_on_the_port_leaves_others_served,
);

async fn a_request_gets_its_reply(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let desk = proxy(&link(&transport, server.address));

    let reply = ask(&desk.recipient(), echo("hello"), LIMIT).await;

    assert_eq!(reply, Ok(echo("hello")));
}

async fn a_refusal_arrives_with_its_numbers(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let long = Echo { text: String::new(), values: Arc::new(vec![0.0; ECHO_MAX + 1]) };

    let reply = link.request(DESK, long).await;

    assert_eq!(reply, Err(Refused::TooLong { got: ECHO_MAX + 1, max: ECHO_MAX }));
}

async fn a_body_of_16_mib_arrives_with_the_same_bits(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    // Bit patterns of all kinds: not-a-number with a payload, denormal, infinite.
    let patterns = (0..4u32 << 20).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)));
    let sent = Echo { text: "bulk".to_owned(), values: Arc::new(patterns.collect()) };

    let got = link.request(DESK, sent.clone()).await.unwrap();

    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
    assert_eq!(got.values.len(), sent.values.len());
    assert!(got.values.iter().zip(sent.values.iter()).all(same));
}

async fn replies_may_come_out_of_order(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let first = tokio::task::spawn_local(link.request(DESK, Wait { key: 1 }));
    let second = tokio::task::spawn_local(link.request(DESK, Wait { key: 2 }));

    link.request(DESK, Release { key: 2 }).await.unwrap();
    assert_eq!(second.await.unwrap(), Ok(Number(2)));
    assert!(!first.is_finished());

    link.request(DESK, Release { key: 1 }).await.unwrap();
    assert_eq!(first.await.unwrap(), Ok(Number(1)));
}

/// The desk's mailbox holds two: most of the burst finds it full.
async fn messages_to_one_target_keep_their_order(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let desk = proxy(&link(&transport, server.address));

    let burst = (0..200).map(|_| desk.send(Count));
    let counts = join_all(burst).await.into_iter().map(Result::unwrap);

    assert_eq!(counts.collect::<Vec<_>>(), (0..200).map(|i| Ok(Number(i))).collect::<Vec<_>>());
}

/// Short ones are sent by whoever asks where nothing waits, long ones by the connection's task.
async fn short_requests_do_not_overtake_long_ones(transport: Rc<dyn Transport>) {
    let mut listener = transport.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let link = link(&transport, listener.address());
    let echo = |length: usize| Echo { text: String::new(), values: Arc::new(vec![0.5; length]) };
    let lengths = [1, 2, 100_000, 3, 4, 50_000, 5, 20_000_000 / 4, 6];
    let read = async {
        let Connection { reader, writer, .. } = listener.accept().await.unwrap();
        let mut reader = FrameReader::new(reader, Limits::HELLO, Pulse::new());
        let mut writer = FrameWriter::new(writer, Pulse::new());
        shake_hands(&mut reader, &mut writer, &hello("server"), None).await.unwrap();
        for (request, length) in (1..).zip(lengths) {
            let frame = loop {
                let frame = reader.read().await.unwrap().unwrap();
                if frame.class == Class::Request {
                    break frame;
                }
            };
            assert_eq!((frame.request, frame.bodies[0].byte_len()), (request, 4 * length));
            if request == 1 {
                let answer = Frame { class: Class::Reply, ..frame };
                writer.write(&answer).await.unwrap();
                writer.flush().await.unwrap();
            }
        }
    };
    let ask = async {
        // The connection stands, and its task waits for requests.
        link.request(DESK, echo(lengths[0])).await.unwrap();
        let rest: Vec<_> =
            lengths[1..].iter().map(|&length| link.request(DESK, echo(length))).collect();
        join_all(rest).await
    };
    select! { biased;
        () = read => {}
        answers = ask => panic!("{answers:?}"),
    }
}

async fn a_node_is_told_of_by_its_first_connection_and_the_end_of_its_last(
    transport: Rc<dyn Transport>,
) {
    let server = Server::start(&*transport).await;
    let mut callers = server.router.watch_callers();
    let connected = |connected| NodeConnected { node: "client".to_owned(), connected };
    let first = link(&transport, server.address);
    first.request(DESK, echo("hello")).await.unwrap();
    assert_eq!(callers.recv().await, Some(connected(true)));
    let second = link(&transport, server.address);
    second.request(DESK, echo("hello")).await.unwrap();
    drop(first);
    second.request(DESK, echo("still here")).await.unwrap();
    assert!(callers.try_recv().is_err());
    drop(second);
    assert_eq!(callers.recv().await, Some(connected(false)));
}

async fn a_beat_is_noted_and_of_an_unknown_life_answered_with_a_roll_call(
    transport: Rc<dyn Transport>,
) {
    let server = Server::start(&*transport).await;
    let presence = Presence::default();
    server.router.tell_beats(presence.clone());
    let link = link(&transport, server.address);
    let mut roll_calls = link.roll_calls();
    presence.begin(true);
    let word = |number| WordId { life: Incarnation(1), number };
    // It waits for a connection.
    link.beat(word(1));
    link.request(DESK, echo("hello")).await.unwrap();
    roll_calls.changed().await.unwrap();
    presence.know("client", word(1));
    link.beat(word(2));
    roll_calls.changed().await.unwrap();
    presence.know("client", word(2));
    // Behind a request that is too long to be written at once, too.
    let values = Arc::new(vec![0.5; 1 << 20]);
    let long = link.request(DESK, Echo { text: String::new(), values });
    link.beat(word(2));
    long.await.unwrap();
    link.request(DESK, echo("after the beat")).await.unwrap();
    let mut heard = Vec::new();
    presence.take(|node, _| heard.push(node.to_owned()));
    assert_eq!(heard, ["client"]);
    assert!(!roll_calls.has_changed().unwrap());
}

async fn the_death_of_the_node_fails_what_waits(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let waiting = tokio::task::spawn_local(link.request(DESK, Wait { key: 1 }));
    link.request(DESK, echo("the wait arrived before this")).await.unwrap();

    server.kill().await;

    let failed = waiting.await.unwrap();
    assert!(
        matches!(&failed, Err(Refused::Link(LinkError::Disconnected { node, .. })) if node == "server"),
        "{failed:?}"
    );
}

async fn a_node_that_restarts_is_called_again(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let address = server.address;
    let link = link(&transport, address);
    link.request(DESK, echo("first life")).await.unwrap();
    server.kill().await;

    let _server = Server::start_at(&*transport, address, hello("server")).await;
    let mut reply = link.request(DESK, echo("second life")).await;
    while let Err(Refused::Link(LinkError::Disconnected { .. })) = reply {
        reply = link.request(DESK, echo("second life")).await;
    }

    assert_eq!(reply, Ok(echo("second life")));
}

/// Without a request that would make it call.
async fn a_watched_link_finds_out_by_itself_who_listens(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let address = server.address;
    let link = link(&transport, address);
    let mut reach = link.watch();
    assert_eq!(*reach.borrow(), Reach::Uncalled);
    link.request(DESK, echo("first life")).await.unwrap();
    assert_eq!(*reach.borrow(), Reach::Connected);

    server.kill().await;
    reach.wait_for(|reach| matches!(reach, Reach::Refused { calls: 1 })).await.unwrap();
    reach.wait_for(|reach| matches!(reach, Reach::Refused { calls: 3.. })).await.unwrap();

    let _server = Server::start_at(&*transport, address, hello("server")).await;
    reach.wait_for(|reach| *reach == Reach::Connected).await.unwrap();
}

async fn a_node_that_is_not_there_is_disconnected(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let address = server.address;
    server.kill().await;

    let reply = link(&transport, address).request(DESK, echo("anybody?")).await;

    assert!(matches!(reply, Err(Refused::Link(LinkError::Disconnected { .. }))), "{reply:?}");
}

async fn an_unknown_kind_leaves_the_connection_alone(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let waiting = tokio::task::spawn_local(link.request(DESK, Wait { key: 1 }));

    let reply = link.request(DESK, Unrouted).await;

    let cause = "parameter-server 3 takes no message of kind 2000".to_owned();
    let error = LinkError::Protocol { node: "server".to_owned(), cause };
    assert_eq!(reply, Err(Refused::Link(error)));
    link.request(DESK, Release { key: 1 }).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(Number(1)), "over the same connection");
}

async fn a_missing_target_is_closed_and_may_come_later(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let late = Target::new(Role::Worker, 9);
    assert_eq!(link.request(late, echo("")).await, Err(Refused::Link(LinkError::Closed)));

    let desk = crate::support::Desk::default().start();
    server.router.route::<Echo>(late, desk.recipient());
    assert_eq!(link.request(late, echo("")).await, Ok(echo("")));

    server.router.remove(late);
    assert_eq!(link.request(late, echo("")).await, Err(Refused::Link(LinkError::Closed)));
}

async fn a_stopped_actor_is_closed(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    link.request(DESK, Stop).await.unwrap();

    let reply = link.request(DESK, echo("still there?")).await;

    assert_eq!(reply, Err(Refused::Link(LinkError::Closed)));
}

async fn a_request_that_nobody_can_read_is_a_protocol_error(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);

    let reply = link.request(DESK, OtherEcho { number: 1 }).await;

    let named = |cause: &str| cause.starts_with("message of kind 1000: ");
    assert!(
        matches!(&reply, Err(Refused::Link(LinkError::Protocol { cause, .. })) if named(cause)),
        "{reply:?}"
    );
}

async fn an_undecodable_request_ends_its_connection_only(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let other = link(&transport, server.address);
    other.request(DESK, echo("before")).await.unwrap();
    let (mut reader, mut writer) = greeted(&*transport, server.address).await;
    let meta = vec![0xc1; 100];
    let request = Frame { class: Class::Request, kind: Echo::KIND, meta, ..bare(5) };
    writer.write(&request).await.unwrap();
    writer.flush().await.unwrap();

    let error = reader.read().await.unwrap().unwrap();
    assert_eq!((error.class, error.request), (Class::Error, 5));
    assert!(matches!(Fault::from_frame(error), Fault::Undecodable { kind: 1000, .. }));
    assert!(reader.read().await.unwrap().is_none(), "closed");
    assert_eq!(other.request(DESK, echo("after")).await, Ok(echo("after")));
}

async fn more_requests_than_the_limit_are_refused(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let waiting: Vec<_> =
        (0..256).map(|key| tokio::task::spawn_local(link.request(DESK, Wait { key }))).collect();
    assert_eq!(waiting.len(), REQUESTS_MAX);

    let refused = link.request(DESK, echo("one more")).await;

    let busy = LinkError::Busy { node: "server".to_owned(), waiting: REQUESTS_MAX };
    assert_eq!(refused, Err(Refused::Link(busy)));
}

async fn a_caller_that_gives_up_makes_room(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let desk = Proxy { link: link.clone(), target: DESK }.start();
    link.request(DESK, echo("connected")).await.unwrap();
    let mut given_up: Vec<_> = (0..256).map(|key| Box::pin(desk.send(Wait { key }))).collect();
    // Polled, they are in the proxy's mailbox, which keeps its order.
    assert!(given_up.iter_mut().all(|caller| caller.now_or_never().is_none()));
    let busy = desk.send(Count).await.unwrap();
    assert!(matches!(busy, Err(Refused::Link(LinkError::Busy { .. }))), "{busy:?}");

    drop(given_up);

    // Those that the connection's task has not sent yet, it drops in its next turn.
    let mut reply = desk.send(Count).await.unwrap();
    for _ in 0..10 {
        if reply.is_err() {
            reply = desk.send(Count).await.unwrap();
        }
    }
    assert_eq!(reply, Ok(Number(0)));
}

async fn garbage_on_the_port_leaves_others_served(transport: Rc<dyn Transport>) {
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    link.request(DESK, echo("before")).await.unwrap();
    let mut browser = transport.connect(server.address).await.unwrap();
    browser.writer.write_all(b"GET / HTTP/1.1\r\nHost: gradmesh.example\r\n\r\n").await.unwrap();

    // A hello and an error come, then the end; or a reset where the system says it so.
    let mut answer = Vec::new();
    let _ = browser.reader.read_to_end(&mut answer).await;

    assert_eq!(link.request(DESK, echo("after")).await, Ok(echo("after")));
}

/// A message that the desk has no handler for.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Unrouted;
impl gradmesh_actors::messages::WirePart for Unrouted {}
impl WireMessage for Unrouted {
    const KIND: u16 = 2000;
    type Reply = ();
    type Refusal = Refused;
}
impl actix::Message for Unrouted {
    type Result = Result<(), Refused>;
}

/// What an `Echo` might be in another release.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct OtherEcho {
    number: u8,
}
impl gradmesh_actors::messages::WirePart for OtherEcho {}
impl WireMessage for OtherEcho {
    const KIND: u16 = Echo::KIND;
    type Reply = ();
    type Refusal = Refused;
}
impl actix::Message for OtherEcho {
    type Result = Result<(), Refused>;
}

fn bare(request: u64) -> Frame {
    Frame { target: DESK, bodies: Vec::<Body>::new(), ..Frame::bare(Class::Request, request) }
}

type Reader = FrameReader<Box<dyn tokio::io::AsyncRead + Unpin>>;
type Writer = FrameWriter<Box<dyn tokio::io::AsyncWrite + Unpin>>;

/// A caller that has shaken hands and may now misbehave.
async fn greeted(transport: &dyn Transport, address: SocketAddr) -> (Reader, Writer) {
    let connection = transport.connect(address).await.unwrap();
    let mut reader = FrameReader::new(connection.reader, Limits::HELLO, Pulse::new());
    let mut writer = FrameWriter::new(connection.writer, Pulse::new());
    shake_hands(&mut reader, &mut writer, &hello("rude"), Some("server")).await.unwrap();
    (reader, writer)
}
