//! Bodies that stay where they are: two processes of one machine read them from each other's memory.
//!
//! Through a socket a body is copied into the kernel and out of it again, and summed on both sides.
//! `process_vm_readv(2)` copies it once (MPI and UCX call that cross-memory attach). A frame then has
//! the body's address in its place; it is the same message, and all else goes through the socket.
//!
//! Whether a process may read another one's memory is the system's decision, and a peer's word about
//! who it is and where to read is nobody's proof. So a process is read only if it has the other end of
//! this very connection open, which the system says. And each side draws a challenge that the other
//! one has to place in its memory, and reads it there:
//!
//! | frame | from | |
//! |---|---|---|
//! | `Offer` | the side that called | its process, where its probe is, and a challenge |
//! | `Offer` | the other one | the same; it has placed the challenge in its probe |
//! | `Readable` | the side that called | whether it found its challenge there; it has placed the other's |
//! | `Readable` | the other one | the same of this side |
//!
//! Who is told that its memory is readable may lend. What is lent is kept until the other side has
//! read it: the answer to a request says so, and [`Class::Taken`] does for an answer. When the
//! connection ends, the probe is erased before anything that was lent is let go. A reader takes the
//! probe together with each piece of a body, after it: if the challenge is still there, the piece was whole.
//!
//! Through a proxy nothing is lent: the other end is the proxy's.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use gradmesh_actors::messages::{Body, Values, WirePart};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::message::{decode, encode};
use super::{Class, Frame, Target};

/// Shorter bodies go through the socket: two system calls and the pages that they pin cost more than
/// the copy.
pub(super) const LENT_BYTES_MIN: usize = 32 << 10;
/// Frames of one connection whose bodies are lent; those beyond go through the socket. A worker has
/// one under way for each of a few shards.
pub(super) const LENT_MAX: usize = 16;
/// Frames about memory that each side sends in all.
const NOTES_MAX: u32 = 2;

/// Drawn by one side, placed by the other.
type Challenge = [u64; 2];

#[derive(Debug, Serialize, Deserialize)]
enum Note {
    Offer { process: u32, probe: u64, challenge: Challenge },
    Readable(bool),
}

impl WirePart for Note {}

/// What the two sides of a connection know of each other's memory. Clones share it.
#[derive(Clone, Debug)]
pub struct Attachment(Rc<State>);

#[derive(Debug)]
struct State {
    /// Where the other side looks.
    probe: Box<[AtomicU64; 2]>,
    challenge: Challenge,
    own: SocketAddr,
    peer: SocketAddr,
    heard: Cell<u32>,
    /// What the other side has offered, until it is known whether that can be read.
    offered: Cell<Option<Memory>>,
    /// The other side's memory, once it was found that it is, and can be read.
    other: Cell<Option<Memory>>,
    may_lend: Cell<bool>,
    /// By the number of the request, or of the one that is answered.
    lent: RefCell<BTreeMap<u64, Vec<Values>>>,
    /// Requests with bodies that were read from the other side's memory, until they are answered: it
    /// pays nothing for what they take here.
    borrowed: RefCell<BTreeSet<u64>>,
    /// A body was read from the other side's memory.
    has_read: Cell<bool>,
}

/// Another process's memory, and where its probe is.
#[derive(Clone, Copy, Debug)]
struct Memory {
    process: u32,
    probe: u64,
}

impl Attachment {
    /// Of the connection between these two addresses of one machine. `None` where the system has no
    /// random numbers.
    #[must_use]
    pub fn new(own: SocketAddr, peer: SocketAddr) -> Option<Self> {
        let challenge = [getrandom::u64().ok()?, getrandom::u64().ok()?];
        Some(Self(Rc::new(State {
            probe: Box::default(),
            challenge,
            own,
            peer,
            heard: Cell::new(0),
            offered: Cell::new(None),
            other: Cell::new(None),
            may_lend: Cell::new(false),
            lent: RefCell::default(),
            borrowed: RefCell::default(),
            has_read: Cell::new(false),
        })))
    }

    /// What the side that called begins with.
    #[must_use]
    pub fn offer(&self) -> Option<Frame> {
        let probe = std::ptr::from_ref(&*self.0.probe).expose_provenance() as u64;
        note(&Note::Offer { process: own_process(), probe, challenge: self.0.challenge })
    }

    /// Hears a frame of class [`Class::Memory`]; returns what the other side is told then. What can't
    /// be understood, or is not the next that is to be heard, is no offer: everything goes through the
    /// socket.
    pub fn hear(&self, frame: Frame, called: bool) -> Option<Frame> {
        let state = &*self.0;
        state.heard.set(state.heard.get().saturating_add(1).min(NOTES_MAX + 1));
        match (decode(&frame.meta, frame.bodies).ok()?, state.heard.get()) {
            (Note::Offer { process, probe, challenge }, 1) => {
                for (place, word) in state.probe.iter().zip(challenge) {
                    place.store(word, Ordering::SeqCst);
                }
                state.offered.set(Some(Memory { process, probe }));
                // Who was called is looked at when it has heard this side's challenge.
                if called { note(&Note::Readable(self.verify())) } else { self.offer() }
            }
            (Note::Readable(is_readable), NOTES_MAX) => {
                state.may_lend.set(is_readable);
                debug!(peer = %state.peer, is_readable, "whether the other side reads this one's memory");
                if called { None } else { note(&Note::Readable(self.verify())) }
            }
            _ => None,
        }
    }

    /// Whether the memory that was offered is the other side's, and can be read.
    fn verify(&self) -> bool {
        let State { own, peer, challenge, .. } = &*self.0;
        let other = self.0.offered.take();
        let other = other.filter(|other| other.has_open(*peer, *own) && other.holds(*challenge));
        self.0.other.set(other);
        other.is_some()
    }

    /// Whether the frame's long bodies are read from here; they are kept until [`Self::release`].
    pub(super) fn lend(&self, frame: &Frame) -> bool {
        let State { may_lend, lent, .. } = &*self.0;
        if !may_lend.get() || frame.request == 0 {
            return false;
        }
        let long: Vec<Values> = frame.bodies.iter().filter_map(lendable).cloned().collect();
        let mut lent = lent.borrow_mut();
        if long.is_empty() || lent.len() >= LENT_MAX {
            return false;
        }
        lent.insert(frame.request, long);
        true
    }

    /// The other side has read what was lent with this request, or with its answer.
    pub fn release(&self, request: u64) {
        self.0.lent.borrow_mut().remove(&request);
    }

    /// Whether a request may have bodies that are read from the other side's memory: as many as an
    /// honest one lends.
    pub(super) fn borrows(&self, request: u64) -> bool {
        let mut borrowed = self.0.borrowed.borrow_mut();
        borrowed.insert(request);
        borrowed.len() <= LENT_MAX
    }

    /// This side has answered a request.
    pub(super) fn answered(&self, request: u64) {
        self.0.borrowed.borrow_mut().remove(&request);
    }

    /// Reads a piece of what the other side lends, at an address.
    ///
    /// # Errors
    /// It is gone, or has let go what is there.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        let gone = || io::Error::other("what it lends is not there any more");
        let other = self.0.other.get().ok_or_else(gone)?;
        if !other.read(address, into, self.0.challenge) {
            return Err(gone());
        }
        self.0.has_read.set(true);
        Ok(())
    }

    /// Whether a lent body was read since this was asked last.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.0.has_read.take()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Before what is lent is let go, and may be written to.
        self.probe.iter().for_each(|place| place.store(0, Ordering::SeqCst));
        // Nor may the processor let what is written next be seen before that.
        fence(Ordering::SeqCst);
    }
}

/// A body that may stay where it is.
pub(super) fn lendable(body: &Body) -> Option<&Values> {
    match body {
        Body::F32(values) if body.byte_len() >= LENT_BYTES_MIN => Some(values),
        _ => None,
    }
}

/// Where another process finds these values.
pub(super) fn address(values: &Values) -> u64 {
    values.as_ptr().expose_provenance() as u64
}

fn note(note: &Note) -> Option<Frame> {
    let (meta, bodies) = encode(note).ok()?;
    Some(Frame { class: Class::Memory, kind: 0, request: 0, target: Target::NODE, meta, bodies })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the number is what another process asks the system for"
)]
fn own_process() -> u32 {
    std::process::id()
}

impl Memory {
    fn holds(self, challenge: Challenge) -> bool {
        self.read(self.probe, &mut [], challenge)
    }

    /// Reads from an address, and then the probe; whether both are there, and the probe holds the
    /// challenge.
    #[cfg(target_os = "linux")]
    fn read(self, address: u64, into: &mut [u8], challenge: Challenge) -> bool {
        use std::io::IoSliceMut;

        use nix::sys::uio::{RemoteIoVec, process_vm_readv};
        use nix::unistd::Pid;

        let (Ok(process), Ok(base), Ok(probe)) =
            (i32::try_from(self.process), usize::try_from(address), usize::try_from(self.probe))
        else {
            return false;
        };
        let mut found = [0; size_of::<Challenge>()];
        let whole = into.len() + found.len();
        let remote =
            [RemoteIoVec { base, len: into.len() }, RemoteIoVec { base: probe, len: found.len() }];
        let mut local = [IoSliceMut::new(into), IoSliceMut::new(&mut found)];
        // In the order of the list.
        let read = process_vm_readv(Pid::from_raw(process), &mut local, &remote);
        read == Ok(whole) && found == *bytemuck::bytes_of(&challenge)
    }

    /// Whether the process has the end at `at` open, of the TCP connection to `to`.
    #[cfg(target_os = "linux")]
    fn has_open(self, at: SocketAddr, to: SocketAddr) -> bool {
        use procfs::process::{FDTarget, Process};

        let rows = if at.is_ipv4() { procfs::net::tcp() } else { procfs::net::tcp6() };
        let mut rows = rows.into_iter().flatten();
        let end = rows.find(|row| row.local_address == at && row.remote_address == to);
        let files = i32::try_from(self.process)
            .ok()
            .and_then(|process| Process::new(process).and_then(|process| process.fd()).ok());
        end.zip(files).is_some_and(|(end, files)| {
            let is_end = |target: &FDTarget| matches!(target, FDTarget::Socket(inode) if *inode == end.inode);
            files.flatten().any(|file| is_end(&file.target))
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn read(self, _address: u64, _into: &mut [u8], _challenge: Challenge) -> bool {
        false
    }

    #[cfg(not(target_os = "linux"))]
    fn has_open(self, _at: SocketAddr, _to: SocketAddr) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    /// Both ends of a connection that is open.
    fn connection() -> [TcpStream; 2] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        [caller, listener.accept().unwrap().0]
    }

    fn of(end: &TcpStream) -> Attachment {
        Attachment::new(end.local_addr().unwrap(), end.peer_addr().unwrap()).unwrap()
    }

    /// Both sides in this process, which may read itself.
    fn attached() -> [Attachment; 2] {
        let ends = connection();
        let [caller, callee] = ends.each_ref().map(of);
        let offer = callee.hear(caller.offer().unwrap(), false).unwrap();
        let found = caller.hear(offer, true).unwrap();
        let found = callee.hear(found, false).unwrap();
        assert_eq!(caller.hear(found, true), None);
        [caller, callee]
    }

    fn frame(request: u64, values: &Values) -> Frame {
        let bodies = vec![Body::F32(Arc::clone(values))];
        Frame { bodies, ..Frame::bare(Class::Request, request) }
    }

    #[test]
    fn each_side_reads_what_the_other_one_lends() {
        let sides = attached();
        let values: Values = Arc::new((0..LENT_BYTES_MIN).map(|i| i as f32).collect());
        for (from, to) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
            assert!(from.lend(&frame(1, &values)) && !to.has_read());
            let mut read = vec![0.0f32; values.len()];
            to.read(address(&values), bytemuck::cast_slice_mut(&mut read)).unwrap();
            assert!(read == *values && to.has_read() && !to.has_read());
            from.release(1);
        }
        assert_eq!(Arc::strong_count(&values), 1);
    }

    #[test]
    fn what_is_lent_is_kept_until_it_is_released_and_short_bodies_and_frames_without_answer_never_are()
     {
        let [caller, _callee] = attached();
        let values: Values = Arc::new(vec![1.0; LENT_BYTES_MIN / 4]);
        assert!(caller.lend(&frame(7, &values)));
        assert_eq!(Arc::strong_count(&values), 2);
        caller.release(8);
        assert_eq!(Arc::strong_count(&values), 2);
        caller.release(7);
        assert_eq!(Arc::strong_count(&values), 1);
        assert!(!caller.lend(&frame(0, &values)));
        assert!(!caller.lend(&frame(9, &Arc::new(vec![1.0; LENT_BYTES_MIN / 4 - 1]))));
        for request in 1..=LENT_MAX as u64 {
            assert!(caller.lend(&frame(request, &values)));
        }
        assert!(!caller.lend(&frame(99, &values)), "more than is bounded");
    }

    #[test]
    fn nothing_that_was_lent_can_be_read_once_the_connection_has_ended() {
        let [caller, callee] = attached();
        // The memory is still there, and might hold anything.
        let values: Values = Arc::new(vec![1.0; LENT_BYTES_MIN / 4]);
        // Where the probe was is somebody else's then, who zeroes it or never had the challenge.
        drop(caller);
        let mut read = vec![0; 16];
        assert!(callee.read(address(&values), &mut read).is_err());
    }

    #[test]
    fn nobody_lends_before_the_other_side_has_found_its_challenge() {
        let values: Values = Arc::new(vec![1.0; LENT_BYTES_MIN / 4]);
        let ends = connection();
        let [caller, callee] = ends.each_ref().map(of);
        assert!(!caller.lend(&frame(1, &values)));
        assert!(callee.read(address(&values), &mut [0; 4]).is_err());
        let offer = caller.offer().unwrap();
        // As if the process at the number were another one: its memory has no such challenge.
        let mut lie: Note = decode(&offer.meta, Vec::new()).unwrap();
        let Note::Offer { probe, .. } = &mut lie else { panic!("an offer") };
        *probe = address(&values);
        let _ = callee.hear(note(&lie).unwrap(), false).unwrap();
        assert!(callee.read(address(&values), &mut [0; 4]).is_err(), "it was not looked at yet");
        assert_refused(&callee);
        assert!(!callee.lend(&frame(1, &values)));
        assert!(callee.read(address(&values), &mut [0; 4]).is_err());
    }

    /// The caller has said all, and is told that its memory is not read.
    fn assert_refused(callee: &Attachment) {
        let told = callee.hear(note(&Note::Readable(false)).unwrap(), false).unwrap();
        let told: Note = decode(&told.meta, Vec::new()).unwrap();
        assert!(matches!(told, Note::Readable(false)), "{told:?}");
    }

    /// Somebody has others place the challenge, and names them.
    #[test]
    fn a_process_that_has_not_the_other_end_of_the_connection_is_not_read() {
        let ends = connection();
        let callee = of(&ends[1]);
        let elsewhere = connection();
        let honest = of(&elsewhere[0]);
        // The right challenge, in a process that may be read, for a connection that is over.
        let Note::Offer { challenge, .. } =
            decode(&callee.offer().unwrap().meta, Vec::new()).unwrap()
        else {
            panic!("an offer")
        };
        drop(ends);
        for (place, word) in honest.0.probe.iter().zip(challenge) {
            place.store(word, Ordering::SeqCst);
        }
        let _ = callee.hear(honest.offer().unwrap(), false).unwrap();
        assert_refused(&callee);
    }

    #[test]
    fn an_offer_is_heard_once() {
        let ends = connection();
        let callee = of(&ends[1]);
        let offer = of(&ends[0]).offer().unwrap();
        assert!(callee.hear(offer.clone(), false).is_some());
        for _ in 0..5 {
            assert_eq!(callee.hear(offer.clone(), false), None);
        }
        assert_eq!(callee.hear(note(&Note::Readable(true)).unwrap(), false), None);
    }

    #[test]
    fn no_more_requests_borrow_than_an_honest_side_lends() {
        let [_caller, callee] = attached();
        assert!((1..=LENT_MAX as u64).all(|request| callee.borrows(request)));
        assert!(!callee.borrows(99));
        callee.answered(99);
        callee.answered(1);
        assert!(callee.borrows(100));
    }

    #[test]
    fn garbage_is_no_offer() {
        let ends = connection();
        for meta in [vec![], vec![0xc1; 40], vec![0x93, 1, 2, 3]] {
            let frame = Frame { meta, ..Frame::bare(Class::Memory, 0) };
            assert_eq!(of(&ends[1]).hear(frame, false), None);
        }
    }
}
