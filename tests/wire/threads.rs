//! Connections that are answered on the thread of the one actor that they are for.

use std::rc::Rc;
use std::sync::Arc;

use actix::Actor;
use actix_rt::Arbiter;
use futures_util::future::join_all;
use gradmesh::router::Router;
use gradmesh::transport::{TcpTransport, Transport};
use gradmesh::wire::Hello;
use gradmesh_actors::messages::LinkError;
use tokio::sync::oneshot;

use crate::support::{
    Count, DESK, Desk, Echo, Number, Refused, Server, echo, hello, link, link_as, proxy,
};

/// A desk on a thread of its own.
fn start_desk(callers: tokio::sync::mpsc::Receiver<gradmesh::router::Moved>) -> Arbiter {
    let arbiter = Arbiter::new();
    arbiter.spawn_fn(move || {
        let desk = Desk::default().start();
        let router = Router::new();
        router.route::<Echo>(DESK, desk.clone().recipient());
        router.route::<Count>(DESK, desk.recipient());
        tokio::task::spawn_local(router.serve_moved(callers));
    });
    arbiter
}

fn for_the_desk() -> Hello {
    Hello { target: Some(DESK), ..hello("client") }
}

#[actix::test]
async fn a_caller_of_one_target_alone_is_answered_by_its_thread_and_others_are_not() {
    let transport: Rc<dyn Transport> = Rc::new(TcpTransport);
    let listener = transport.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, router) = (listener.address(), Router::new());
    let thread = start_desk(router.hand_over(DESK));
    tokio::task::spawn_local(router.serve(listener, hello("server")));

    let alone = link_as(&transport, address, for_the_desk());
    // The first ones leave together with the hello's end, or nearly.
    let counted = join_all((0..50).map(|_| alone.request(DESK, Count))).await;
    assert_eq!(counted, (0..50).map(|number| Ok(Number(number))).collect::<Vec<_>>());
    let long = Echo { values: Arc::new(vec![1.5; 1 << 20]), ..echo("long") };
    assert_eq!(alone.request(DESK, long.clone()).await, Ok(long));

    // The node itself has no such actor.
    let refused = link(&transport, address).request(DESK, echo("here?")).await;
    assert!(matches!(refused, Err(Refused::Link(LinkError::Closed))), "{refused:?}");
    thread.stop();
}

#[actix::test]
async fn who_calls_for_a_target_without_a_thread_is_answered_by_the_node() {
    let transport: Rc<dyn Transport> = Rc::new(TcpTransport);
    let server = Server::start(&*transport).await;
    let link = link_as(&transport, server.address, for_the_desk());
    assert_eq!(link.request(DESK, echo("here?")).await, Ok(echo("here?")));
}

#[actix::test]
async fn a_thread_that_has_ended_costs_its_callers_their_connection_and_nobody_else_theirs() {
    let transport: Rc<dyn Transport> = Rc::new(TcpTransport);
    let server = Server::start(&*transport).await;
    drop(server.router.hand_over(DESK));
    let link = link_as(&transport, server.address, for_the_desk());
    let refused = link.request(DESK, echo("here?")).await;
    assert!(matches!(refused, Err(Refused::Link(LinkError::Disconnected { .. }))), "{refused:?}");
    let other = crate::support::link(&transport, server.address);
    assert_eq!(other.request(DESK, echo("here?")).await, Ok(echo("here?")));
}

/// As a worker's links do.
#[actix::test]
async fn a_proxy_on_another_thread_asks_from_there() {
    let transport: Rc<dyn Transport> = Rc::new(TcpTransport);
    let server = Server::start(&*transport).await;
    let (arbiter, address) = (Arbiter::new(), server.address);
    let (made, stands_in) = oneshot::channel();
    arbiter.spawn_fn(move || {
        let transport: Rc<dyn Transport> = Rc::new(TcpTransport);
        let link = link_as(&transport, address, for_the_desk());
        drop(made.send(proxy(&link).recipient::<Echo>()));
    });
    let stands_in = stands_in.await.unwrap();
    assert_eq!(stands_in.send(echo("here?")).await.unwrap(), Ok(echo("here?")));
    arbiter.stop();
}
