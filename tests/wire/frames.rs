//! Bytes to frames and back, and bytes that are none.

use std::sync::Arc;

use gradmesh::wire::{
    Class, FRAME_BYTES_MAX, Frame, FrameError, FrameReader, FrameWriter, Limits, META_BYTES_MAX,
    MessageError, Pulse, Role, Target, decode,
};
use gradmesh_actors::messages::{Body, WirePart};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::io::duplex;
use tokio::join;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_frame_comes_back_bit_for_bit(frame in frames()) {
        let bytes = to_bytes(&frame);
        let again = from_bytes(&bytes).unwrap().unwrap();
        // By bytes: values may be not-a-number, which equals nothing.
        prop_assert_eq!(to_bytes(&again), bytes);
        prop_assert_eq!(again.meta, frame.meta);
        prop_assert_eq!((again.class, again.kind, again.request), (frame.class, frame.kind, frame.request));
        prop_assert_eq!(again.target, frame.target);
    }

    #[test]
    fn garbage_is_never_a_frame(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        prop_assert!(from_bytes(&bytes).is_err());
    }

    #[test]
    fn garbage_behind_a_true_magic_is_never_a_frame(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        prop_assert!(from_bytes(&[b"GMSH\x02\x02".as_slice(), &bytes].concat()).is_err());
    }

    #[test]
    fn garbage_is_an_error_of_the_typed_part(meta in prop::collection::vec(any::<u8>(), 0..64)) {
        // Whatever it is, it is no panic and no endless loop.
        let _ = decode::<Typed>(&meta, Vec::new());
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = to_bytes(&sample());
    assert!(from_bytes(&[]).unwrap().is_none(), "between two frames a stream may end");
    for length in 1..bytes.len() {
        let cut = from_bytes(&bytes[..length]);
        assert!(matches!(cut, Err(FrameError::Truncated)), "{length}: {cut:?}");
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = to_bytes(&sample());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(from_bytes(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_long_typed_part_is_refused_by_its_length_alone() {
    let mut head = to_bytes(&sample())[..28].to_vec();
    head[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = from_bytes(&head).unwrap_err();
    assert!(
        matches!(refused, FrameError::MetaTooLong { got, max }
            if got == u64::from(u32::MAX) && max == u64::from(META_BYTES_MAX)),
        "{refused}"
    );
}

#[test]
fn many_bodies_are_refused_by_their_number_alone() {
    let mut head = to_bytes(&sample())[..28].to_vec();
    head[18..20].copy_from_slice(&u16::MAX.to_le_bytes());
    let refused = from_bytes(&head).unwrap_err();
    assert!(matches!(refused, FrameError::TooManyBodies { got: 65535, max: 8192 }), "{refused}");
}

#[test]
fn a_long_frame_is_refused_by_its_table_alone() {
    let mut head = to_bytes(&sample())[..28 + 2 * 5].to_vec();
    for entry in [29, 34] {
        head[entry..entry + 4].copy_from_slice(&(200u32 << 20).to_le_bytes());
    }
    let refused = from_bytes(&head).unwrap_err();
    assert!(
        matches!(refused, FrameError::FrameTooLong { got, max: FRAME_BYTES_MAX } if got > 400 << 20),
        "{refused}"
    );
}

#[test]
fn a_body_of_half_a_value_is_refused() {
    let mut head = to_bytes(&sample())[..28 + 2 * 5].to_vec();
    head[29] = 6;
    let refused = from_bytes(&head).unwrap_err();
    assert!(matches!(refused, FrameError::BodyLength { index: 0, got: 6 }), "{refused}");
}

#[test]
fn a_frame_over_the_limit_is_not_written() {
    let body = Body::F32(Arc::new(vec![0.0; 40 << 20]));
    let frame = Frame { bodies: vec![body.clone(), body], ..sample() };
    assert!(matches!(frame.check(), Err(FrameError::FrameTooLong { .. })));
}

#[test]
fn frames_follow_each_other_without_a_gap() {
    let (first, second) = (sample(), Frame { request: 8, ..sample() });
    let bytes = [to_bytes(&first), to_bytes(&second)].concat();
    run(async {
        let mut reader = FrameReader::new(&bytes[..], Limits::TRUSTED, Pulse::new());
        assert_eq!(reader.read().await.unwrap(), Some(first));
        assert_eq!(reader.read().await.unwrap(), Some(second));
        assert_eq!(reader.read().await.unwrap(), None);
    });
}

/// Through a way that takes 40 bytes at a time, of frames of 62.
#[test]
fn what_is_left_of_frames_that_are_written_at_once_goes_with_the_next_flush() {
    let frames: Vec<Frame> = (1..20).map(|request| Frame { request, ..sample() }).collect();
    run(async {
        let (near, far) = duplex(40);
        let mut writer = FrameWriter::new(near, Pulse::new());
        let mut reader = FrameReader::new(far, Limits::TRUSTED, Pulse::new());
        assert!(writer.stages(&frames[0]) && !writer.write_now(&frames[0]));
        assert!(!writer.stages(&frames[1]), "something waits");
        for frame in &frames[1..] {
            assert!(!writer.write_now(frame));
        }
        let write = async { writer.flush().await.unwrap() };
        let read = async {
            for frame in &frames {
                assert_eq!(reader.read().await.unwrap().as_ref(), Some(frame));
            }
        };
        join!(write, read);
        let pong = Frame::bare(Class::Pong, 1);
        assert!(writer.stages(&pong) && writer.write_now(&pong));
        assert_eq!(reader.read().await.unwrap(), Some(pong));
    });
}

#[test]
fn a_long_frame_is_not_written_at_once() {
    let writer = FrameWriter::new(Vec::new(), Pulse::new());
    let frame =
        |bytes: usize| Frame { bodies: vec![Body::Bytes(vec![7; bytes].into())], ..sample() };
    assert!(writer.stages(&frame(1000)) && !writer.stages(&frame(100_000)));
}

#[test]
fn a_bomb_of_nested_arrays_is_refused() {
    let bomb = vec![0x91; 1 << 20];
    assert!(decode::<Typed>(&bomb, Vec::new()).is_err());
    // Under a field that nobody knows, so that the reader has to skip it.
    let mut hidden = b"\x82\xa6number\x05\xa4bomb".to_vec();
    hidden.extend_from_slice(&bomb);
    assert!(decode::<Typed>(&hidden, Vec::new()).is_err());
}

#[test]
fn bytes_after_the_typed_part_are_refused() {
    let good = b"\x81\xa6number\x05".as_slice();
    assert_eq!(decode::<Typed>(good, Vec::new()), Ok(Typed { number: 5 }));
    let after = |bytes: &[u8]| decode::<Typed>(&[good, bytes].concat(), Vec::new());
    for first in 0..=u8::MAX {
        for bytes in [&[first][..], &[first, first], &[0x91, first], &[0x81, 0xa0, first]] {
            assert_eq!(after(bytes), Err(MessageError::Trailing), "{bytes:02x?}");
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Typed {
    number: u32,
}
impl WirePart for Typed {}

fn sample() -> Frame {
    Frame {
        class: Class::Request,
        kind: 0x0102,
        request: 7,
        target: Target::new(Role::ParameterServer, 3),
        meta: vec![1, 2, 3],
        bodies: vec![
            Body::F32(Arc::new(vec![1.0, -0.0, f32::MIN_POSITIVE])),
            Body::Bytes(vec![9; 5].into()),
        ],
    }
}

fn frames() -> impl Strategy<Value = Frame> {
    let class = prop::sample::select(vec![
        Class::Hello,
        Class::Request,
        Class::Reply,
        Class::Refusal,
        Class::Error,
        Class::Ping,
        Class::Pong,
    ]);
    let role = prop::sample::select(vec![
        Role::Coordinator,
        Role::ParameterServer,
        Role::Worker,
        Role::Registry,
        Role::Predictor,
        Role::Node,
    ]);
    // Around the limits at which a writer stops copying and a reader reads in steps.
    let length = prop_oneof![0..100usize, 4000..4200usize, 65_000..67_000usize];
    let body = (any::<bool>(), length, any::<u32>()).prop_map(|(values, length, seed)| {
        if values {
            let bits = (0..length as u32).map(|i| f32::from_bits(seed.wrapping_mul(2 * i + 1)));
            Body::F32(Arc::new(bits.collect()))
        } else {
            Body::Bytes((0..length).map(|i| i as u8 ^ seed as u8).collect::<Vec<_>>().into())
        }
    });
    let ids = (class, any::<u16>(), any::<u64>(), role, any::<u32>());
    let meta = prop::collection::vec(any::<u8>(), 0..300);
    (ids, meta, prop::collection::vec(body, 0..5)).prop_map(
        |((class, kind, request, role, index), meta, bodies)| {
            let target = Target::new(role, index);
            Frame { class, kind, request, target, meta, bodies }
        },
    )
}

fn to_bytes(frame: &Frame) -> Vec<u8> {
    run(async {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, Pulse::new());
        writer.write(frame).await.unwrap();
        writer.flush().await.unwrap();
        drop(writer);
        bytes
    })
}

fn from_bytes(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    run(async { FrameReader::new(bytes, Limits::TRUSTED, Pulse::new()).read().await })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}
