"""The perceptron in numpy: what workers of systems that bring no model compute."""

from __future__ import annotations

import numpy as np

from workload import SEED, Workload

# Weights, shape [inputs, outputs], and biases of each layer, by turns.
Parameters = list[np.ndarray]


def initial(workload: Workload) -> Parameters:
    draw = np.random.default_rng(SEED)
    parameters: Parameters = []
    for inputs, outputs in workload.sizes:
        scale = np.sqrt(2 / inputs)
        parameters.append((draw.standard_normal((inputs, outputs)) * scale).astype(np.float32))
        parameters.append(np.zeros(outputs, np.float32))
    return parameters


def logits(parameters: Parameters, images: np.ndarray) -> list[np.ndarray]:
    """What enters each layer, and last the logits."""
    values = [images]
    for layer in range(0, len(parameters), 2):
        outputs = values[-1] @ parameters[layer] + parameters[layer + 1]
        values.append(np.maximum(outputs, 0) if layer + 2 < len(parameters) else outputs)
    return values


def gradient(parameters: Parameters, images: np.ndarray, labels: np.ndarray) -> Parameters:
    """Of the mean softmax cross-entropy."""
    *values, outputs = logits(parameters, images)
    exponents = np.exp(outputs - outputs.max(1, keepdims=True))
    error = exponents / exponents.sum(1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    error /= np.float32(len(labels))
    gradients: Parameters = []
    for layer in reversed(range(len(values))):
        gradients[:0] = [values[layer].T @ error, error.sum(0)]
        if layer:
            error = (error @ parameters[2 * layer].T) * (values[layer] > 0)
    return gradients


def accuracy(parameters: Parameters, images: np.ndarray, labels: np.ndarray) -> float:
    return (logits(parameters, images)[-1].argmax(1) == labels).mean()
