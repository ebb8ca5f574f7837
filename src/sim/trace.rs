//! What happened, in order: a hash of all of it, and the newest of it in words.

use std::collections::VecDeque;
use std::fmt;

use crate::wire::Class;

/// Number of a node in its simulation.
pub(super) type NodeIndex = u32;

/// What is kept for the timeline of a report: some seconds of a small cluster.
const RECENT_MAX: usize = 4096;

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds of simulated time.
    pub at_ms: u64,
    pub kind: EventKind,
}

/// Nodes go by their number, in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A message has arrived.
    Arrived {
        from: u32,
        to: u32,
        message: Sent,
    },
    Lost {
        from: u32,
        to: u32,
        message: Sent,
    },
    /// One more copy of it is on its way.
    Duplicated {
        from: u32,
        to: u32,
        message: Sent,
    },
    Connected {
        from: u32,
        to: u32,
    },
    Refused {
        from: u32,
    },
    Closed {
        from: u32,
        to: u32,
    },
    Reset {
        from: u32,
        to: u32,
    },
    /// A file was written, or that failed.
    Written {
        node: u32,
        path: String,
        bytes: u64,
        checksum: u32,
        failed: bool,
    },
    Removed {
        node: u32,
        path: String,
    },
    /// A fault began or ended, a node started or ended.
    World {
        text: String,
    },
    /// A node's own log line.
    Said {
        node: u32,
        text: String,
    },
}

/// A message as the network sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// `None` for bytes that are no frame.
    pub class: Option<Class>,
    /// `WireMessage::KIND`; 0 where it is no request or answer.
    pub kind: u16,
    pub bytes: u32,
    /// CRC-32 of all of it.
    pub checksum: u32,
}

/// The events of a run.
#[derive(Debug)]
pub(super) struct Trace {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    count: u64,
    recent: VecDeque<Event>,
    /// All of them, where somebody wants to compare two runs.
    all: Option<Vec<Event>>,
}

impl Trace {
    pub(super) fn new(keep_all: bool) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            buffer: Vec::new(),
            count: 0,
            recent: VecDeque::new(),
            all: keep_all.then(Vec::new),
        }
    }

    pub(super) fn add(&mut self, at_ms: u64, kind: EventKind) {
        self.count += 1;
        self.buffer.extend_from_slice(&at_ms.to_le_bytes());
        kind.put(&mut self.buffer);
        if self.buffer.len() >= 16 << 10 {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        let event = Event { at_ms, kind };
        if let Some(all) = &mut self.all {
            all.push(event.clone());
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(event);
    }

    pub(super) fn finish(mut self) -> Finished {
        self.hasher.update(&self.buffer);
        Finished {
            hash: self.hasher.finalize().to_hex().to_string(),
            events: self.count,
            recent: self.recent.into(),
            all: self.all,
        }
    }
}

pub(super) struct Finished {
    pub(super) hash: String,
    pub(super) events: u64,
    pub(super) recent: Vec<Event>,
    pub(super) all: Option<Vec<Event>>,
}

impl EventKind {
    fn put(&self, out: &mut Vec<u8>) {
        let ends = |out: &mut Vec<u8>, tag: u8, from: u32, to: u32| {
            out.push(tag);
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
        };
        let sent = |out: &mut Vec<u8>, message: &Sent| {
            out.extend_from_slice(&message.bytes.to_le_bytes());
            out.extend_from_slice(&message.checksum.to_le_bytes());
        };
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        match self {
            Self::Arrived { from, to, message } => {
                ends(out, 1, *from, *to);
                sent(out, message);
            }
            Self::Lost { from, to, message } => {
                ends(out, 2, *from, *to);
                sent(out, message);
            }
            Self::Duplicated { from, to, message } => {
                ends(out, 3, *from, *to);
                sent(out, message);
            }
            Self::Connected { from, to } => ends(out, 4, *from, *to),
            Self::Refused { from } => ends(out, 5, *from, 0),
            Self::Closed { from, to } => ends(out, 6, *from, *to),
            Self::Reset { from, to } => ends(out, 7, *from, *to),
            Self::Written { node, path, bytes, checksum, failed } => {
                ends(out, 8, *node, u32::from(*failed));
                out.extend_from_slice(&bytes.to_le_bytes());
                out.extend_from_slice(&checksum.to_le_bytes());
                text(out, path);
            }
            Self::Removed { node, path } => {
                ends(out, 9, *node, 0);
                text(out, path);
            }
            Self::World { text: said } => {
                ends(out, 10, 0, 0);
                text(out, said);
            }
            Self::Said { node, text: said } => {
                ends(out, 11, *node, 0);
                text(out, said);
            }
        }
    }

    /// The node on whose side this is.
    pub(super) fn node(&self) -> Option<u32> {
        match self {
            Self::Arrived { to, .. } | Self::Lost { to, .. } | Self::Duplicated { to, .. } => {
                Some(*to)
            }
            Self::Connected { from, .. } | Self::Refused { from } => Some(*from),
            Self::Closed { to, .. } | Self::Reset { to, .. } => Some(*to),
            Self::Written { node, .. } | Self::Removed { node, .. } | Self::Said { node, .. } => {
                Some(*node)
            }
            Self::World { .. } => None,
        }
    }
}

/// An event in words; `names` by node number.
pub(super) struct Told<'a>(pub(super) &'a Event, pub(super) &'a [String]);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Event { at_ms, kind }, names) = self;
        let name = |node: &u32| names.get(*node as usize).map_or("?", String::as_str);
        write!(f, "{:>9.3} s  ", *at_ms as f64 / 1000.0)?;
        match kind {
            EventKind::Arrived { from, to, message } => {
                write!(f, "{} → {}: {message}", name(from), name(to))
            }
            EventKind::Lost { from, to, message } => {
                write!(f, "{} → {}: lost: {message}", name(from), name(to))
            }
            EventKind::Duplicated { from, to, message } => {
                write!(f, "{} → {}: twice: {message}", name(from), name(to))
            }
            EventKind::Connected { from, to } => {
                write!(f, "{} → {}: connected", name(from), name(to))
            }
            EventKind::Refused { from } => write!(f, "{}: connection refused", name(from)),
            EventKind::Closed { from, to } => write!(f, "{} → {}: closed", name(from), name(to)),
            EventKind::Reset { from, to } => write!(f, "{} → {}: reset", name(from), name(to)),
            EventKind::Written { node, path, bytes, failed: false, .. } => {
                write!(f, "{}: wrote {path}, {bytes} B", name(node))
            }
            EventKind::Written { node, path, .. } => {
                write!(f, "{}: failed to write {path}", name(node))
            }
            EventKind::Removed { node, path } => write!(f, "{}: removed {path}", name(node)),
            EventKind::World { text } => write!(f, "** {text}"),
            EventKind::Said { node, text } => write!(f, "{}: {text}", name(node)),
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Some(class) => write!(f, "{class:?} {:#06x}, {} B", self.kind, self.bytes),
            None => write!(f, "{} B that are no frame", self.bytes),
        }
    }
}
