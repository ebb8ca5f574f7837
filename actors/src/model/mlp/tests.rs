use std::ops::Range;

use ndarray::{Array1, ArrayView1, Axis, array, concatenate};
use proptest::prelude::*;

use super::*;
use crate::layout::Layout;
use crate::model::initialise;

const ACTIVATIONS: [Activation; 3] = [Activation::Relu, Activation::Tanh, Activation::Sigmoid];
const LOSSES: [Loss; 2] = [Loss::Softmax, Loss::Squared];

fn mlp(hidden: &[usize], activation: Activation, loss: Loss) -> Mlp {
    let hidden = hidden.to_vec();
    Mlp::new("mlp", MlpSettings { features: 5, outputs: 3, hidden, activation, loss }).unwrap()
}

/// Parameters by seed, biases moved off zero so that they matter.
fn parameters(model: &Mlp) -> Vec<f32> {
    let layout = Layout::new(model.tensors()).unwrap();
    let mut values = initialise(&layout, 3, 0..layout.len()).unwrap();
    for (index, value) in values.iter_mut().enumerate() {
        *value += 0.1 * (index as f32).sin();
    }
    values
}

fn inputs(rows: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, 5), |(row, column)| ((row * 7 + column * 3) as f32).sin())
}

/// The loss in `f64`, straight from the formulas.
fn exact_loss(model: &Mlp, parameters: &[f64], inputs: &Array2<f32>, classes: &[u32]) -> f64 {
    let settings = &model.settings;
    let mut z = inputs.mapv(f64::from);
    for (index, layer) in model.layers.iter().enumerate() {
        let shape = (layer.inputs, layer.outputs);
        let weight = &parameters[layer.weight.clone()];
        let weight = ArrayView2::from_shape(shape, weight).unwrap();
        z = z.dot(&weight) + ArrayView1::from(&parameters[layer.bias.clone()]);
        if index + 1 < model.layers.len() {
            z.mapv_inplace(|x| match settings.activation {
                Activation::Relu => x.max(0.0),
                Activation::Tanh => x.tanh(),
                Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            });
        }
    }
    let one = |row: ArrayView1<'_, f64>, class: usize| match settings.loss {
        Loss::Softmax => row.mapv(f64::exp).sum().ln() - row[class],
        Loss::Squared => {
            let target = Array1::from_shape_fn(3, |c| f64::from(u8::from(c == class)));
            0.5 * (&row - &target).mapv(|x| x * x).sum()
        }
    };
    z.rows().into_iter().zip(classes).map(|(row, &class)| one(row, class as usize)).sum()
}

#[test]
fn loss_and_gradient_agree_with_finite_differences() {
    let (inputs, classes) = (inputs(6), [0, 2, 1, 1, 0, 2]);
    let batch = Batch { inputs: inputs.view(), targets: Targets::Classes(&classes) };
    for hidden in [&[][..], &[4], &[7, 4]] {
        for (activation, loss) in ACTIVATIONS.into_iter().flat_map(|a| LOSSES.map(|l| (a, l))) {
            let model = mlp(hidden, activation, loss);
            let parameters = parameters(&model);
            let mut gradient = vec![f32::NAN; parameters.len()];
            let sum = model.gradient(&parameters, batch, &mut gradient);

            let mut exact: Vec<f64> = parameters.iter().map(|&x| f64::from(x)).collect();
            let expected = exact_loss(&model, &exact, &inputs, &classes);
            assert!((sum - expected).abs() < 1e-5 * expected, "{sum}, expected {expected}");
            for index in 0..exact.len() {
                let mut at = |shift: f64| {
                    let value =
                        std::mem::replace(&mut exact[index], f64::from(parameters[index]) + shift);
                    let loss = exact_loss(&model, &exact, &inputs, &classes);
                    exact[index] = value;
                    loss
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                let got = f64::from(gradient[index]);
                assert!(
                    (got - slope).abs() < 1e-5 * (1.0 + slope.abs()),
                    "{hidden:?} {activation:?} {loss:?}: parameter {index} has {got}, not {slope}"
                );
            }
        }
    }
}

#[test]
fn a_gradient_is_the_sum_over_its_rows_and_has_the_same_bits_each_time() {
    let model = mlp(&[7], Activation::Tanh, Loss::Softmax);
    let parameters = parameters(&model);
    let (inputs, classes) = (inputs(4), [0, 1, 2, 1]);
    let of = |rows: Range<usize>| {
        let mut gradient = vec![f32::NAN; parameters.len()];
        let inputs = inputs.slice_axis(Axis(0), rows.clone().into());
        let batch = Batch { inputs, targets: Targets::Classes(&classes[rows]) };
        let loss = model.gradient(&parameters, batch, &mut gradient);
        (loss, Array1::from(gradient))
    };
    let whole = of(0..4);
    assert_eq!(whole, of(0..4));
    let (a, b) = (of(0..1), of(1..4));
    assert!((whole.0 - a.0 - b.0).abs() < 1e-6);
    assert!((whole.1 - a.1 - b.1).iter().all(|x| x.abs() < 1e-5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Widths on both sides of what the matrix product's kernels and caches take at once.
    #[test]
    fn parts_of_a_batch_have_the_bits_that_they_have_alone(
        widths in prop::collection::vec(prop_oneof![1usize..20, 250usize..300], 2..5),
        parts in prop::collection::vec(0usize..40, 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        activation in prop::sample::select(&ACTIVATIONS[..]),
        loss in prop::sample::select(&LOSSES[..]),
    ) {
        let (features, outputs) = (widths[0], widths[widths.len() - 1]);
        let hidden = widths[1..widths.len() - 1].to_vec();
        let settings = MlpSettings { features, outputs, hidden, activation, loss };
        let model = Mlp::new("mlp", settings).unwrap();
        let parameters = parameters(&model);
        let mut backward = model.backward().unwrap();
        // Memory of a larger batch is there already, and what it held.
        for rows in [parts.iter().sum::<usize>() + 3, parts.iter().sum()] {
            let inputs = Array2::from_shape_fn((rows, features), |(row, column)| {
                ((row * 31 + column * 17) as f32).sin()
            });
            let classes: Vec<u32> = (0..rows).map(|row| (row * 7 % outputs) as u32).collect();
            let batch = Batch { inputs: inputs.view(), targets: Targets::Classes(&classes) };
            backward.run(&parameters, batch);
            let ends = parts.iter().scan(0, |end, len| {
                *end += len;
                Some((*end - len)..*end)
            });
            let parts: Vec<_> = ends.collect();
            let mut ends: Vec<usize> =
                cuts.iter().map(|cut| cut.index(parameters.len() + 1)).collect();
            ends.extend([0, parameters.len()]);
            ends.sort_unstable();
            let mut together = vec![vec![f32::NAN; parameters.len()]; parts.len()];
            // From behind, each for all parts.
            for range in ends.windows(2).rev().map(|ends| ends[0]..ends[1]) {
                for (part, gradient) in parts.iter().zip(&mut together) {
                    let to = &mut gradient[range.clone()];
                    backward.gradient(&parameters, batch, part.clone(), range.clone(), to);
                }
            }
            for (part, together) in parts.into_iter().zip(together) {
                let mut alone = vec![0.5; parameters.len()];
                let loss = model.gradient(&parameters, batch.part(part.clone()), &mut alone);
                prop_assert_eq!(backward.loss(part).to_bits(), loss.to_bits());
                let bits =
                    [together, alone].map(|g| g.into_iter().map(f32::to_bits).collect::<Vec<_>>());
                prop_assert_eq!(&bits[0], &bits[1]);
            }
        }
    }
}

#[test]
fn an_empty_batch_gives_zeros() {
    let model = mlp(&[4], Activation::Relu, Loss::Softmax);
    let parameters = parameters(&model);
    let mut gradient = vec![f32::NAN; parameters.len()];
    let inputs = inputs(0);
    let batch = Batch { inputs: inputs.view(), targets: Targets::Classes(&[]) };
    assert_eq!(model.gradient(&parameters, batch, &mut gradient), 0.0);
    assert!(gradient.iter().all(|&x| x == 0.0));
    assert_eq!(model.predict(&parameters, inputs.view()).dim(), (0, 3));
}

#[test]
fn a_classifier_answers_with_probabilities_and_a_regression_with_values() {
    let rows = inputs(9);
    let classifier = mlp(&[4], Activation::Sigmoid, Loss::Softmax);
    let answer = classifier.predict(&parameters(&classifier), rows.view());
    assert!(answer.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-6));
    assert!(answer.iter().all(|&p| p > 0.0));

    let regression = mlp(&[], Activation::Relu, Loss::Squared);
    let mut only_bias = vec![0.0; parameters(&regression).len()];
    only_bias[15..].copy_from_slice(&[1.0, -2.0, 30.0]);
    let answer = regression.predict(&only_bias, rows.view());
    assert!(answer.rows().into_iter().all(|row| row == array![1.0, -2.0, 30.0]));
}

#[test]
fn an_answer_does_not_depend_on_the_rows_beside_it() {
    // 300 is more than the matrix product takes at once.
    let model = mlp(&[300, 9], Activation::Relu, Loss::Softmax);
    let (parameters, rows) = (parameters(&model), inputs(20));
    let together = model.predict(&parameters, rows.view());
    let alone: Vec<Array2<f32>> =
        rows.axis_chunks_iter(Axis(0), 1).map(|row| model.predict(&parameters, row)).collect();
    let alone: Vec<ArrayView2<'_, f32>> = alone.iter().map(|row| row.view()).collect();
    assert_eq!(concatenate(Axis(0), &alone).unwrap(), together);
}

#[test]
fn evaluation_counts_right_classes_for_either_loss_and_none_for_values() {
    let rows = inputs(8);
    for loss in LOSSES {
        let model = mlp(&[6], Activation::Relu, loss);
        let parameters = parameters(&model);
        let answers = model.predict(&parameters, rows.view());
        let mut classes: Vec<u32> =
            answers.rows().into_iter().map(|row| best_class(row) as u32).collect();
        classes[3] = (classes[3] + 1) % 3;
        let batch = Batch { inputs: rows.view(), targets: Targets::Classes(&classes) };
        let score = model.evaluate(&parameters, batch);
        let mut gradient = vec![0.0; parameters.len()];
        assert_eq!((score.rows, score.correct), (8, Some(7)));
        assert_eq!(score.loss, model.gradient(&parameters, batch, &mut gradient));

        let values = Batch { targets: Targets::Values(answers.view()), ..batch };
        assert_eq!(model.evaluate(&parameters, values).correct, None);
    }
}

#[test]
fn a_parameter_that_is_not_finite_shows_in_the_gradient() {
    for activation in ACTIVATIONS {
        let model = mlp(&[4], activation, Loss::Softmax);
        let mut parameters = parameters(&model);
        parameters[0] = f32::NAN;
        let mut gradient = vec![0.0; parameters.len()];
        let inputs = inputs(2);
        let batch = Batch { inputs: inputs.view(), targets: Targets::Classes(&[0, 1]) };
        assert!(model.gradient(&parameters, batch, &mut gradient).is_nan(), "{activation:?}");
        assert!(gradient.iter().any(|x| x.is_nan()), "{activation:?}");
    }
}

#[test]
fn hidden_layers_start_by_he_before_a_relu_and_all_else_by_glorot() {
    let inits = |activation| {
        let tensors = mlp(&[4], activation, Loss::Softmax).tensors();
        tensors.into_iter().map(|tensor| tensor.init).collect::<Vec<_>>()
    };
    let glorot = |fan_in, fan_out| Init::Glorot { fan_in, fan_out };
    let relu = [Init::He { fan_in: 5 }, Init::Zeros, glorot(4, 3), Init::Zeros];
    assert_eq!(inits(Activation::Relu), relu);
    let tanh = [glorot(5, 4), Init::Zeros, glorot(4, 3), Init::Zeros];
    assert_eq!(inits(Activation::Tanh), tanh);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Requests that wait together are predicted together: nobody's answer may depend on who was
    /// beside them.
    #[test]
    fn a_row_is_predicted_with_the_same_bits_whatever_rows_lie_beside_it(
        features in 1usize..700,
        hidden in prop::collection::vec(1usize..300, 0..3),
        outputs in 1usize..20,
        rows in 2usize..80,
        activation in prop::sample::select(&ACTIVATIONS[..]),
        loss in prop::sample::select(&LOSSES[..]),
    ) {
        let settings = MlpSettings { features, outputs, hidden, activation, loss };
        let model = Mlp::new("mlp", settings).unwrap();
        let parameters = parameters(&model);
        let inputs = Array2::from_shape_fn((rows, features), |(row, column)| {
            ((row * 7 + column * 3) as f32).sin()
        });
        let together = model.predict(&parameters, inputs.view());
        for size in [1, 3] {
            for start in (0..rows).step_by(size * 5) {
                let part = start..(start + size).min(rows);
                let of = |all: &Array2<f32>| {
                    let mut all = all.clone();
                    all.slice_axis_inplace(Axis(0), part.clone().into());
                    all
                };
                let (alone, beside) =
                    (model.predict(&parameters, of(&inputs).view()), of(&together));
                let bits = |values: ArrayView2<'_, f32>| -> Vec<u32> {
                    values.iter().map(|value| value.to_bits()).collect()
                };
                prop_assert_eq!(bits(alone.view()), bits(beside.view()));
            }
        }
    }
}
