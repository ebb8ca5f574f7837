//! When a candidate follows, and when it stands.
//!
//! Safety is the log's: a view is had by whoever appends it first, so a leader that was superseded
//! can raise no view, and what it sends in the view before is refused by whoever has heard of the
//! next. Time decides only who tries when: a leader that is cut off from the store may believe until
//! it is answered again that it leads, and nothing comes of it. Every candidate measures with its own
//! monotonic clock how long the leader's beat has not changed; no two clocks are compared.
//!
//! A candidate observes the store each [`Candidacy::look_again_in`], tells this rule what it saw,
//! and does what [`Next`] says. Times are `Duration`s since any moment that stays the same.

use std::time::Duration;

use crate::ids::{Term, View};
use crate::messages::coordination::{Beat, Entry, Observed, Resign};

/// Beats in a lease: three of four may be late before anybody stands.
const BEATS: u32 = 4;
/// Nobody asks a store more often, whatever is due.
const LOOK_AT_LEAST: Duration = Duration::from_millis(1);
/// Candidates wait for those before them, a quarter of a beat each: longer than an append to a
/// disk or etcd takes. Beyond this many places they wait the same, and the log decides.
const PLACES_MAX: u32 = 16;
/// Beats that a leader of one's own name must miss where another process may have the name.
const NAMESAKE_BEATS: u32 = 2;
/// Leases for which one that gave way does not stand: in two, the last place has stood. Then
/// nobody else is there.
const GIVES_WAY_FOR: u32 = 3;

/// How long a leadership lasts without a renewal, and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    pub ttl: Duration,
    pub renew_every: Duration,
    /// How often a leader looks, and renews: as often, or more seldom where nobody waits for it.
    pub leads_every: Duration,
}

impl LeaseTiming {
    /// Four renewals in `ttl`.
    #[must_use]
    pub fn of(ttl: Duration) -> Self {
        let renew_every = ttl / BEATS;
        Self { ttl, renew_every, leads_every: renew_every }
    }

    /// Two, while it leads, for a candidate that nobody can replace: it has neither rivals nor namesakes, and
    /// what it looks for is whether its store can be used.
    #[must_use]
    pub fn for_candidate(ttl: Duration, rivals: u32, has_namesakes: bool) -> Self {
        let timing = Self::of(ttl);
        match rivals == 0 && !has_namesakes {
            true => Self { leads_every: ttl / 2, ..timing },
            false => timing,
        }
    }
}

/// What a candidate does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It leads: renew. What it does is safe by the log, not by time.
    Lead { term: Term },
    /// Another one leads.
    Follow { leader: String, term: Term },
    /// Nobody has led yet, and another candidate is to try first.
    Wait,
    /// Append an entry with these numbers: say [`Candidacy::tries`], then [`Candidacy::won`] or
    /// [`Candidacy::lost`], or [`Candidacy::not_taken`].
    Stand { view: View, term: Term },
}

/// One candidate's view of who leads.
#[derive(Clone, Debug)]
pub struct Candidacy {
    name: String,
    timing: LeaseTiming,
    /// Its place among the candidates; they wait for those before them.
    place: u32,
    seen: Option<Seen>,
    /// The newest term that may be of this candidate: it has tried to begin it, or found it under its name
    /// when it first looked. A newer one under its name is of another process that lives.
    own: Option<Term>,
    /// Whether another process may have this name and this store: nothing keeps it away.
    has_namesakes: bool,
    /// A term that was found under its name, and nobody has been seen to lead in it since.
    doubted: Option<Term>,
    /// The newest term under its name that another process was seen to lead in.
    foreign: Option<Term>,
    lead: Option<Lead>,
    /// When somebody last found the leader's process gone.
    suspected: Option<Duration>,
    /// The term that it gave up, and until when it leaves the next one to others.
    gave_way: Option<(Term, Duration)>,
    /// Until when it does not stand: the store has not taken an entry.
    held_off: Duration,
}

/// What the store said last.
#[derive(Clone, Debug)]
struct Seen {
    newest: Option<(View, Term, String)>,
    /// The count of the leader's beat in its own term.
    beat: Option<u64>,
    /// Whether there was a beat of this term that is gone: its leader has resigned, or the store
    /// has waited out its lease.
    gone: bool,
    at: Duration,
    /// Since when nothing has changed.
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Lead {
    term: Term,
    beats: u64,
}

impl Candidacy {
    /// `place` is 0 for the candidate that tries first; by the order of names, no two are the same.
    #[must_use]
    pub fn new(name: impl Into<String>, timing: LeaseTiming, place: u32) -> Self {
        Self {
            name: name.into(),
            timing,
            place: place.min(PLACES_MAX),
            seen: None,
            own: None,
            has_namesakes: false,
            doubted: None,
            foreign: None,
            lead: None,
            suspected: None,
            gave_way: None,
            held_off: Duration::ZERO,
        }
    }

    /// Another process may have its name and its store: what it finds under its name is its own only
    /// once two beats were missed. Without, it stands at once.
    #[must_use]
    pub fn with_namesakes(mut self) -> Self {
        self.has_namesakes = true;
        self
    }

    /// The store has answered at `now` what it was asked for at `asked_at`.
    ///
    /// Silence ends when a change is heard of and lasts until a question that finds none: a slow
    /// answer makes nobody stand.
    pub fn observed(&mut self, observed: &Observed, asked_at: Duration, now: Duration) -> Next {
        self.see(observed, now);
        let Some(Seen { newest, .. }) = &self.seen else { return Next::Wait };
        let Some((view, term, leader)) = newest.clone() else {
            return self.stand(View(0), Term(0), asked_at).unwrap_or(Next::Wait);
        };
        if self.lead.is_some_and(|lead| lead.term != term) {
            self.lead = None;
        }
        if self.lead.is_some() {
            return Next::Lead { term };
        }
        if leader != self.name {
            self.gave_way = None;
        }
        match self.stand(view, term, asked_at) {
            Some(stand) => stand,
            None if self.is_own(&leader, term) || self.doubted == Some(term) => Next::Wait,
            None => Next::Follow { leader, term },
        }
    }

    /// Whether a term is of this candidate, or of a life before this one.
    fn is_own(&self, leader: &str, term: Term) -> bool {
        leader == self.name && self.own.is_some_and(|own| term <= own) && self.foreign < Some(term)
    }

    /// An entry of `term` is about to be appended: whether that succeeds may never be heard of.
    pub fn tries(&mut self, term: Term) {
        self.own = self.own.max(Some(term));
    }

    /// Somebody has found that there is no process at the leader's address. It is not believed
    /// alone: only where a beat is missed too.
    pub fn suspect(&mut self, now: Duration) {
        self.suspected = self.suspected.max(Some(now));
    }

    /// The append that was asked for at `asked_at` has succeeded. Of one whose answer came late, when
    /// the log has gone on, nothing follows: the next observation says who leads.
    pub fn won(&mut self, entry: &Entry, asked_at: Duration) {
        if self.knows_more_than(entry.view) {
            return;
        }
        self.own = self.own.max(Some(entry.term));
        let same = self.lead.filter(|lead| lead.term == entry.term);
        // A view that was on its way when the term was given up.
        if self.gave_way.is_some_and(|(given_up, _)| given_up == entry.term) {
            return self.heard_of(entry, asked_at);
        }
        self.gave_way = None;
        self.lead = Some(same.unwrap_or(Lead { term: entry.term, beats: 0 }));
        self.heard_of(entry, asked_at);
    }

    /// The store has not taken the entry, or has not said so. It gets a beat of time: who stood at once
    /// would ask a full disk a thousand times a second.
    pub fn not_taken(&mut self, now: Duration) {
        self.held_off = now + self.timing.renew_every;
    }

    /// Another entry has the number, heard at `now`.
    pub fn lost(&mut self, entry: &Entry, now: Duration) {
        if self.lead.is_some_and(|lead| lead.term != entry.term) {
            self.lead = None;
        }
        if self.has_namesakes && entry.leader == self.name && self.lead.is_none() {
            self.foreign = self.foreign.max(Some(entry.term));
        }
        if !self.knows_more_than(entry.view) {
            self.heard_of(entry, now);
        }
    }

    /// The next sign of life, while this candidate leads; each has another count.
    pub fn beat(&mut self) -> Option<Beat> {
        let lead = self.lead.as_mut()?;
        lead.beats = lead.beats.wrapping_add(1);
        Some(Beat { term: lead.term, leader: self.name.clone(), count: lead.beats })
    }

    /// Leaves the leadership to another candidate, for a while: what is left is to say so to the
    /// store. Where nobody takes it, this one stands again.
    pub fn give_way(&mut self, now: Duration) -> Option<Resign> {
        let lead = self.lead.take()?;
        self.gave_way = Some((lead.term, now + self.timing.ttl * GIVES_WAY_FOR));
        Some(Resign { term: lead.term, leader: self.name.clone() })
    }

    /// Ends the candidacy; what is left is to say so to the store, where it led.
    pub fn resign(self) -> Option<Resign> {
        let Self { name, lead, .. } = self;
        lead.map(|lead| Resign { term: lead.term, leader: name })
    }

    /// The term that this candidate leads in, as far as it knows.
    #[must_use]
    pub fn leads_in(&self) -> Option<Term> {
        self.lead.map(|lead| lead.term)
    }

    /// Whether the store has ever answered.
    #[must_use]
    pub fn has_seen(&self) -> bool {
        self.seen.is_some()
    }

    /// How long until the store is to be asked again: a beat, or less where this candidate may
    /// have to stand.
    #[must_use]
    pub fn look_again_in(&self, now: Duration) -> Duration {
        let LeaseTiming { renew_every, leads_every, .. } = self.timing;
        let longest = if self.lead.is_some() { leads_every } else { renew_every };
        let due = match (&self.seen, self.lead) {
            (Some(seen), None) => self.stands_from(seen),
            _ => now + longest,
        };
        due.saturating_sub(now).clamp(LOOK_AT_LEAST, longest.max(LOOK_AT_LEAST))
    }

    fn see(&mut self, observed: &Observed, now: Duration) {
        let newest = observed.newest.as_ref().map(|e| (e.view, e.term, e.leader.clone()));
        if self.knows_more_than(newest.as_ref().map_or(View(0), |(view, _, _)| *view)) {
            // An answer that was overtaken: the log never gets shorter.
            return;
        }
        if let (None, Some((_, term, leader))) = (&self.seen, &newest)
            && *leader == self.name
        {
            if self.has_namesakes {
                self.doubted = Some(*term);
            } else {
                self.own = self.own.max(Some(*term));
            }
        }
        let same = self.seen.as_ref().filter(|seen| seen.newest == newest);
        let leads = |beat: &Beat| {
            newest.as_ref().is_some_and(|(_, term, who)| beat.term == *term && beat.leader == *who)
        };
        let beat = match &observed.beat {
            Some(beat) if leads(beat) => Some(beat.count),
            // A zombie's last one, which says nothing of the leader.
            Some(_) => same.and_then(|seen| seen.beat),
            None => None,
        };
        // Who could not look for so long can't say that nothing happened meanwhile.
        let same = same.filter(|seen| now.saturating_sub(seen.at) <= self.timing.ttl);
        let (since, gone) = match same {
            Some(seen) if seen.beat == beat => (seen.since, seen.gone),
            Some(seen) if beat.is_none() => (seen.since, true),
            _ => (now, false),
        };
        let changed = |seen: &Seen| seen.newest != newest || seen.beat != beat;
        if self.seen.as_ref().is_some_and(changed)
            && let Some(doubted) = self.doubted.take()
        {
            self.foreign = self.foreign.max(Some(doubted));
        }
        self.seen = Some(Seen { newest, beat, gone, at: now, since });
    }

    fn stand(&self, view: View, term: Term, asked_at: Duration) -> Option<Next> {
        let seen = self.seen.as_ref()?;
        let at_once = self.patience(seen).is_zero() && self.gave_way.is_none();
        if asked_at < self.held_off || (!at_once && asked_at < self.stands_from(seen)) {
            return None;
        }
        let (view, term) = view.next().zip(term.next())?;
        Some(Next::Stand { view, term })
    }

    fn stands_from(&self, seen: &Seen) -> Duration {
        let patient = (seen.since + self.patience(seen)).max(self.held_off);
        self.gave_way.map_or(patient, |(_, until)| patient.max(until))
    }

    /// How long a leader may be silent before this candidate stands.
    fn patience(&self, seen: &Seen) -> Duration {
        let turn = self.timing.renew_every / 4 * self.place;
        match &seen.newest {
            // A process that was started again: nobody else waits less.
            Some((_, term, leader)) if self.is_own(leader, *term) => Duration::ZERO,
            Some((_, term, _)) if self.doubted == Some(*term) => {
                self.timing.renew_every * NAMESAKE_BEATS
            }
            Some(_) if seen.gone => turn,
            Some(_) if self.suspected.is_some_and(|at| at >= seen.since) => {
                self.timing.renew_every + turn
            }
            Some(_) => self.timing.ttl + turn,
            None => turn,
        }
    }

    fn knows_more_than(&self, view: View) -> bool {
        let newest = self.seen.as_ref().and_then(|seen| seen.newest.as_ref());
        newest.is_some_and(|(newest, _, _)| *newest > view)
    }

    fn heard_of(&mut self, entry: &Entry, at: Duration) {
        let newest = Some((entry.view, entry.term, entry.leader.clone()));
        self.seen = Some(Seen { newest, beat: None, gone: false, at, since: at });
    }
}

#[cfg(test)]
mod tests;
