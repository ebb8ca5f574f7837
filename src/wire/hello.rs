//! The handshake: two nodes make sure that they belong together before anything else is read.

use std::fmt;
use std::time::Duration;

use gradmesh_actors::messages::WirePart;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::message::{MessageError, decode, encode};
use super::{Class, Fault, Frame, FrameError, FrameReader, FrameWriter, Limits, Target};

/// A node that runs sends its hello at once; the rest is the way there and back.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(5);

/// BLAKE3 of the part of the configuration that all nodes share.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigDigest(pub [u8; 32]);

/// Eight of its bytes: enough for a person to see whether two are the same.
impl fmt::Display for ConfigDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConfigDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigDigest({self})")
    }
}

/// Who a node is. The protocol version stands in the head of the frame that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `cluster.name` of the configuration.
    pub cluster: String,
    /// The node's own name in the configuration.
    pub node: String,
    pub config_digest: ConfigDigest,
    /// The only one whom this connection's requests are for, if it is one: the other side may give
    /// the connection to its thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

impl WirePart for Hello {}

/// Why two nodes don't talk to each other.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    #[error(
        "node {node} belongs to cluster {there}, this one to {here}; set cluster.name alike on both or correct the address"
    )]
    Cluster { node: String, here: String, there: String },
    #[error(
        "node {node} has another configuration: digest {here} here, {there} there; give both the same cluster.toml, --set and GRADMESH__ variables"
    )]
    Config { node: String, here: ConfigDigest, there: ConfigDigest },
    #[error("{got} answers at the address of node {expected}; correct nodes.{expected}.address")]
    Node { expected: String, got: String },
    #[error("no hello within {limit_ms} ms")]
    Late { limit_ms: u64 },
    #[error("the connection closed before a hello; is the other side a node?")]
    Closed,
    #[error("the first frame is {got:?}, not a hello")]
    NotHello { got: Class },
    #[error("the other side refuses: {0}")]
    Refused(Fault),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl HelloError {
    /// Whether the two nodes will never understand each other as they are configured; otherwise
    /// the connection just broke.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        !matches!(
            self,
            Self::Late { .. }
                | Self::Closed
                | Self::Frame(
                    FrameError::Io(_) | FrameError::Truncated | FrameError::TooSlow { .. }
                )
        )
    }
}

/// Sends `own` hello, reads the other side's and compares. A difference is told to the other side
/// before this returns, so that the logs of both name it.
///
/// `expected`: name of the node that was called, where this side called.
///
/// # Errors
/// [`HelloError`]; the connection is then to be closed.
pub async fn shake_hands<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    own: &Hello,
    expected: Option<&str>,
) -> Result<Hello, HelloError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let shaken = timeout(HELLO_TIME_MAX, async {
        let (meta, bodies) = encode(own)?;
        let target = Target::NODE;
        let hello = Frame { class: Class::Hello, kind: 0, request: 0, target, meta, bodies };
        writer.write(&hello).await?;
        writer.flush().await?;
        let other = read_hello(reader).await?;
        compare(own, &other, expected)?;
        Ok(other)
    })
    .await
    .unwrap_or(Err(HelloError::Late { limit_ms: HELLO_TIME_MAX.as_millis() as u64 }));

    match &shaken {
        Ok(_) => reader.set_limits(Limits::TRUSTED),
        Err(error) if !matches!(error, HelloError::Closed | HelloError::Refused(_)) => {
            let fault = Fault::Connection { cause: error.to_string() };
            // The other side may be gone, and hears of it then by the closed connection.
            let _ = writer.write(&fault.to_frame(0, 0, Target::NODE)).await;
            let _ = writer.shutdown().await;
        }
        Err(_) => {}
    }
    shaken
}

async fn read_hello<R>(reader: &mut FrameReader<R>) -> Result<Hello, HelloError>
where
    R: AsyncRead + Unpin,
{
    let frame = reader.read().await?.ok_or(HelloError::Closed)?;
    match frame.class {
        Class::Hello => Ok(decode(&frame.meta, frame.bodies)?),
        Class::Error => Err(HelloError::Refused(Fault::from_frame(frame))),
        got => Err(HelloError::NotHello { got }),
    }
}

fn compare(own: &Hello, other: &Hello, expected: Option<&str>) -> Result<(), HelloError> {
    let node = other.node.clone();
    if own.cluster != other.cluster {
        let (here, there) = (own.cluster.clone(), other.cluster.clone());
        return Err(HelloError::Cluster { node, here, there });
    }
    if own.config_digest != other.config_digest {
        let (here, there) = (own.config_digest, other.config_digest);
        return Err(HelloError::Config { node, here, there });
    }
    if let Some(expected) = expected.filter(|expected| *expected != node) {
        return Err(HelloError::Node { expected: expected.to_owned(), got: node });
    }
    Ok(())
}
