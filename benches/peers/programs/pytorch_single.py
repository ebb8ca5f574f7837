"""PyTorch in one process on one thread, without anything distributed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from workload import LEARNING_RATE, SEED, TRAIN_ROWS, Pace, Workload, batches


def perceptron(workload: Workload) -> nn.Module:
    torch.manual_seed(SEED)
    layers: list[nn.Module] = []
    for inputs, outputs in workload.sizes:
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Training:
    """A model, and its rows as tensors in memory: no loader takes time."""

    def __init__(self, workload: Workload, model: nn.Module, order: Iterator[np.ndarray]) -> None:
        torch.set_num_threads(1)
        self._model = model
        self._order = order
        self._images, self._labels = map(torch.from_numpy, workload.rows("train"))
        self._test = workload.rows("t10k")
        self._loss = nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step(self) -> None:
        rows = torch.from_numpy(next(self._order))
        loss = self._loss(self._model(self._images[rows]), self._labels[rows])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        images, labels = self._test
        return float(np.mean(self._model(torch.from_numpy(images)).argmax(1).numpy() == labels))


def main() -> None:
    workload = Workload.from_arguments()
    training = Training(workload, perceptron(workload), batches(TRAIN_ROWS, workload.batch))
    pace = Pace(workload, workload.batch, TRAIN_ROWS, training.accuracy)
    while steps := pace.steps():
        for _ in range(steps):
            training.step()
    pace.report()


if __name__ == "__main__":
    main()
