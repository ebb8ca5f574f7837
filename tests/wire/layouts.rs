//! Messages that travel without the names of their fields, byte by byte.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use gradmesh::wire::{PROTOCOL, decode, encode};
use gradmesh_actors::ids::{ServerId, ShardCopy, ShardId, Slot, Version, View, WorkerId};
use gradmesh_actors::ledger::{EpochRecord, Ledger, SlotReport};
use gradmesh_actors::messages::{
    BytesMoved, CombineNorm, CombinedNorm, NormPart, Parameters, PartHeader, Predict, Prediction,
    PullParameters, PushGradient, Pushed, Replicate, Replicated, ReportShard, Resolved, Run,
    Update, WirePart,
};
use gradmesh_actors::model::Score;
use gradmesh_actors::reduction::Span;
use gradmesh_actors::request_queue::Priority;
use gradmesh_actors::tensor::{NamedTensor, Tensor};
use gradmesh_actors::version::{ServedVersion, VersionRef};

fn layout<P: WirePart>(part: &P) -> String {
    assert!(P::POSITIONAL);
    let (bytes, bodies) = encode(part).unwrap();
    let again: P = decode(&bytes, bodies).unwrap();
    assert_eq!(encode(&again).unwrap().0, bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn report() -> SlotReport {
    let score = Some(Score { rows: 7, loss: 0.5, correct: Some(6) });
    SlotReport { slot: Slot(3), rows: 5, loss: 0.25, score }
}

fn layouts() -> Vec<String> {
    let (view, shard, version) = (View(2), ShardId(1), Version(9));
    let to = ShardCopy { shard, server: ServerId(4) };
    let record = EpochRecord {
        epoch: 1,
        rows: 2,
        train_loss: 0.5,
        test_loss: Some(0.25),
        test_accuracy: None,
    };
    let ledger = Ledger { finished: vec![record], rows: 3, loss: 0.5, closed: true };
    let tensor = Tensor::of_values(Arc::new(vec![0.5; 6]), 2, 3).unwrap();
    let bytes = BytesMoved { pushed: 1, pushed_dense: 2, pulled: 3, replicated: 4 };
    vec![
        layout(&PushGradient {
            view,
            worker: WorkerId(3),
            shard,
            step: version,
            parts: vec![PartHeader { span: Span { first: 4, end: 6 }, rows: 8 }],
            reports: vec![report()],
            payload: Vec::new(),
        }),
        layout(&Pushed { version, values: Arc::default() }),
        layout(&Replicate {
            view,
            to,
            update: Arc::new(Update {
                step: version,
                sum_of_squares: Some(0.5),
                reports: vec![report()],
                gradient: Arc::default(),
            }),
        }),
        layout(&Replicated { applied: 7 }),
        layout(&PullParameters { view, shard, version: Some(version) }),
        layout(&Parameters { version, values: Arc::default() }),
        layout(&CombineNorm { step: version, shard, part: NormPart::Sums(vec![0.5]) }),
        layout(&CombineNorm { step: version, shard, part: NormPart::Whole(0.5) }),
        layout(&CombinedNorm { sum_of_squares: 0.5 }),
        layout(&ReportShard {
            view,
            copy: to,
            version,
            synced: vec![ServerId(5)],
            ledger: Some(ledger),
            bytes,
        }),
        layout(&Predict {
            model: "m".to_owned(),
            version: VersionRef::Latest,
            inputs: vec![NamedTensor { name: "x".to_owned(), tensor }],
            priority: Priority::Normal,
            limit: Duration::from_millis(1500),
            routed: Some("r".to_owned()),
            request_id: "i".to_owned(),
        }),
        layout(&Prediction {
            model: "m".to_owned(),
            version: ServedVersion::Published(2),
            digest: "d".to_owned(),
            classes: Some(3),
            rows: 4,
            resolved: Resolved::Now,
            compute_ns: 5,
            run: Run { rows: 6, first: true },
            outputs: Vec::new(),
        }),
    ]
}

/// Who changes one of these layouts raises [`PROTOCOL`] and writes the new one here: nodes of two
/// releases must not shake hands and then read each other's fields shifted.
#[test]
fn messages_without_names_of_fields_have_the_layout_of_this_version_of_the_protocol() {
    let expected = [
        "960203010991929204060891940305cb3fd00000000000009307cb3fe000000000000006",
        "9109",
        "93029201049309cb3fe000000000000091940305cb3fd00000000000009307cb3fe000000000000006",
        "9107",
        "93020109",
        "9109",
        "93090181a473756d7391cb3fe0000000000000",
        "93090181a577686f6c65cb3fe0000000000000",
        "91cb3fe0000000000000",
        "96029201040991059491950102cb3fe0000000000000cb3fd0000000000000c003cb3fe0000000000000c39401020304",
        "97a16da66c61746573749192a17892a446503332920203a64e6f726d616c9201ce1dcd6500a172a169",
        "99a16d81a95075626c697368656402a1640304a34e6f77059206c390",
    ];
    assert_eq!(PROTOCOL, 3);
    assert_eq!(layouts(), expected);
}
