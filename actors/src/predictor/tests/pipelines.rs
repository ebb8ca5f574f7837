//! Pipelines are loaded with all that they are made of.

use super::*;
use crate::pipeline::{PIPELINE, PipelineSpec, Plan};
use crate::serving::signature_of;
use crate::version::Member;

const STEPS: &str = r#"{"outputs": ["mean"], "steps": [
    {"kind": "model", "model": "part", "version": 1, "inputs": {"input": "input"}, "outputs": {"output": "x"}},
    {"kind": "model", "model": "part", "version": 1, "inputs": {"input": "input"}, "outputs": {"output": "y"}},
    {"kind": "average", "of": ["x", "y"], "as": "mean"}
]}"#;

/// Has version 1 of `part`, which sums up, and of `whole`, which asks it twice.
struct Parts {
    member: Member,
    fetched: Vec<String>,
}

fn part() -> VersionDescription {
    new_version("part", "run").numbered(1, artifact())
}

impl Parts {
    fn describe(&self, model: &str) -> VersionDescription {
        if model == "part" {
            return part();
        }
        let spec: PipelineSpec = serde_json::from_str(STEPS).unwrap();
        let signature = signature_of(&part());
        let mut new = new_version("whole", "run");
        new.architecture.kind = PIPELINE.to_owned();
        new.tensors.clear();
        new.signature = Some(Plan::new(&spec, &[signature.clone(), signature]).unwrap().signature);
        new.made_of = vec![self.member.clone(), self.member.clone()];
        new.numbered(1, artifact())
    }
}

impl Actor for Parts {
    type Context = Context<Self>;
}

impl Handler<FindModel> for Parts {
    type Result = Result<VersionDescription, FindError>;

    fn handle(&mut self, find: FindModel, _: &mut Self::Context) -> Self::Result {
        Ok(self.describe(&find.model))
    }
}

impl Handler<FetchModel> for Parts {
    type Result = Result<FetchedModel, FindError>;

    fn handle(&mut self, fetch: FetchModel, _: &mut Self::Context) -> Self::Result {
        self.fetched.push(fetch.model.clone());
        let description = self.describe(&fetch.model);
        Ok(match fetch.model.as_str() {
            "part" => FetchedModel { description, tensors: vec![vec![1.0; 2].into()], file: None },
            _ => FetchedModel { description, tensors: Vec::new(), file: Some(STEPS.into()) },
        })
    }
}

#[derive(actix::Message)]
#[rtype(result = "Vec<String>")]
struct Fetched;

impl Handler<Fetched> for Parts {
    type Result = Vec<String>;

    fn handle(&mut self, _: Fetched, _: &mut Self::Context) -> Self::Result {
        self.fetched.clone()
    }
}

fn start_with(member: Member) -> (Addr<Parts>, Addr<Predictor>, Models) {
    let registry = Parts { member, fetched: Vec::new() }.start();
    let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
    let parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    let models = parts.models.clone();
    (registry, Predictor::new(parts).start(), models)
}

async fn ask_for(predictor: &Addr<Predictor>, model: &str) -> Result<f32, PredictError> {
    let rows = Predict::of_rows(model, VersionRef::Latest, 1, 2, vec![1.0, 2.0].into()).unwrap();
    predictor.send(rows).await.unwrap().map(|answer| answer.outputs[0].tensor.f32s()[0])
}

#[actix_rt::test]
async fn a_member_that_two_steps_run_is_fetched_once_and_counts_for_the_pipeline() {
    let (registry, predictor, models) = start_with(part().as_member());
    assert_eq!(ask_for(&predictor, "whole").await, Ok(3.0));
    assert_eq!(registry.send(Fetched).await.unwrap(), ["whole", "part"]);
    let bytes = artifact().bytes;
    assert_eq!(models.used(), (2 * bytes, 1));
}

#[actix_rt::test]
async fn a_member_that_is_in_memory_for_itself_is_shared() {
    let (registry, predictor, _) = start_with(part().as_member());
    assert_eq!(ask_for(&predictor, "part").await, Ok(3.0));
    assert_eq!(ask_for(&predictor, "whole").await, Ok(3.0));
    assert_eq!(registry.send(Fetched).await.unwrap(), ["part", "whole"]);
}

#[actix_rt::test]
async fn a_member_of_another_state_than_the_pipeline_was_made_of_is_refused() {
    let (_, predictor, _) = start_with(Member { digest: "other".into(), ..part().as_member() });
    let refused = ask_for(&predictor, "whole").await.unwrap_err();
    assert!(matches!(refused, PredictError::Load { .. }), "{refused:?}");
    assert!(refused.to_string().ends_with("its state is state, a pipeline was made of other"));
}
