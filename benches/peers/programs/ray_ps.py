"""Ray's synchronous parameter server: an actor that holds the parameters, and two workers.

The loop of its documentation: references go from actor to actor, values through its object store.
"""

from __future__ import annotations

import numpy as np
import ray

import numpy_mlp
from numpy_mlp import Parameters
from workload import LEARNING_RATE, TRAIN_ROWS, Pace, Workload, batches

WORKERS = 2
# Enough for hundreds of versions of the widest model that are on their way.
OBJECT_STORE_BYTES = 1 << 30


@ray.remote
class ParameterServer:
    def __init__(self, workload: Workload) -> None:
        self._parameters = numpy_mlp.initial(workload)

    def apply(self, *gradients: Parameters) -> Parameters:
        rate = np.float32(LEARNING_RATE / len(gradients))
        for parameter, *parts in zip(self._parameters, *gradients, strict=True):
            parameter -= rate * np.add.reduce(parts)
        return self._parameters

    def parameters(self) -> Parameters:
        return self._parameters


@ray.remote
class Worker:
    def __init__(self, workload: Workload, rank: int) -> None:
        self._images, self._labels = workload.rows("train")
        self._order = batches(TRAIN_ROWS, workload.batch, rank, WORKERS)

    def gradient(self, parameters: Parameters) -> Parameters:
        rows = next(self._order)
        return numpy_mlp.gradient(parameters, self._images[rows], self._labels[rows])


def main() -> None:
    workload = Workload.from_arguments()
    ray.init(
        address="local",
        num_cpus=1 + WORKERS,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
    )
    server = ParameterServer.remote(workload)
    workers = [Worker.remote(workload, rank) for rank in range(WORKERS)]
    test = workload.rows("t10k")
    current = server.parameters.remote()

    def accuracy() -> float:
        return numpy_mlp.accuracy(ray.get(current), *test)

    pace = Pace(workload, workload.batch * WORKERS, TRAIN_ROWS, accuracy)
    while steps := pace.steps():
        for _ in range(steps):
            gradients = [worker.gradient.remote(current) for worker in workers]
            current = server.apply.remote(*gradients)
        ray.wait([current], fetch_local=False)
    pace.report()
    ray.shutdown()


if __name__ == "__main__":
    main()
