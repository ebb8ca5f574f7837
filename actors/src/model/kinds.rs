//! The kinds of models that a node can build, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::mlp::{Mlp, MlpSettings};
use super::{Model, ModelDescription};
use crate::dataset::DatasetShape;
use crate::job::{Loss, ModelSpec};
use crate::nearest::nearest;
use crate::tensor_model::TensorModel;

const MLP: &str = "mlp";
const LINEAR: &str = "linear";

/// Where in a description `[job.model.settings]` stands. Apart from the keys that all kinds get, so
/// that neither can be taken for the other.
const OWN: &str = "settings";
/// Keys of `[job.model]` that a misspelt or misplaced setting of a built-in kind may have meant.
const KNOWN: [&str; 5] = [
    "job.model.name",
    "job.model.kind",
    "job.model.hidden",
    "job.model.activation",
    "job.model.loss",
];

/// Builds a model from the settings of its description.
pub type ModelFactory = Arc<dyn Fn(&Value) -> Result<Arc<dyn Model>, ModelError> + Send + Sync>;

/// Builds a model that was imported, from the settings of its description and its file.
type TensorModelFactory =
    Arc<dyn Fn(&Value, &Bytes) -> Result<Arc<dyn TensorModel>, String> + Send + Sync>;

/// The factories of a node, by kind. Every node that trains or serves a model needs its kind.
#[derive(Clone)]
pub struct ModelKinds {
    factories: BTreeMap<String, ModelFactory>,
    imported: BTreeMap<String, TensorModelFactory>,
}

/// A model cannot be described or built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    #[error(
        "this node knows no model kind {kind:?}; set job.model.kind to one of {known}, or register the kind in the program that embeds gradmesh"
    )]
    UnknownKind { kind: String, known: String },
    #[error(
        "this node reads no {kind:?} models, {known}; build it with the feature of that name, or register the kind in the program that embeds gradmesh"
    )]
    UnknownImport { kind: String, known: String },
    #[error("the {kind} model can't be read: {cause}")]
    File { kind: String, cause: String },
    /// The factory's own words.
    #[error("the settings of a {kind:?} model can't be read: {cause}")]
    Settings { kind: String, cause: String },
    /// `what_to_do` names the nearest key that there is.
    #[error("a {kind} model has no setting {key:?} of its own; {what_to_do}")]
    UnknownSetting { kind: String, key: String, what_to_do: String },
    #[error(
        "softmax needs classes, but the targets are {width} values a row; set job.model.loss to squared"
    )]
    NoClasses { width: usize },
    #[error(
        "a layer of width {width} is not within 1 to {limit}; check job.model.hidden and the data"
    )]
    Width { width: usize, limit: usize },
    #[error("{depth} hidden layers are more than {limit}; shorten job.model.hidden")]
    TooDeep { depth: usize, limit: usize },
    #[error("{parameters} parameters are more than {limit}; make job.model.hidden smaller")]
    TooLarge { parameters: usize, limit: usize },
    #[error("a linear model has no hidden layers, got {depth}; set job.model.kind to mlp")]
    LinearWithHidden { depth: usize },
}

impl ModelKinds {
    /// `mlp` and `linear`.
    pub fn builtin() -> Self {
        let mut kinds = Self { factories: BTreeMap::new(), imported: BTreeMap::new() };
        kinds.register(MLP, |settings| Ok(Arc::new(Mlp::new(MLP, read(MLP, settings)?)?)));
        kinds.register(LINEAR, |settings| {
            let settings = read(LINEAR, settings)?;
            if !settings.hidden.is_empty() {
                return Err(ModelError::LinearWithHidden { depth: settings.hidden.len() });
            }
            Ok(Arc::new(Mlp::new(LINEAR, settings)?))
        });
        kinds
    }

    /// Adds a kind; one of the same name is replaced.
    ///
    /// `factory` gets the settings that [`describe`] writes when a job starts, and those of
    /// [`Model::describe`] when a stored version is served. They may come from a damaged or hostile
    /// file: it must answer with an error, not panic.
    pub fn register(
        &mut self,
        kind: impl Into<String>,
        factory: impl Fn(&Value) -> Result<Arc<dyn Model>, ModelError> + Send + Sync + 'static,
    ) {
        self.factories.insert(kind.into(), Arc::new(factory));
    }

    /// Adds a kind of models that are imported and not trained; one of the same name is replaced.
    ///
    /// `factory` gets the settings of a version and its file, either of which may be damaged or
    /// hostile: it must answer with an error, not panic.
    pub fn register_imported(
        &mut self,
        kind: impl Into<String>,
        factory: impl Fn(&Value, &Bytes) -> Result<Arc<dyn TensorModel>, String> + Send + Sync + 'static,
    ) {
        self.imported.insert(kind.into(), Arc::new(factory));
    }

    /// An imported model.
    ///
    /// # Errors
    /// No such kind, or its factory refuses the settings or the file.
    pub fn load(
        &self,
        description: &ModelDescription,
        file: &Bytes,
    ) -> Result<Arc<dyn TensorModel>, ModelError> {
        let ModelDescription { kind, settings } = description;
        let factory = self.imported.get(kind).ok_or_else(|| {
            let known: Vec<&str> = self.imported.keys().map(String::as_str).collect();
            let known = match known.as_slice() {
                [] => "nor any that were made elsewhere".to_owned(),
                known => format!("but {}", known.join(", ")),
            };
            ModelError::UnknownImport { kind: kind.clone(), known }
        })?;
        let kind = kind.clone();
        factory(settings, file).map_err(|cause| ModelError::File { kind, cause })
    }

    /// # Errors
    /// No such kind, or its factory refuses the settings.
    pub fn build(&self, description: &ModelDescription) -> Result<Arc<dyn Model>, ModelError> {
        let ModelDescription { kind, settings } = description;
        let factory = self.factories.get(kind).ok_or_else(|| {
            let known: Vec<&str> = self.factories.keys().map(String::as_str).collect();
            ModelError::UnknownKind { kind: kind.clone(), known: known.join(", ") }
        })?;
        factory(settings)
    }
}

impl fmt::Debug for ModelKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys().chain(self.imported.keys())).finish()
    }
}

/// The description of a job's model on its data set: [`MlpSettings`] as JSON, whatever the kind,
/// and `[job.model.settings]` under the key `settings`, if there is anything in it. For `linear`,
/// `hidden` is empty.
///
/// # Errors
/// The loss is softmax and the data set has no classes.
pub fn describe(spec: &ModelSpec, shape: &DatasetShape) -> Result<ModelDescription, ModelError> {
    if spec.loss == Loss::Softmax && shape.classes.is_none() {
        return Err(ModelError::NoClasses { width: shape.target_width });
    }
    let settings = MlpSettings {
        features: shape.features,
        outputs: shape.classes.unwrap_or(shape.target_width),
        hidden: if spec.kind == LINEAR { Vec::new() } else { spec.hidden.clone() },
        activation: spec.activation,
        loss: spec.loss,
    };
    // Numbers, strings and a list of numbers always become JSON.
    let mut settings = serde_json::to_value(settings).unwrap_or_default();
    if let (Some(all), false) = (settings.as_object_mut(), spec.settings.is_empty()) {
        all.insert(OWN.to_owned(), Value::Object(spec.settings.clone()));
    }
    Ok(ModelDescription { kind: spec.kind.clone(), settings })
}

/// Settings of a built-in kind, which has none of its own.
fn read(kind: &str, settings: &Value) -> Result<MlpSettings, ModelError> {
    let own = settings.get(OWN).and_then(Value::as_object);
    if let Some(key) = own.and_then(|own| own.keys().next()) {
        let what_to_do = nearest(key, KNOWN.into_iter()).map_or_else(
            || "remove it from job.model.settings".to_owned(),
            |nearest| format!("did you mean {nearest}?"),
        );
        let (kind, key) = (kind.to_owned(), key.chars().take(80).collect());
        return Err(ModelError::UnknownSetting { kind, key, what_to_do });
    }
    serde::Deserialize::deserialize(settings).map_err(|error: serde_json::Error| {
        ModelError::Settings { kind: kind.to_owned(), cause: error.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::Activation;
    use crate::layout::Layout;

    fn spec(kind: &str, hidden: Vec<usize>, loss: Loss) -> ModelSpec {
        let activation = Activation::Relu;
        let settings = serde_json::Map::new();
        let (name, kind, from) = ("m".into(), kind.into(), None);
        ModelSpec { name, kind, hidden, activation, loss, from, settings }
    }

    fn shape(classes: Option<usize>) -> DatasetShape {
        DatasetShape {
            train_rows: 10,
            test_rows: 0,
            features: 4,
            classes,
            target_width: if classes.is_some() { 1 } else { 2 },
            digest: String::new(),
        }
    }

    fn build(kind: &str, settings: Value) -> Result<Arc<dyn Model>, ModelError> {
        ModelKinds::builtin().build(&ModelDescription { kind: kind.into(), settings })
    }

    fn settings(features: u64, hidden: &[u64]) -> Value {
        json!({
            "features": features, "outputs": 3, "hidden": hidden,
            "activation": "relu", "loss": "softmax",
        })
    }

    #[test]
    fn a_described_model_is_built_and_describes_itself_the_same() {
        for (kind, parameters) in [("mlp", 4 * 5 + 5 + 5 * 3 + 3), ("linear", 4 * 3 + 3)] {
            let spec = spec(kind, vec![5], Loss::Softmax);
            let description = describe(&spec, &shape(Some(3))).unwrap();
            let model = ModelKinds::builtin().build(&description).unwrap();
            assert_eq!(model.describe(), description);
            assert_eq!((model.features(), model.outputs()), (4, 3));
            assert_eq!(Layout::new(model.tensors()).unwrap().len(), parameters);
        }
    }

    #[test]
    fn softmax_without_classes_is_refused_and_squared_takes_the_width_of_the_targets() {
        let refused = describe(&spec("mlp", vec![], Loss::Softmax), &shape(None));
        assert_eq!(refused, Err(ModelError::NoClasses { width: 2 }));
        let squared = describe(&spec("mlp", vec![], Loss::Squared), &shape(None)).unwrap();
        assert_eq!(squared.settings["outputs"], 2);
        let one_hot = describe(&spec("mlp", vec![], Loss::Squared), &shape(Some(3))).unwrap();
        assert_eq!(one_hot.settings["outputs"], 3);
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        let refused = build("transformer", Value::Null).unwrap_err();
        assert!(refused.to_string().contains("one of linear, mlp"), "{refused}");
    }

    #[test]
    fn a_registered_kind_is_built() {
        let mut kinds = ModelKinds::builtin();
        kinds.register("mine", |settings| {
            let linear = ModelDescription { kind: "linear".into(), settings: settings.clone() };
            ModelKinds::builtin().build(&linear)
        });
        let mine = ModelDescription { kind: "mine".into(), settings: settings(2, &[]) };
        assert_eq!(kinds.build(&mine).unwrap().features(), 2);
    }

    #[test]
    fn a_registered_kind_gets_the_settings_of_its_own() {
        let mut kinds = ModelKinds::builtin();
        kinds.register("mine", |settings| {
            assert_eq!(settings["settings"], json!({ "gates": [1, 2] }));
            assert_eq!(settings["features"], 4);
            ModelKinds::builtin().build(&ModelDescription {
                kind: "linear".into(),
                settings: self::settings(2, &[]),
            })
        });
        let mut spec = spec("mine", vec![], Loss::Softmax);
        spec.settings.insert("gates".into(), json!([1, 2]));
        kinds.build(&describe(&spec, &shape(Some(3))).unwrap()).unwrap();
    }

    #[test]
    fn a_builtin_kind_refuses_settings_and_names_the_nearest_key() {
        for (kind, key, end) in [
            (
                "mlp",
                "hiden",
                "a mlp model has no setting \"hiden\" of its own; did you mean job.model.hidden?",
            ),
            ("linear", "activation", "did you mean job.model.activation?"),
            ("mlp", "dropout", "remove it from job.model.settings"),
        ] {
            let mut spec = spec(kind, vec![], Loss::Softmax);
            spec.settings.insert(key.into(), json!(1));
            let description = describe(&spec, &shape(Some(3))).unwrap();
            let refused = ModelKinds::builtin().build(&description).unwrap_err().to_string();
            assert!(refused.ends_with(end), "{refused}");
        }
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let check = |settings, expected| assert_eq!(build("mlp", settings).unwrap_err(), expected);
        let limit = 1 << 20;
        check(settings(0, &[]), ModelError::Width { width: 0, limit });
        check(settings(4, &[8, 0]), ModelError::Width { width: 0, limit });
        check(settings(limit as u64 + 1, &[]), ModelError::Width { width: limit + 1, limit });
        check(settings(4, &[1; 65]), ModelError::TooDeep { depth: 65, limit: 64 });
        let widest = [limit as u64; 64];
        let refused = build("mlp", settings(limit as u64, &widest)).unwrap_err();
        assert!(matches!(refused, ModelError::TooLarge { .. }), "{refused}");
    }

    #[test]
    fn settings_of_another_shape_are_refused() {
        let mut unknown = settings(4, &[]);
        unknown["dropout"] = json!(0.5);
        let mut negative = settings(4, &[]);
        negative["hidden"] = json!([-1]);
        for bad in [Value::Null, json!([]), json!({"features": 4}), unknown, negative] {
            let refused = build("mlp", bad.clone()).unwrap_err();
            assert!(matches!(refused, ModelError::Settings { .. }), "{bad}: {refused}");
        }
        let hidden = build("linear", settings(4, &[5])).unwrap_err();
        assert_eq!(hidden, ModelError::LinearWithHidden { depth: 1 });
    }
}
