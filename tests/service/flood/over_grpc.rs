//! The same flood as calls.

use futures_util::future::{join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tonic::{Code, Status};

use super::aftermath::as_before;
use super::{BODY, FLOOD, FULL, GATED, HELD, PANICS, QUEUE, WEIGHT};
use super::{assert_right, busy, run, start};
use crate::grpc::inference::{ModelInferResponse, ServerLiveRequest};
use crate::grpc::{Client, bytes_of, channel, raw};
use crate::support::{Server, until};

/// What came of a row.
type Told = (f32, Result<ModelInferResponse, Status>);

async fn ask(mut client: Client, first: f32) -> Told {
    let request = raw(GATED, "FP32", &[1, 2], &bytes_of(&[first, 0.5]));
    (first, client.model_infer(request).await.map(tonic::Response::into_inner))
}

/// Their calls wait in the queue, and are taken back.
async fn fill_and_go(server: &Server, client: &Client) {
    let before = server.given_up();
    let calls = join_all((0..QUEUE).map(|_| ask(client.clone(), 50.0)));
    let mut other = client.clone();
    // On the same connection, behind them: when it is answered, they have arrived.
    let behind = Box::pin(other.server_live(ServerLiveRequest {}));
    drop(select(Box::pin(calls), behind).await);
    let noticed = || server.given_up() == before + QUEUE;
    until("calls that are taken back are noticed while the model is busy", noticed).await;
}

/// Calls that are refused whatever waits.
async fn refused_as_wrong(client: &Client) {
    let code = async |model: &str, values: &[f32]| {
        let rows = i64::try_from(values.len() / 2).unwrap();
        let request = raw(model, "FP32", &[rows, 2], &bytes_of(values));
        client.clone().model_infer(request).await.unwrap_err().code()
    };
    assert_eq!(code("pick", &[]).await, Code::InvalidArgument);
    assert_eq!(code("none", &[1.0, 1.0]).await, Code::NotFound);
    assert_eq!(code("pick", &[0.0; BODY]).await, Code::ResourceExhausted);
    assert_eq!(code("pick", &[PANICS, 1.0]).await, Code::Internal);
}

#[test]
fn calls_beyond_the_queue_are_resource_exhausted_and_those_taken_back_have_no_place() {
    let (server, gate) = start();
    run(async {
        let client = Client::new(channel(&server).await);
        let mut busy = busy(&server, &gate).await;
        fill_and_go(&server, &client).await;
        refused_as_wrong(&client).await;
        let calls = (0..FLOOD).map(|at| ask(client.clone(), 100.0 + at as f32));
        let mut told: FuturesUnordered<_> = calls.collect();
        for _ in QUEUE..FLOOD {
            let (_, refused) = told.next().await.unwrap();
            let refused = refused.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, FULL));
        }
        gate.open();
        while let Some((first, answer)) = told.next().await {
            let expected = [bytes_of(&[WEIGHT * (first + 0.5)])];
            assert_eq!(answer.unwrap().raw_output_contents, expected);
        }
        assert_right(HELD, &busy.answer().await);
        drop((told, client, busy));
        as_before(&server, &gate).await;
    });
}
