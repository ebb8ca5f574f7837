//! Asks for predictions all the time, of one service or the other, as behind a load balancer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::questions::Questions;

/// A request that no service has answered by then has failed.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// After which the other service is asked: one that loads a model takes less.
const TRY_FOR: Duration = Duration::from_millis(500);
/// Between two tries, so that a refused connection is not asked thousands of times.
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// Between two requests: users who leave the processors to the training.
const PAUSE: Duration = Duration::from_millis(5);

/// What came of the requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Each service has answered, from then on it counts.
    pub(super) both_serve: bool,
    pub(super) answered: u64,
    /// By the second service that was asked, or later.
    pub(super) elsewhere: u64,
    pub(super) unanswered: u64,
    /// With other bits than the calm model's.
    pub(super) wrong: u64,
    pub(super) slowest: Duration,
    /// The newest version that answered.
    pub(super) newest: u64,
}

/// A thread that asks, until it is told to end.
#[derive(Debug)]
pub(super) struct Client {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

#[derive(Deserialize)]
struct Answer {
    model_version: String,
    outputs: Value,
}

struct Asking {
    agent: ureq::Agent,
    questions: Questions,
    /// The answers of the calm run's model.
    expected: Vec<Value>,
    /// The service that answered last.
    at: usize,
    tally: Tally,
    shown: watch::Sender<Tally>,
    end: Arc<AtomicBool>,
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "a client of the cluster, which is no node")]
    pub(super) fn start(questions: Questions) -> (Self, watch::Receiver<Tally>) {
        let agent = ureq::Agent::config_builder().proxy(None).timeout_global(Some(TRY_FOR)).build();
        let (shown, tally) = watch::channel(Tally::default());
        let end = Arc::new(AtomicBool::new(false));
        let asking = Asking {
            agent: agent.new_agent(),
            questions,
            expected: Vec::new(),
            at: 0,
            tally: Tally::default(),
            shown,
            end: Arc::clone(&end),
        };
        (Self { end, thread: std::thread::spawn(|| asking.run()) }, tally)
    }

    /// The last word.
    pub(super) fn end(self) -> Tally {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, in real time")]
impl Asking {
    fn run(mut self) -> Tally {
        self.learn();
        let mut at = 0;
        while !self.ended() {
            self.request(at);
            self.shown.send_replace(self.tally.clone());
            at = (at + 1) % self.questions.bodies.len().max(1);
            std::thread::sleep(PAUSE);
        }
        self.tally
    }

    fn ended(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Waits for each service, and asks each question of the last one: nothing is killed yet.
    fn learn(&mut self) {
        for at in 0..self.questions.addresses.len() {
            while self.ask(at, 0).is_err() && !self.ended() {
                std::thread::sleep(TRY_AGAIN);
            }
        }
        while self.expected.len() < self.questions.bodies.len() && !self.ended() {
            if let Ok(answer) = self.ask(self.at, self.expected.len()) {
                self.expected.push(answer.outputs);
            }
        }
        self.tally.both_serve = true;
    }

    fn request(&mut self, question: usize) {
        let started = Instant::now();
        let mut elsewhere = false;
        loop {
            match self.ask(self.at, question) {
                Ok(answer) => return self.judge(question, &answer, started.elapsed(), elsewhere),
                Err(error) if started.elapsed() >= ANSWERED_WITHIN => {
                    self.tally.unanswered += 1;
                    self.tally.slowest = self.tally.slowest.max(started.elapsed());
                    return warn!(%error, "a prediction was not answered");
                }
                Err(_) if self.ended() => return,
                Err(_) => {}
            }
            elsewhere = true;
            self.at = (self.at + 1) % self.questions.addresses.len().max(1);
            std::thread::sleep(TRY_AGAIN);
        }
    }

    fn judge(&mut self, question: usize, answer: &Answer, took: Duration, elsewhere: bool) {
        self.tally.slowest = self.tally.slowest.max(took);
        if self.expected.get(question) != Some(&answer.outputs) {
            self.tally.wrong += 1;
            return warn!(version = answer.model_version, "a prediction is another one");
        }
        self.tally.answered += 1;
        self.tally.elsewhere += u64::from(elsewhere);
        self.tally.newest = self.tally.newest.max(answer.model_version.parse().unwrap_or(0));
    }

    fn ask(&self, service: usize, question: usize) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(&self.questions.addresses[service]);
        let request = request.content_type("application/json");
        request.send(&self.questions.bodies[question])?.body_mut().read_json()
    }
}
