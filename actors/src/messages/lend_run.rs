//! Predictor → Predictor of another node: run these on an instance that has nothing to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::messages::{
    Body, BodyError, LinkError, Predict, PredictError, Prediction, WireMessage, WirePart,
};

/// Asks for the answers to requests that go together, from a version that is in memory there. It is
/// refused at once where no instance is idle: whoever asks has a queue for them. Safe to repeat.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<Lent, LendError>")]
pub struct LendRun {
    pub model: String,
    pub version: u64,
    /// Of the version, which another cluster of the same name might have otherwise.
    pub digest: String,
    pub requests: Vec<Predict>,
}

/// What the model said there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lent {
    /// In the order of the requests.
    pub answers: Vec<Result<Prediction, PredictError>>,
    /// The time of the run alone.
    pub took: Duration,
}

/// Why nothing was run.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum LendError {
    #[error("no instance is idle")]
    Occupied,
    /// It is being loaded, unless its node was told not to serve it.
    #[error("version {version} of {model} is not in memory")]
    NotThere { model: String, version: u64 },
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WirePart for LendRun {
    fn bodies(&self) -> Vec<Body> {
        self.requests.iter().flat_map(WirePart::bodies).collect()
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        attach_each(bodies, self.requests.iter_mut().map(|one| (one.inputs.len(), one)))
    }
}

impl WirePart for Lent {
    fn bodies(&self) -> Vec<Body> {
        self.answers.iter().flatten().flat_map(WirePart::bodies).collect()
    }

    fn attach(&mut self, bodies: Vec<Body>) -> Result<(), BodyError> {
        let answers = self.answers.iter_mut().flatten();
        attach_each(bodies, answers.map(|one| (one.outputs.len(), one)))
    }
}

impl WirePart for LendError {}

impl WireMessage for LendRun {
    const KIND: u16 = 0x0303;
    type Reply = Lent;
    type Refusal = LendError;
}

/// To each part so many bodies as it has tensors.
fn attach_each<'a, P: WirePart>(
    bodies: Vec<Body>,
    parts: impl Iterator<Item = (usize, &'a mut P)>,
) -> Result<(), BodyError> {
    let got = bodies.len();
    let wrong = |expected: usize| {
        let (expected, got) = (format!("{expected} bodies"), format!("{got} bodies"));
        BodyError { expected, got }
    };
    let (mut bodies, mut expected) = (bodies.into_iter(), 0);
    for (count, part) in parts {
        expected += count;
        let own: Vec<Body> = bodies.by_ref().take(count).collect();
        if own.len() < count {
            return Err(wrong(expected));
        }
        part.attach(own)?;
    }
    if bodies.len() > 0 { Err(wrong(expected)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::VersionRef;

    fn run() -> LendRun {
        let request = |values: Vec<f32>| {
            let rows = values.len() / 2;
            Predict::of_rows("m", VersionRef::Number(1), rows, 2, values.into()).unwrap()
        };
        LendRun {
            model: "m".into(),
            version: 1,
            digest: "state".into(),
            requests: vec![request(vec![1.0, 2.0]), request(vec![3.0, 4.0, 5.0, 6.0])],
        }
    }

    /// As a message arrives: its tensors have no bytes yet.
    fn arrived() -> LendRun {
        serde_json::from_str(&serde_json::to_string(&run()).unwrap()).unwrap()
    }

    #[test]
    fn each_request_has_its_own_tensors_when_it_arrives() {
        let mut message = arrived();
        message.attach(run().bodies()).unwrap();
        let inputs = |run: &LendRun| -> Vec<_> {
            run.requests.iter().map(|request| request.inputs.clone()).collect()
        };
        assert_eq!(inputs(&message), inputs(&run()));
    }

    #[test]
    fn more_or_fewer_bodies_than_tensors_are_refused() {
        for change in [-2i32, -1, 1] {
            let mut bodies = run().bodies();
            let extra = bodies[0].clone();
            match change {
                1 => bodies.push(extra),
                fewer => bodies.truncate((2 + fewer) as usize),
            }
            let error = arrived().attach(bodies).unwrap_err();
            assert_eq!(error.got, format!("{} bodies", 2 + change));
        }
    }
}
