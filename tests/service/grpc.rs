//! The protocol over gRPC, as a client that knows nothing but `proto/` sees it.

use gradmesh::service::ServiceLimits;
use proptest::prelude::*;
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use self::inference as proto;
use self::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use self::inference::infer_parameter::ParameterChoice;
use self::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use self::inference::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::support::{Server, rows};

pub(crate) mod inference {
    #![allow(clippy::all, dead_code, unreachable_pub, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/client/inference.rs"));
}

mod health {
    #![allow(clippy::all, dead_code, unreachable_pub, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/client/grpc.health.v1.rs"));
}

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

pub(crate) async fn channel(server: &Server) -> Channel {
    let address = format!("http://{}", server.grpc_address);
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

/// Runs `talk` with a client of this server.
fn with<T>(server: &Server, talk: impl AsyncFnOnce(Client) -> T) -> T {
    actix_rt::System::new().block_on(async { talk(Client::new(channel(server).await)).await })
}

fn infer(server: &Server, request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    with(server, async |mut client| client.model_infer(request).await)
        .map(tonic::Response::into_inner)
}

fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
    let (name, datatype) = ("input".to_owned(), datatype.to_owned());
    InferInputTensor { name, datatype, shape: shape.to_vec(), contents, ..Default::default() }
}

/// A request with one input whose elements are raw.
pub(crate) fn raw(model: &str, datatype: &str, shape: &[i64], bytes: &[u8]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input(datatype, shape, None)],
        raw_input_contents: vec![bytes.to_vec().into()],
        ..Default::default()
    }
}

/// Which version of `sum` a request of this key gets.
pub(crate) fn version_of_key(server: &Server, key: &str) -> String {
    let parameter_choice = Some(ParameterChoice::StringParam(key.to_owned()));
    let request = ModelInferRequest {
        parameters: [("routing_key".to_owned(), InferParameter { parameter_choice })].into(),
        ..raw("sum", "FP32", &[1, 2], &bytes_of(&[1.0, 2.0]))
    };
    infer(server, request).unwrap().model_version
}

/// A request with one input whose elements stand in a field of their type.
fn typed(datatype: &str, contents: InferTensorContents) -> ModelInferRequest {
    let inputs = vec![input(datatype, &[1, 2], Some(contents))];
    ModelInferRequest { model_name: "sum".to_owned(), inputs, ..Default::default() }
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn the_server_and_its_models_describe_themselves() {
    let server = Server::start();
    with(&server, async |mut client| {
        assert!(client.server_live(proto::ServerLiveRequest {}).await.unwrap().into_inner().live);
        assert!(
            client.server_ready(proto::ServerReadyRequest {}).await.unwrap().into_inner().ready
        );
        let about = client.server_metadata(proto::ServerMetadataRequest {}).await.unwrap();
        let about = about.into_inner();
        assert_eq!((about.name.as_str(), about.extensions.len()), ("gradmesh", 5));
        let (name, version) = ("pick".to_owned(), String::new());
        let request = proto::ModelMetadataRequest { name: name.clone(), version: version.clone() };
        let metadata = client.model_metadata(request).await.unwrap().into_inner();
        assert_eq!(metadata.versions, ["1"]);
        let input = &metadata.inputs[0];
        assert_eq!((input.datatype.as_str(), &input.shape[..]), ("FP32", &[-1, 2][..]));
        assert_eq!(metadata.outputs[1].shape, [-1]);
        assert_eq!(metadata.properties["digest"], "state of a");
        let request = proto::ModelConfigRequest { name: name.clone(), version: version.clone() };
        let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
        assert_eq!((config.backend.as_str(), config.max_batch_size), ("gradmesh", 2 << 20));
        assert_eq!(config.input[0].data_type(), proto::DataType::TypeFp32);
        assert_eq!(config.output[1].reshape.as_ref().unwrap().shape, [0i64; 0]);
        let request = proto::ModelReadyRequest { name, version };
        assert!(client.model_ready(request).await.unwrap().into_inner().ready);
    });
}

#[test]
fn a_raw_request_is_answered_with_raw_outputs() {
    let server = Server::start();
    let mut request = raw("pick", "FP32", &[2, 2], &bytes_of(&[0.25, 0.75, 0.5, 0.5]));
    request.id = "seven".to_owned();
    let answer = infer(&server, request.clone()).unwrap();
    assert_eq!((answer.model_version.as_str(), answer.id.as_str()), ("1", "seven"));
    let digest = ParameterChoice::StringParam("state of a".to_owned());
    assert_eq!(answer.parameters["digest"].parameter_choice, Some(digest));
    let shapes: Vec<_> = answer.outputs.iter().map(|o| (&*o.datatype, &o.shape[..])).collect();
    assert_eq!(shapes, [("FP32", &[2, 2][..]), ("INT64", &[2])]);
    assert!(answer.outputs.iter().all(|output| output.contents.is_none()));
    let classes = [1i64.to_le_bytes(), 0i64.to_le_bytes()].concat();
    assert_eq!(answer.raw_output_contents, [bytes_of(&[0.25, 0.75, 0.5, 0.5]), classes.clone()]);
    let class = InferRequestedOutputTensor { name: "class".to_owned(), ..Default::default() };
    request.outputs = vec![class];
    assert_eq!(infer(&server, request).unwrap().raw_output_contents, [classes]);
}

#[test]
fn typed_contents_of_every_datatype_are_read() {
    let server = Server::start();
    let none = InferTensorContents::default;
    for (datatype, contents, sum) in [
        ("BOOL", InferTensorContents { bool_contents: vec![true, true], ..none() }, 4.0),
        ("INT8", InferTensorContents { int_contents: vec![-1, 3], ..none() }, 4.0),
        ("INT16", InferTensorContents { int_contents: vec![-1, 300], ..none() }, 598.0),
        ("INT32", InferTensorContents { int_contents: vec![-1, 3], ..none() }, 4.0),
        ("INT64", InferTensorContents { int64_contents: vec![-1, 3], ..none() }, 4.0),
        ("UINT8", InferTensorContents { uint_contents: vec![200, 100], ..none() }, 600.0),
        ("UINT16", InferTensorContents { uint_contents: vec![300, 1], ..none() }, 602.0),
        ("UINT32", InferTensorContents { uint_contents: vec![1, 2], ..none() }, 6.0),
        ("UINT64", InferTensorContents { uint64_contents: vec![1, 2], ..none() }, 6.0),
        ("FP32", InferTensorContents { fp32_contents: vec![1.5, 2.0], ..none() }, 7.0),
        ("FP64", InferTensorContents { fp64_contents: vec![1.5, 2.0], ..none() }, 7.0),
    ] {
        let answer = infer(&server, typed(datatype, contents)).unwrap();
        assert_eq!(answer.raw_output_contents, [bytes_of(&[sum])], "{datatype}");
    }
}

#[test]
fn a_request_that_is_wrong_is_an_invalid_argument_that_says_why() {
    let server = Server::start();
    let contents = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..Default::default()
    };
    let fp32 = bytes_of(&[1.0, 2.0]);
    let mut both = raw("sum", "FP32", &[1, 2], &fp32);
    both.inputs[0].contents = Some(contents(&[1, 2]));
    let mut two = raw("sum", "FP32", &[1, 2], &fp32);
    two.raw_input_contents.push(vec![].into());
    let mut alias = raw("sum", "FP32", &[1, 2], &fp32);
    alias.model_version = "Not An Alias".to_owned();
    let mut output = raw("sum", "FP32", &[1, 2], &fp32);
    output.outputs = vec![InferRequestedOutputTensor { name: "x".into(), ..Default::default() }];
    let mut classes = raw("sum", "FP32", &[1, 2], &fp32);
    let zero = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(0)) };
    classes.outputs = vec![InferRequestedOutputTensor {
        name: "output".into(),
        parameters: [("classification".to_owned(), zero)].into(),
    }];
    for (request, text) in [
        (raw("sum", "FP32", &[2, 2], &fp32), "shape [2, 2] of FP32 has 16 bytes, got 8"),
        (raw("sum", "FP32", &[-1, 2], &fp32), "shape [-1, 2] has a negative length"),
        (raw("sum", "FP32", &[2], &fp32), "shape [2] is not [rows, features]"),
        (raw("sum", "fp32", &[1, 2], &fp32), "\"fp32\" is none of BOOL"),
        (raw("sum", "BYTES", &[1, 2], b"\x01\0\0\0a\0\0\0\0"), "BYTES is not numeric"),
        (raw("sum", "BYTES", &[1, 2], &fp32), "element 0 of BYTES should have"),
        (raw("sum", "FP32", &[1, 2], &bytes_of(&[1.0, f32::NAN])), "is not a finite number"),
        (typed("INT8", contents(&[1, 300])), "value 1 is 300, which INT8 can't hold"),
        (typed("FP32", contents(&[1, 2])), "in a field that is not the one of FP32"),
        (typed("FP16", contents(&[])), "FP16 has no typed contents"),
        (typed("INT32", contents(&[1])), "shape [1, 2] of INT32 has 8 bytes, got 4"),
        (both, "it has contents, and the request raw_input_contents"),
        (two, "there are 1 inputs, and 2 raw_input_contents"),
        (alias, "Not An Alias"),
        (output, "sum has no output \"x\""),
        (classes, "classification is 0; ask for at least one"),
        (ModelInferRequest { model_name: "sum".into(), ..Default::default() }, "got 0"),
    ] {
        let refused = infer(&server, request).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(text), "{refused}");
    }
}

#[test]
fn every_other_refusal_has_its_code() {
    let server = Server::start();
    let fp32 = bytes_of(&[1.0, 2.0]);
    let code = |request| infer(&server, request).unwrap_err().code();
    assert_eq!(code(raw("none", "FP32", &[1, 2], &fp32)), Code::NotFound);
    let mut version = raw("sum", "FP32", &[1, 2], &fp32);
    version.model_version = "9".to_owned();
    assert_eq!(code(version), Code::NotFound);
    assert_eq!(code(raw("sum", "FP32", &[1, 2], &bytes_of(&[13.0, 1.0]))), Code::Internal);
    server.post_text("/v2/repository/models/sum/unload", "");
    assert_eq!(code(raw("sum", "FP32", &[1, 2], &fp32)), Code::Unavailable);
    let stub = Server::start_stub();
    let code = |model: &str| infer(&stub, raw(model, "FP32", &[1, 2], &fp32)).unwrap_err().code();
    assert_eq!((code("away"), code("slow")), (Code::Unavailable, Code::DeadlineExceeded));
    let ready = with(&stub, async |mut c| c.server_ready(proto::ServerReadyRequest {}).await);
    assert!(!ready.unwrap().into_inner().ready);
}

#[test]
fn a_message_beyond_what_all_requests_may_take_is_resource_exhausted() {
    let limits = ServiceLimits { bodies_bytes_max: 4096, ..ServiceLimits::default() };
    let server = Server::start_with(limits);
    let refused = infer(&server, raw("sum", "FP32", &[1, 2], &[0; 10_000])).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(infer(&server, raw("sum", "FP32", &[1, 2], &bytes_of(&[1.0, 2.0]))).is_ok());
    let limits = ServiceLimits { body_bytes_max: 1000, ..ServiceLimits::default() };
    let server = Server::start_with(limits);
    let refused = infer(&server, raw("sum", "FP32", &[1, 2], &[0; 10_000])).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}

#[test]
fn a_stream_answers_in_order_and_goes_on_after_a_refusal() {
    let server = Server::start();
    let request = |id: &str, model: &str| {
        let id = id.to_owned();
        ModelInferRequest { id, ..raw(model, "FP32", &[1, 2], &bytes_of(&[1.0, 2.0])) }
    };
    let requests = [request("a", "sum"), request("b", "none"), request("c", "sum")];
    let answers = with(&server, async |mut client| {
        let answers = client.model_stream_infer(tokio_stream::iter(requests)).await.unwrap();
        answers.into_inner().map(Result::unwrap).collect::<Vec<_>>().await
    });
    let told = |at: usize| {
        let answer: &proto::ModelStreamInferResponse = &answers[at];
        (answer.error_message.as_str(), answer.infer_response.as_ref().unwrap().id.as_str())
    };
    assert_eq!(answers.len(), 3);
    assert_eq!((told(0), told(2)), (("", "a"), ("", "c")));
    assert_eq!(told(1), ("no model \"none\"; known models: pick, sum", "b"));
}

#[test]
fn nobody_loads_or_unloads_where_it_is_not_configured() {
    let server = Server::start_as(ServiceLimits::default(), false);
    let model_name = || "sum".to_owned();
    with(&server, async |mut client| {
        let load =
            proto::RepositoryModelLoadRequest { model_name: model_name(), ..Default::default() };
        let refused = client.repository_model_load(load).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let unload =
            proto::RepositoryModelUnloadRequest { model_name: model_name(), ..Default::default() };
        let refused = client.repository_model_unload(unload).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    });
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).0, 200);
}

#[test]
fn both_protocols_have_one_repository_and_one_set_of_counters() {
    let server = Server::start();
    let name = || "sum".to_owned();
    let model_name = name;
    with(&server, async |mut client| {
        let unload =
            proto::RepositoryModelUnloadRequest { model_name: model_name(), ..Default::default() };
        client.repository_model_unload(unload).await.unwrap();
        let ready = proto::ModelReadyRequest { name: name(), version: String::new() };
        assert!(!client.model_ready(ready).await.unwrap().into_inner().ready);
    });
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).0, 503);
    let index = with(&server, async |mut client| {
        let all = proto::RepositoryIndexRequest::default();
        let index = client.repository_index(all).await.unwrap().into_inner().models;
        let load =
            proto::RepositoryModelLoadRequest { model_name: model_name(), ..Default::default() };
        client.repository_model_load(load).await.unwrap();
        index
    });
    let sum = &index[2];
    assert_eq!((&*sum.name, &*sum.version, &*sum.state), ("sum", "2", "UNAVAILABLE"));
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).0, 200);
    infer(&server, raw("sum", "FP32", &[1, 2], &bytes_of(&[1.0, 2.0]))).unwrap();
    let asked = proto::ModelStatisticsRequest { name: name(), version: String::new() };
    let told = with(&server, async |mut client| client.model_statistics(asked).await);
    let told = &told.unwrap().into_inner().model_stats[0];
    assert_eq!((told.execution_count, told.batch_stats[0].batch_size), (2, 1));
    assert_eq!(told.inference_stats.unwrap().success.unwrap().count, 2);
    assert_eq!(server.get("/v2/models/sum/stats").1["model_stats"][0]["execution_count"], 2);
}

#[test]
fn repositories_and_models_that_do_not_exist_are_refused() {
    let server = Server::start();
    let (repository_name, model_name) = (String::new(), "none".to_owned());
    let unload = proto::RepositoryModelUnloadRequest { model_name, ..Default::default() };
    let load = proto::RepositoryModelLoadRequest {
        repository_name: "other".to_owned(),
        model_name: "sum".to_owned(),
        ..Default::default()
    };
    let (config, index) = (
        proto::ModelConfigRequest { name: "none".to_owned(), version: String::new() },
        proto::RepositoryIndexRequest { repository_name, ready: true },
    );
    with(&server, async |mut client| {
        let code = client.repository_model_unload(unload).await.unwrap_err().code();
        assert_eq!(code, Code::NotFound);
        let code = client.repository_model_load(load).await.unwrap_err().code();
        assert_eq!(code, Code::Unimplemented);
        assert_eq!(client.model_config(config).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(client.repository_index(index).await.unwrap().into_inner().models.len(), 3);
    });
}

#[test]
fn health_is_that_of_the_service() {
    use health::HealthCheckRequest;
    use health::health_check_response::ServingStatus;
    use health::health_client::HealthClient;
    let check = |server: &Server, service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        let asked = async { HealthClient::new(channel(server).await).check(request).await };
        actix_rt::System::new().block_on(asked).map(|answer| answer.into_inner().status())
    };
    let server = Server::start();
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(check(&server, service).unwrap(), ServingStatus::Serving);
    }
    assert_eq!(check(&server, "x").unwrap_err().code(), Code::NotFound);
    let stub = Server::start_stub();
    assert_eq!(check(&stub, "").unwrap(), ServingStatus::NotServing);
}

/// Writes bytes as they are, and reads none.
#[derive(Debug, Default)]
struct Bytes;

impl tonic::codec::Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        to: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let len = prost::bytes::Buf::remaining(from);
        prost::bytes::Buf::advance(from, len);
        Ok(Some(()))
    }
}

#[test]
fn arbitrary_bytes_are_the_callers_fault_and_the_server_goes_on() {
    let server = Server::start();
    let message = raw("pick", "FP32", &[1, 2], &bytes_of(&[0.25, 0.75]));
    let message = prost::Message::encode_to_vec(&message);
    let bytes = prop::collection::vec(any::<u8>(), 0..100);
    // A good message in which some bytes were changed.
    let changes = prop::collection::vec((0..message.len(), any::<u8>()), 0..4);
    let changed = changes.prop_map(move |changes| {
        let mut message = message.clone();
        for (at, byte) in changes {
            message[at] = byte;
        }
        message
    });
    let system = actix_rt::System::new();
    let channel = system.block_on(channel(&server));
    let path = || "/inference.GRPCInferenceService/ModelInfer".parse().unwrap();
    proptest!(ProptestConfig::with_cases(300), |(bytes in bytes, changed in changed)| {
        for bytes in [bytes, changed] {
            let mut client = tonic::client::Grpc::new(channel.clone());
            let answer = system.block_on(async {
                client.ready().await.unwrap();
                client.unary(tonic::Request::new(bytes), path(), Bytes).await
            });
            if let Err(refused) = answer {
                let fault = matches!(refused.code(), Code::InvalidArgument | Code::NotFound);
                prop_assert!(fault, "{}", refused);
            }
        }
    });
    server.still_answers();
    let refused = server.post("/v2/models/pick/infer", &json!({}));
    assert_eq!(refused.0, 400);
}

#[test]
fn bytes_that_are_no_message_are_an_invalid_argument() {
    let server = Server::start();
    for bytes in [&b"\x08\x01"[..], b"\x0a\x05m", b"\xff\xff", b"\x0a\x01\xff"] {
        let refused = actix_rt::System::new().block_on(async {
            let mut client = tonic::client::Grpc::new(channel(&server).await);
            client.ready().await.unwrap();
            let path = "/inference.GRPCInferenceService/ModelReady".parse().unwrap();
            client.unary(tonic::Request::new(bytes.to_vec()), path, Bytes).await.unwrap_err()
        });
        assert_eq!(refused.code(), Code::InvalidArgument, "{bytes:?}: {refused}");
    }
}
