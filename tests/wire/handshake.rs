//! Nodes that don't belong together say so, both of them.

use std::rc::Rc;

use gradmesh::transport::{MemoryTransport, Transport};
use gradmesh::wire::{
    Class, ConfigDigest, Fault, Frame, FrameError, FrameReader, FrameWriter, Hello, HelloError,
    Limits, PROTOCOL, Pulse, Target, encode, shake_hands,
};
use gradmesh_actors::messages::LinkError;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::support::{DESK, Refused, Server, echo, hello, link, link_as};

#[actix::test]
async fn nodes_of_one_cluster_learn_each_others_names() {
    let (called, caller) = meet(hello("a"), hello("b"), Some("b")).await;
    assert_eq!(called.unwrap(), hello("a"));
    assert_eq!(caller.unwrap(), hello("b"));
}

#[actix::test]
async fn another_configuration_is_named_on_both_sides() {
    let other = Hello { config_digest: ConfigDigest([9; 32]), ..hello("b") };
    let (called, caller) = meet(hello("a"), other, Some("b")).await;

    assert_eq!(
        caller.unwrap_err().to_string(),
        "node b has another configuration: digest 0707070707070707 here, 0909090909090909 there; \
         give both the same cluster.toml, --set and GRADMESH__ variables"
    );
    assert!(matches!(called, Err(HelloError::Config { node, .. }) if node == "a"));
}

#[actix::test]
async fn another_cluster_is_named_on_both_sides() {
    let other = Hello { cluster: "production".to_owned(), ..hello("b") };
    let (called, caller) = meet(hello("a"), other, Some("b")).await;

    let names = |error: &HelloError| match error {
        HelloError::Cluster { here, there, .. } => Some((here.clone(), there.clone())),
        _ => None,
    };
    let (test, production) = ("test".to_owned(), "production".to_owned());
    assert_eq!(names(&caller.unwrap_err()), Some((test.clone(), production.clone())));
    assert_eq!(names(&called.unwrap_err()), Some((production, test)));
}

#[actix::test]
async fn another_node_at_the_address_is_named_by_the_caller() {
    let (_, caller) = meet(hello("a"), hello("c"), Some("b")).await;
    assert_eq!(
        caller.unwrap_err().to_string(),
        "c answers at the address of node b; correct nodes.b.address"
    );
}

#[actix::test]
async fn another_protocol_version_is_named_and_answered() {
    let (near, mut far) = duplex(1 << 16);
    let (meta, bodies) = encode(&hello("old")).unwrap();
    let frame =
        Frame { class: Class::Hello, kind: 0, request: 0, target: Target::NODE, meta, bodies };
    let mut bytes = Vec::new();
    let mut writer = FrameWriter::new(&mut bytes, Pulse::new());
    writer.write(&frame).await.unwrap();
    writer.flush().await.unwrap();
    bytes[4] = PROTOCOL + 1;
    far.write_all(&bytes).await.unwrap();

    let error = greet(near, hello("new"), None).await.unwrap_err();

    let there = PROTOCOL + 1;
    assert!(
        matches!(error, HelloError::Frame(FrameError::Protocol { here: PROTOCOL, there: t }) if t == there),
        "{error}"
    );
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    let mut reader = FrameReader::new(&answer[..], Limits::TRUSTED, Pulse::new());
    assert_eq!(reader.read().await.unwrap().unwrap().class, Class::Hello);
    let fault = Fault::from_frame(reader.read().await.unwrap().unwrap());
    assert_eq!(fault, Fault::Connection { cause: error.to_string() });
}

#[actix::test]
async fn a_hello_of_more_than_4_kib_is_refused() {
    let long = Hello { cluster: "x".repeat(5000), ..hello("b") };
    let (_, caller) = meet(hello("a"), long, Some("b")).await;
    assert!(
        matches!(caller, Err(HelloError::Frame(FrameError::MetaTooLong { max: 4096, .. }))),
        "{caller:?}"
    );
}

#[actix::test]
async fn a_mismatch_is_a_protocol_error_of_each_request() {
    let transport: Rc<dyn Transport> = Rc::new(MemoryTransport::default());
    let server = Server::start(&*transport).await;
    let stranger = Hello { cluster: "production".to_owned(), ..hello("client") };
    let refused = link_as(&transport, server.address, stranger).request(DESK, echo("")).await;

    let hint = "set cluster.name alike on both";
    assert!(
        matches!(&refused, Err(Refused::Link(LinkError::Protocol { cause, .. })) if cause.contains(hint)),
        "{refused:?}"
    );
    let served = link(&transport, server.address).request(DESK, echo("")).await;
    assert_eq!(served, Ok(echo("")));
}

type Shaken = Result<Hello, HelloError>;

/// What the called node and the calling one conclude.
async fn meet(caller: Hello, called: Hello, expected: Option<&str>) -> (Shaken, Shaken) {
    let (near, far) = duplex(1 << 16);
    tokio::join!(greet(far, called, None), greet(near, caller, expected))
}

async fn greet(stream: DuplexStream, own: Hello, expected: Option<&str>) -> Shaken {
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader, Limits::HELLO, Pulse::new());
    let mut writer = FrameWriter::new(writer, Pulse::new());
    shake_hands(&mut reader, &mut writer, &own, expected).await
}
