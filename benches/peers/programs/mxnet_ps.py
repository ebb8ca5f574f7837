"""MXNet's `dist_sync` store on ps-lite: a scheduler, a server that keeps the parameters, two workers."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np

from workload import LEARNING_RATE, SEED, TRAIN_ROWS, Pace, Workload, batches, steps_told, tell

WORKERS = 2


def main() -> None:
    workload = Workload.from_arguments()
    leads = workload.task == "main"
    if leads:
        for task in ("scheduler", "server"):
            workload.start(task)
        follower = workload.start("follower")
    os.environ |= {
        "DMLC_ROLE": workload.task if workload.task in ("scheduler", "server") else "worker",
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": str(workload.ports[0]),
        "DMLC_NODE_HOST": "127.0.0.1",
        "DMLC_NUM_SERVER": "1",
        "DMLC_NUM_WORKER": str(WORKERS),
    }
    # A scheduler or server does its work in here, and ends when the workers have ended.
    import mxnet

    training = Training(mxnet, workload, 0 if leads else 1)
    if not leads:
        for _ in steps_told():
            training.step()
        training.wait()
        return
    pace = Pace(workload, workload.batch * WORKERS, TRAIN_ROWS, training.accuracy)
    while steps := tell(follower, pace.steps()):
        for _ in range(steps):
            training.step()
        training.wait()
    pace.report()


class Training:
    """One worker's copy of the model, which it gets from the store after each step."""

    def __init__(self, mx: ModuleType, workload: Workload, rank: int) -> None:
        self._mx = mx
        mx.random.seed(SEED)
        self._net = mx.gluon.nn.HybridSequential()
        for width in workload.hidden:
            self._net.add(mx.gluon.nn.Dense(width, activation="relu"))
        self._net.add(mx.gluon.nn.Dense(workload.sizes[-1][1]))
        self._net.initialize(mx.init.Xavier())
        self._net.hybridize()
        self._loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        self._trainer = mx.gluon.Trainer(
            self._net.collect_params(),
            "sgd",
            {"learning_rate": LEARNING_RATE},
            kvstore=mx.kv.create("dist_sync"),
            update_on_kvstore=True,
        )
        self._images, self._labels = workload.rows("train")
        self._test = workload.rows("t10k")
        self._order = batches(TRAIN_ROWS, workload.batch, rank, WORKERS)
        self._rows_a_step = workload.batch * WORKERS

    def step(self) -> None:
        rows = next(self._order)
        images, labels = map(self._mx.nd.array, (self._images[rows], self._labels[rows]))
        with self._mx.autograd.record():
            loss = self._loss(self._net(images), labels)
        loss.backward()
        # Divides the sum over the rows of all workers.
        self._trainer.step(self._rows_a_step)

    def wait(self) -> None:
        """Steps are made in the background; until all of them are done."""
        self._mx.nd.waitall()

    def accuracy(self) -> float:
        images, labels = self._test
        return float(np.mean(self._net(self._mx.nd.array(images)).asnumpy().argmax(1) == labels))


if __name__ == "__main__":
    main()
