//! One row of the routing table: frame to message, mailbox, answer to frame.

use actix::{MailboxError, Recipient};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};
use gradmesh_actors::messages::{WireMessage, WirePart};

use crate::wire::{Class, Fault, Frame, Target, decode, encode};

/// The frame that answers a request, when its actor has.
pub(super) type Answering = LocalBoxFuture<'static, Frame>;

/// Whatever `M` was, behind one type.
pub(super) struct Route {
    /// Name of the type; two types must not share a kind.
    pub(super) message: &'static str,
    dispatch: Box<dyn Fn(Frame) -> Result<Answering, Fault>>,
}

impl Route {
    pub(super) fn new<M>(target: Target, recipient: Recipient<M>) -> Self
    where
        M: WireMessage,
        Result<M::Reply, M::Refusal>: Send,
    {
        let dispatch = move |request: Frame| dispatch(target, &recipient, request);
        Self { message: std::any::type_name::<M>(), dispatch: Box::new(dispatch) }
    }

    pub(super) fn dispatch(&self, request: Frame) -> Result<Answering, Fault> {
        (self.dispatch)(request)
    }
}

fn dispatch<M>(target: Target, recipient: &Recipient<M>, request: Frame) -> Result<Answering, Fault>
where
    M: WireMessage,
    Result<M::Reply, M::Refusal>: Send,
{
    let Frame { kind, request, meta, bodies, .. } = request;
    let message: M = decode(&meta, bodies)
        .map_err(|error| Fault::Undecodable { kind, cause: error.to_string() })?;
    let sending = recipient.send(message);
    let mut answering =
        async move { answer_frame(target, kind, request, sending.await) }.boxed_local();
    // To a full mailbox actix delivers on the first poll, not before, and then always: polled
    // here, a message can't be overtaken by the one after it.
    Ok(match (&mut answering).now_or_never() {
        Some(answer) => ready(answer).boxed_local(),
        None => answering,
    })
}

fn answer_frame<Reply: WirePart, Refusal: WirePart>(
    target: Target,
    kind: u16,
    request: u64,
    answer: Result<Result<Reply, Refusal>, MailboxError>,
) -> Frame {
    let (class, encoded) = match answer {
        Ok(Ok(reply)) => (Class::Reply, encode(&reply)),
        Ok(Err(refusal)) => (Class::Refusal, encode(&refusal)),
        Err(_) => return Fault::Gone { target }.to_frame(kind, request, target),
    };
    let cause = match encoded {
        Ok((meta, bodies)) => {
            let frame = Frame { class, kind, request, target, meta, bodies };
            match frame.check() {
                Ok(()) => return frame,
                Err(error) => error.to_string(),
            }
        }
        Err(error) => error.to_string(),
    };
    Fault::Unsendable { kind, cause }.to_frame(kind, request, target)
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};
    use futures_util::future::join_all;
    use gradmesh_actors::messages::{LinkError, WireMessage, WirePart};
    use serde::{Deserialize, Serialize};

    use super::Route;
    use crate::wire::{Class, Frame, Target, decode, encode};

    /// A mailbox that is full delivers late; not later than what comes after.
    #[actix::test]
    async fn a_full_mailbox_keeps_the_order() {
        let log = Log::default().start();
        let route = Route::new(Target::NODE, log.recipient::<Append>());
        let answers: Vec<_> =
            (0..50).map(|number| route.dispatch(request(number)).unwrap()).collect();

        let answers = join_all(answers.into_iter().rev()).await;

        let places: Vec<u32> = answers
            .into_iter()
            .rev()
            .map(|frame| decode::<Place>(&frame.meta, frame.bodies).unwrap().0)
            .collect();
        assert_eq!(places, (0..50).collect::<Vec<_>>());
    }

    fn request(number: u32) -> Frame {
        let (meta, bodies) = encode(&Append { number }).unwrap();
        Frame { meta, bodies, ..Frame::bare(Class::Request, u64::from(number) + 1) }
    }

    #[derive(Debug, Default)]
    struct Log(Vec<u32>);
    impl Actor for Log {
        type Context = Context<Self>;
    }
    impl Handler<Append> for Log {
        type Result = Result<Place, Failed>;
        fn handle(&mut self, Append { number }: Append, _ctx: &mut Self::Context) -> Self::Result {
            self.0.push(number);
            Ok(Place(self.0.len() as u32 - 1))
        }
    }

    #[derive(actix::Message, Serialize, Deserialize)]
    #[rtype(result = "Result<Place, Failed>")]
    struct Append {
        number: u32,
    }
    impl WirePart for Append {}
    impl WireMessage for Append {
        const KIND: u16 = 1;
        type Reply = Place;
        type Refusal = Failed;
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Place(u32);
    impl WirePart for Place {}
    #[derive(Debug, thiserror::Error, Serialize, Deserialize)]
    #[error(transparent)]
    struct Failed(#[from] LinkError);
    impl WirePart for Failed {}
}
