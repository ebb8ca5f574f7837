//! Messages from and to bytes. What can't be read is the caller's fault and is said to be, and no
//! message takes much more memory than it has bytes.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Fields of a message, those of its tensors not counted. An empty tensor has two bytes in a message
/// and some hundred in memory; a model has a handful of them.
const FIELDS_MAX: usize = 4096;

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

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Takes the buffer's memory; `bytes` fields of the message are parts of it.
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        read(bytes).map(Some).map_err(Status::invalid_argument)
    }
}

fn read<U: Message + Default>(bytes: Bytes) -> Result<U, String> {
    let fields = fields(&bytes).ok_or("the message is cut or no protobuf")?;
    if fields > FIELDS_MAX {
        return Err(format!("the message has {fields} fields, more than {FIELDS_MAX}"));
    }
    U::decode(bytes).map_err(|error| format!("the message can't be read: {error}"))
}

/// Fields of a message, by their wire types; `None` where they don't end where the message does.
fn fields(mut bytes: &[u8]) -> Option<usize> {
    let mut fields = 0;
    while !bytes.is_empty() {
        let (key, rest) = varint(bytes)?;
        let (skip, rest) = match key & 7 {
            0 => (0, varint(rest)?.1),
            1 => (8, rest),
            2 => varint(rest)?,
            5 => (4, rest),
            _ => return None,
        };
        bytes = rest.get(usize::try_from(skip).ok()?..)?;
        fields += 1;
    }
    Some(fields)
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
    use super::super::inference::{ModelInferRequest, ModelReadyRequest};
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
        assert_eq!(refused, "the message has 1048576 fields, more than 4096");
    }
}
