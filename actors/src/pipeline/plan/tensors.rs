//! The tensors of a pipeline while its steps are looked at, one after the other.

use std::collections::BTreeMap;

use super::{NAME_MAX, Operation, PipelineError, Plan, Planned};
use crate::datatype::Datatype;
use crate::hashing::BUCKETS_MAX;
use crate::pipeline::{FUSED_MAX, Fusion, PipelineSpec, Step};
use crate::tensor_model::{PORTS_MAX, Port, Signature};

/// What is known of the tensors while steps are looked at.
pub(super) struct Tensors<'a> {
    /// Which step makes each tensor that is made.
    makers: BTreeMap<&'a str, usize>,
    pub(super) names: Vec<String>,
    places: BTreeMap<String, usize>,
    ports: Vec<Port>,
    /// Places that are inputs, in the order in which they are first taken.
    inputs: Vec<usize>,
    /// What is known of inputs before a step takes them.
    known: BTreeMap<String, Port>,
}

impl<'a> Tensors<'a> {
    pub(super) fn of(
        steps: &'a [Step],
        known: BTreeMap<String, Port>,
    ) -> Result<Self, PipelineError> {
        let names: Vec<String> =
            steps.iter().enumerate().map(|(at, step)| told(at, step)).collect();
        let mut makers = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            for name in taken(step).into_iter().chain(made(step)) {
                if name.is_empty() || name.len() > NAME_MAX {
                    let (step, name) = (names[at].clone(), name.to_owned());
                    return Err(PipelineError::Name { step, name });
                }
            }
            for name in made(step) {
                if let Some(maker) = makers.insert(name, at) {
                    let (step, maker) = (names[at].clone(), names[maker].clone());
                    return Err(PipelineError::Twice { step, name: name.to_owned(), maker });
                }
            }
        }
        let (places, ports, inputs) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { makers, names, places, ports, inputs, known })
    }

    pub(super) fn model(
        &mut self,
        at: usize,
        (member, signature): (usize, &Signature),
        inputs: &BTreeMap<String, String>,
        outputs: &BTreeMap<String, String>,
    ) -> Result<Operation, PipelineError> {
        let known = |ports: &[Port]| {
            ports.iter().map(|port| format!("{:?}", port.name)).collect::<Vec<_>>().join(", ")
        };
        for (what, ports, names) in
            [("input", &signature.inputs, inputs), ("output", &signature.outputs, outputs)]
        {
            let strange = names.keys().find(|name| !ports.iter().any(|port| port.name == **name));
            if let Some(name) = strange {
                let (step, name, known) = (self.names[at].clone(), name.clone(), known(ports));
                return Err(PipelineError::NoPort { step, what, name, known });
            }
        }
        let mut taken = Vec::new();
        for port in &signature.inputs {
            let Some(name) = inputs.get(&port.name) else {
                let (step, port) = (self.names[at].clone(), port.to_string());
                return Err(PipelineError::Unset { step, port });
            };
            taken.push((port.name.clone(), self.take(at, name, port)?));
        }
        let mut made = Vec::new();
        for port in &signature.outputs {
            if let Some(name) = outputs.get(&port.name) {
                made.push((port.name.clone(), self.make(name, port.datatype, port.shape.clone())));
            }
        }
        Ok(Operation::Model { member, inputs: taken, outputs: made })
    }

    pub(super) fn hash_text(
        &mut self,
        at: usize,
        of: &str,
        buckets: usize,
        name: &str,
    ) -> Result<Operation, PipelineError> {
        if !(1..=BUCKETS_MAX).contains(&buckets) {
            let step = self.names[at].clone();
            return Err(PipelineError::Buckets { step, got: buckets });
        }
        let texts = Port { name: of.to_owned(), datatype: Datatype::Bytes, shape: vec![None] };
        let of = self.take(at, of, &texts)?;
        let to = self.make(name, Datatype::Fp32, vec![None, Some(buckets)]);
        Ok(Operation::HashText { of, buckets, to })
    }

    pub(super) fn fuse(
        &mut self,
        at: usize,
        of: &[String],
        how: impl FnOnce(Vec<f64>) -> Fusion,
        weights: &[f64],
        name: &str,
    ) -> Result<Operation, PipelineError> {
        let step = || self.names[at].clone();
        let got = of.len();
        if !(1..=FUSED_MAX).contains(&got) {
            return Err(PipelineError::Fused { step: step(), got });
        }
        if !weights.is_empty() && weights.len() != got {
            let (expected, got) = (got, weights.len());
            return Err(PipelineError::Weights { step: step(), expected, got });
        }
        let fits = |weight: &f64| weight.is_finite() && *weight > 0.0;
        if let Some(&weight) = weights.iter().find(|weight| !fits(weight)) {
            return Err(PipelineError::Weight { step: step(), weight });
        }
        let sum: f64 = weights.iter().sum();
        if !sum.is_finite() {
            return Err(PipelineError::Weight { step: step(), weight: sum });
        }
        let all = if weights.is_empty() { vec![1.0; got] } else { weights.to_vec() };
        let how = how(all);
        let same_width = how != Fusion::Concatenate;
        let mut width = if same_width { None } else { Some(0) };
        let mut places = Vec::with_capacity(got);
        for name in of {
            let place = self.take(at, name, &rows(name, width.filter(|_| same_width)))?;
            let columns = self.ports[place].shape[1];
            width = if same_width { width.or(columns) } else { added(width, columns) };
            places.push(place);
        }
        // Those whose width was not known yet are as wide as the others.
        for name in of.iter().filter(|_| same_width) {
            self.take(at, name, &rows(name, width))?;
        }
        let to = self.make(name, Datatype::Fp32, vec![None, width]);
        Ok(Operation::Fuse { how, of: places, to })
    }

    /// The place of a tensor that a step takes as `port`. Whatever no step makes is an input, which then is
    /// whatever all who take it need.
    fn take(&mut self, at: usize, name: &str, port: &Port) -> Result<usize, PipelineError> {
        let step = || self.names[at].clone();
        if let Some(&place) = self.places.get(name) {
            let given = self.ports[place].clone();
            let shape =
                (given.datatype == port.datatype).then(|| common(&given.shape, &port.shape));
            let Some(shape) = shape.flatten() else {
                let (given, taken) = (given.to_string(), port.to_string());
                return Err(PipelineError::Unfit { step: step(), given, taken });
            };
            if self.inputs.contains(&place) {
                self.ports[place].shape = shape;
            }
            return Ok(place);
        }
        if let Some(&maker) = self.makers.get(name) {
            let (name, maker) = (name.to_owned(), self.names[maker].clone());
            return Err(PipelineError::Later { step: step(), name, maker });
        }
        let known = self.known.remove(name).unwrap_or_else(|| port.clone());
        let place = self.make(name, known.datatype, known.shape);
        self.inputs.push(place);
        // It may be known to be something else than this step takes.
        self.take(at, name, port)
    }

    fn make(&mut self, name: &str, datatype: Datatype, shape: Vec<Option<usize>>) -> usize {
        let place = self.ports.len();
        self.ports.push(Port { name: name.to_owned(), datatype, shape });
        self.places.insert(name.to_owned(), place);
        place
    }

    /// The plan, in which the inputs come first.
    pub(super) fn planned(
        self,
        spec: &PipelineSpec,
        steps: Vec<Planned>,
    ) -> Result<Plan, PipelineError> {
        let mut outputs = Vec::new();
        for name in &spec.outputs {
            let made = self.makers.contains_key(name.as_str()).then(|| self.places[name]);
            let place = made.ok_or_else(|| PipelineError::Nobody { name: name.clone() })?;
            if outputs.contains(&place) {
                return Err(PipelineError::OutputTwice { name: name.clone() });
            }
            outputs.push(place);
        }
        let (taken, answered) = (self.inputs.len(), outputs.len());
        if !(1..=PORTS_MAX).contains(&taken) || !(1..=PORTS_MAX).contains(&answered) {
            return Err(PipelineError::Ports { inputs: taken, outputs: answered });
        }
        let others = (0..self.ports.len()).filter(|place| !self.inputs.contains(place));
        let order: Vec<usize> = self.inputs.iter().copied().chain(others).collect();
        let mut moved = vec![0; order.len()];
        order.iter().enumerate().for_each(|(to, &from)| moved[from] = to);
        let ports = |places: &[usize]| places.iter().map(|&at| self.ports[at].clone()).collect();
        let signature = Signature { inputs: ports(&self.inputs), outputs: ports(&outputs) };
        let outputs = outputs.into_iter().map(|place| moved[place]).collect();
        let steps = steps.into_iter().map(|step| step.moved(&moved)).collect();
        let mut plan = Plan { signature, places: order.len(), steps, outputs };
        plan.free();
        Ok(plan)
    }
}

/// A step as errors name it.
fn told(at: usize, step: &Step) -> String {
    let at = at + 1;
    match step {
        Step::Model { model, .. } => format!("step {at} ({model})"),
        Step::HashText { .. } => format!("step {at} (hash-text)"),
        Step::Concatenate { .. } => format!("step {at} (concatenate)"),
        Step::Average { .. } => format!("step {at} (average)"),
        Step::Vote { .. } => format!("step {at} (vote)"),
    }
}

/// Tensors that a step takes.
fn taken(step: &Step) -> Vec<&str> {
    match step {
        Step::Model { inputs, .. } => inputs.values().map(String::as_str).collect(),
        Step::HashText { of, .. } => vec![of],
        Step::Concatenate { of, .. } | Step::Average { of, .. } | Step::Vote { of, .. } => {
            of.iter().map(String::as_str).collect()
        }
    }
}

/// Tensors that a step makes.
fn made(step: &Step) -> Vec<&str> {
    match step {
        Step::Model { outputs, .. } => outputs.values().map(String::as_str).collect(),
        Step::HashText { r#as, .. }
        | Step::Concatenate { r#as, .. }
        | Step::Average { r#as, .. }
        | Step::Vote { r#as, .. } => vec![r#as],
    }
}

fn rows(name: &str, width: Option<usize>) -> Port {
    Port { name: name.to_owned(), datatype: Datatype::Fp32, shape: vec![None, width] }
}

/// A shape that fits both; `None` where there is none.
fn common(a: &[Option<usize>], b: &[Option<usize>]) -> Option<Vec<Option<usize>>> {
    let dim = |(&a, &b): (&Option<usize>, &Option<usize>)| match (a, b) {
        (Some(a), Some(b)) => (a == b).then_some(Some(a)),
        (known, None) | (None, known) => Some(known),
    };
    (a.len() == b.len()).then(|| std::iter::zip(a, b).map(dim).collect())?
}

fn added(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a?.checked_add(b?)
}
