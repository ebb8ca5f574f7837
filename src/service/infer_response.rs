//! The JSON of an inference response. What is absent is left out, never null.

use gradmesh_actors::messages::Prediction;
use serde::Serialize;

use super::api_error::ApiError;
use super::infer_request::Question;

/// The values that a model computes.
pub(super) const OUTPUT: &str = "output";

/// The number of the largest of them; classifiers only.
pub(super) const CLASS: &str = "class";

#[derive(Debug, Serialize)]
pub(super) struct InferResponse<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: Parameters<'a>,
    outputs: Vec<OutputTensor<'a>>,
}

/// Says which state of the model answered.
#[derive(Debug, Serialize)]
struct Parameters<'a> {
    digest: &'a str,
}

#[derive(Debug, Serialize)]
struct OutputTensor<'a> {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    data: OutputData<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum OutputData<'a> {
    Values(&'a [f32]),
    Classes(Vec<usize>),
}

/// The answer to a question, with the outputs that it asks for.
pub(super) fn respond<'a>(
    question: &'a Question,
    prediction: &'a Prediction,
) -> Result<InferResponse<'a>, ApiError> {
    let known: &[&str] = if prediction.classes.is_some() { &[OUTPUT, CLASS] } else { &[OUTPUT] };
    let asked: Vec<&str> = match question.outputs.as_slice() {
        [] => known.to_vec(),
        asked => asked.iter().map(String::as_str).collect(),
    };
    let mut outputs = Vec::with_capacity(asked.len());
    for name in asked {
        outputs.push(match name {
            OUTPUT => output(prediction),
            CLASS if prediction.classes.is_some() => class(prediction),
            _ => {
                let (model, known) = (&prediction.model, known.join(", "));
                return Err(ApiError::bad(format!(
                    "{model} has no output {name:?}; it has {known}"
                )));
            }
        });
    }
    Ok(InferResponse {
        model_name: &prediction.model,
        model_version: prediction.version.to_string(),
        id: question.id.as_deref(),
        parameters: Parameters { digest: &prediction.digest },
        outputs,
    })
}

fn output(prediction: &Prediction) -> OutputTensor<'_> {
    OutputTensor {
        name: OUTPUT,
        datatype: "FP32",
        shape: vec![prediction.rows, prediction.outputs],
        data: OutputData::Values(&prediction.values),
    }
}

/// The first of the largest outputs of each row.
fn class(prediction: &Prediction) -> OutputTensor<'static> {
    let largest = |row: &[f32]| {
        let better = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
        (0..row.len()).fold(0, better)
    };
    // A row of a classifier has at least one output; `max` keeps a broken one from a panic here.
    let classes = prediction.values.chunks_exact(prediction.outputs.max(1)).map(largest).collect();
    OutputTensor {
        name: CLASS,
        datatype: "INT64",
        shape: vec![prediction.rows],
        data: OutputData::Classes(classes),
    }
}
