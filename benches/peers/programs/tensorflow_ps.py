"""TensorFlow's ParameterServerStrategy: a chief, two workers and a server; workers don't wait for each other."""

from __future__ import annotations

from workload import Workload

WORKERS = 2


def main() -> None:
    workload = Workload.from_arguments()
    tasks = ["chief:0", "ps:0", *(f"worker:{index}" for index in range(WORKERS))]
    cluster: dict[str, list[str]] = {}
    for task, port in zip(tasks, workload.ports, strict=True):
        cluster.setdefault(task.partition(":")[0], []).append(f"127.0.0.1:{port}")
    servers = [workload.start(task) for task in tasks[1:]] if workload.task == "main" else []
    # Here, so that all processes load it at the same time.
    import tensorflow_training

    if workload.task != "main":
        tensorflow_training.serve(workload.task, cluster)
        return
    try:
        tensorflow_training.train(workload, cluster)
    finally:
        for server in servers:
            server.kill()


if __name__ == "__main__":
    main()
