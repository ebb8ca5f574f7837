"""What the processes of `tensorflow_ps` do.

Variables and the optimizer's rule without Keras, which would cost more.
"""

from __future__ import annotations

import tensorflow as tf

import numpy_mlp
from workload import FEATURES, IMAGES_HEADER, LABELS_HEADER, LEARNING_RATE, TRAIN_ROWS, Pace, Workload

# Rows among which the next one is drawn.
SHUFFLED = 10_000
# Seconds; one look a measurement, as a look waits until no worker has a step to make.
LOOK_EVERY = 1e9


def serve(task: str, cluster: dict[str, list[str]]) -> None:
    """Until the process is ended."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    role, _, index = task.partition(":")
    spec = tf.train.ClusterSpec(cluster)
    tf.distribute.Server(spec, job_name=role, task_index=int(index), protocol="grpc").join()


def train(workload: Workload, cluster: dict[str, list[str]]) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type="chief", task_id=0, rpc_layer="grpc"
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        variables = [tf.Variable(value) for value in numpy_mlp.initial(workload)]

    @tf.function
    def step(rows: tf.data.Iterator) -> None:
        images, labels = next(rows)
        with tf.GradientTape() as tape:
            values = images
            for layer in range(0, len(variables), 2):
                values = values if layer == 0 else tf.nn.relu(values)
                values = tf.matmul(values, variables[layer]) + variables[layer + 1]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, values))
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(LEARNING_RATE * gradient)

    rows = iter(coordinator.create_per_worker_dataset(lambda: batches(workload)))
    test = workload.rows("t10k")

    def accuracy() -> float:
        return numpy_mlp.accuracy([variable.numpy() for variable in variables], *test)

    pace = Pace(workload, workload.batch, TRAIN_ROWS, accuracy, look_every=LOOK_EVERY)
    while steps := pace.steps():
        for _ in range(steps):
            coordinator.schedule(step, args=(rows,))
        coordinator.join()
    pace.report()


def batches(workload: Workload) -> tf.data.Dataset:
    """Read from the files by each worker."""
    images = tf.data.FixedLengthRecordDataset(str(workload.images("train")), FEATURES, IMAGES_HEADER)
    labels = tf.data.FixedLengthRecordDataset(str(workload.labels("train")), 1, LABELS_HEADER)
    rows = tf.data.Dataset.zip((images, labels)).cache().shuffle(SHUFFLED).repeat()
    return rows.batch(workload.batch, drop_remainder=True).map(decode).prefetch(2)


def decode(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    images = tf.cast(tf.io.decode_raw(images, tf.uint8), tf.float32) / 255.0
    return images, tf.cast(tf.io.decode_raw(labels, tf.uint8), tf.int32)[:, 0]
