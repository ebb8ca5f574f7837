//! Messages from and to bytes. What can't be read is the caller's fault and is said to be, and no
//! message takes much more memory than it has bytes.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::inference::ModelInferRequest;

/// Fields of a message, those of its tensors not counted. An empty tensor has two bytes in a message
/// and some hundred in memory; a model has a handful of them.
const FIELDS_MAX: usize = 4096;

/// Bytes of a shape: 32 dimensions, ten bytes each at most.
const SHAPE_MAX: usize = 320;

/// Strings of a tensor.
const STRINGS_MAX: usize = 1 << 16;

/// Numbers of fields: `ModelInferRequest.inputs`, and of an input its shape and its contents.
const INPUTS: u64 = 5;
const SHAPE: u64 = 3;
const CONTENTS: u64 = 5;

/// Writes messages `T` and reads messages `U`.
#[derive(Debug)]
pub(super) struct Codec<T, U>(PhantomData<(T, U)>);

#[derive(Debug)]
pub(super) struct Reader<U>(PhantomData<U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(PhantomData)
    }
}

impl<U: Message + Default + 'static> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Takes the buffer's memory; `bytes` fields of the message are parts of it.
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        read(bytes).map(Some).map_err(Status::invalid_argument)
    }
}

fn read<U: Message + Default + 'static>(bytes: Bytes) -> Result<U, String> {
    let is_infer = TypeId::of::<U>() == TypeId::of::<ModelInferRequest>();
    walk(&bytes, FIELDS_MAX, &mut |number, value| match number {
        INPUTS if is_infer => check_input(value),
        _ => Ok(()),
    })?;
    U::decode(bytes).map_err(|error| format!("the message can't be read: {error}"))
}

/// A tensor: its dimensions have a byte each in a message and sixteen in memory, its strings two and
/// some thirty.
fn check_input(input: &[u8]) -> Result<(), String> {
    walk(input, FIELDS_MAX, &mut |number, value| match number {
        SHAPE if value.len() > SHAPE_MAX => {
            Err(format!("a shape of {} bytes; {SHAPE_MAX} are the most", value.len()))
        }
        CONTENTS => walk(value, STRINGS_MAX, &mut |_, _| Ok(())),
        _ => Ok(()),
    })
}

/// Looks at a field: its number, and its bytes.
type Visit<'a> = dyn FnMut(u64, &[u8]) -> Result<(), String> + 'a;

/// Goes over the fields of a message, at most so many, by their wire types: the number of each, and
/// its bytes where it has any.
fn walk(mut bytes: &[u8], fields_max: usize, visit: &mut Visit<'_>) -> Result<(), String> {
    let cut = || "the message is cut or no protobuf".to_owned();
    let mut fields = 0;
    while !bytes.is_empty() {
        fields += 1;
        if fields > fields_max {
            return Err(format!("the message has more than {fields_max} fields"));
        }
        let (key, value, rest) = field(bytes).ok_or_else(cut)?;
        visit(key >> 3, value)?;
        bytes = rest;
    }
    Ok(())
}

/// The first field: its key, its bytes where it has a length, and what follows. `None` where it does
/// not end in the message.
fn field(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (key, rest) = varint(bytes)?;
    let (skip, rest) = match key & 7 {
        0 => (0, varint(rest)?.1),
        1 => (8, rest),
        2 => varint(rest)?,
        5 => (4, rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(usize::try_from(skip).ok()?)?;
    Some((key, value, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::inference::model_infer_request::InferInputTensor;
    use super::super::inference::{InferTensorContents, ModelReadyRequest};
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let message = ModelReadyRequest { name: "m".into(), version: "1".into() };
        assert_eq!(read(message.encode_to_vec().into()), Ok(message));
        assert_eq!(read(Bytes::new()), Ok(ModelReadyRequest::default()));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in
            [&b"\x0a\x05m"[..], b"\x0a", b"\xff", b"\x0b\x0c", b"\x0a\x01\xff", &[0x80; 12]]
        {
            let refused = read::<ModelReadyRequest>(Bytes::copy_from_slice(bytes));
            assert!(refused.is_err(), "{bytes:?}: {refused:?}");
        }
    }

    #[test]
    fn tensors_that_are_small_on_the_wire_alone_are_refused_before_they_take_memory() {
        let tensors = |number| Bytes::from([0x2a, 0].repeat(number));
        assert_eq!(read::<ModelInferRequest>(tensors(3)).map(|r| r.inputs.len()), Ok(3));
        let refused = read::<ModelInferRequest>(tensors(1 << 20)).unwrap_err();
        assert_eq!(refused, "the message has more than 4096 fields");
    }

    #[test]
    fn shapes_and_strings_that_are_small_on_the_wire_alone_are_refused_too() {
        let of = |input: InferInputTensor| {
            let request = ModelInferRequest { inputs: vec![input], ..Default::default() };
            read::<ModelInferRequest>(request.encode_to_vec().into())
        };
        let shape = |rank| InferInputTensor { shape: vec![1; rank], ..Default::default() };
        assert!(of(shape(32)).is_ok());
        assert_eq!(of(shape(321)).unwrap_err(), "a shape of 321 bytes; 320 are the most");
        let strings = |count| InferInputTensor {
            contents: Some(InferTensorContents {
                bytes_contents: vec![Bytes::new(); count],
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(of(strings(STRINGS_MAX)).is_ok());
        let refused = of(strings(STRINGS_MAX + 1)).unwrap_err();
        assert_eq!(refused, "the message has more than 65536 fields");
    }
}
