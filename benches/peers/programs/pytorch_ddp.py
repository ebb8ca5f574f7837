"""PyTorch's DistributedDataParallel over gloo: two processes of one thread each, synchronous."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workload import TRAIN_ROWS, Pace, Workload, batches, steps_told, tell

if TYPE_CHECKING:
    from pytorch_single import Training

PROCESSES = 2


def main() -> None:
    workload = Workload.from_arguments()
    if workload.task == "main":
        lead(workload)
    else:
        training = joined(workload, 1)
        for _ in steps_told():
            training.step()


def lead(workload: Workload) -> None:
    follower = workload.start("follower")
    training = joined(workload, 0)
    pace = Pace(workload, workload.batch * PROCESSES, TRAIN_ROWS, training.accuracy)
    while steps := tell(follower, pace.steps()):
        for _ in range(steps):
            training.step()
    pace.report()


def joined(workload: Workload, rank: int) -> Training:
    # Here, so that both processes load it at the same time.
    import torch.distributed as dist
    from pytorch_single import Training, perceptron
    from torch.nn.parallel import DistributedDataParallel

    address = f"tcp://127.0.0.1:{workload.ports[0]}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=PROCESSES)
    order = batches(TRAIN_ROWS, workload.batch, rank, PROCESSES)
    return Training(workload, DistributedDataParallel(perceptron(workload)), order)


if __name__ == "__main__":
    main()
