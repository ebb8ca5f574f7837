"""Writes the reference trajectories that optimizer_golden.rs compares with.

    pip install torch numpy && python actors/tests/golden/make.py

Every float is an f32 bit pattern, so that the test reads what PyTorch held. Gradients are fixed
numbers and don't depend on the parameters: an error can't hide behind a loss that forgives it.
"""

import json
import pathlib

import numpy
import torch

STEPS, PARAMETERS = 50, 8
FOLDER = pathlib.Path(__file__).parent


def f32(x):
    """The float that a 32-bit setting holds, so that both sides start from the same one."""
    return float(numpy.float32(x))


def bits(tensor):
    return numpy.asarray(tensor, dtype=numpy.float32).view(numpy.uint32).tolist()


def write(name, content):
    content = {"torch": torch.__version__, **content}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    (FOLDER / f"{name}.json").write_text("{\n" + lines + "\n}\n")


def trajectory(name, settings, make):
    random = numpy.random.default_rng(20_001)
    # Away from zero: a relative error says nothing where a parameter crosses it.
    initial = random.uniform(1, 2, PARAMETERS) * random.choice([-1, 1], PARAMETERS)
    # Over four orders of magnitude, signs and all.
    gradients = random.normal(0, 1, (STEPS, PARAMETERS)) * 10.0 ** random.uniform(-3, 0, PARAMETERS)
    parameter = torch.nn.Parameter(torch.tensor(initial, dtype=torch.float32))
    gradients = torch.tensor(gradients, dtype=torch.float32)
    optimizer = make([parameter], {key: f32(value) for key, value in settings.items()})
    parameters = [bits(parameter.detach())]
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        parameters.append(bits(parameter.detach()))
    write(name, {
        "settings": settings,
        "gradients": [bits(gradient) for gradient in gradients],
        "parameters": parameters,
    })


def sgd(**fixed):
    return lambda parameters, s: torch.optim.SGD(
        parameters, lr=s["learning_rate"], weight_decay=s["weight_decay"],
        momentum=s.get("momentum", 0), foreach=False, **fixed)


def adam(parameters, s):
    return torch.optim.Adam(
        parameters, lr=s["learning_rate"], betas=(s["beta1"], s["beta2"]), eps=s["epsilon"],
        weight_decay=s["weight_decay"], foreach=False)


def schedules():
    """Factors on a learning rate of 1, after a linear warm-up or without one."""
    lr = torch.optim.lr_scheduler
    kinds = {
        "constant": lambda o, steps: lr.LambdaLR(o, lambda _: 1.0),
        "step": lambda o, steps: lr.StepLR(o, step_size=7, gamma=0.5),
        "cosine": lambda o, steps: lr.CosineAnnealingLR(o, T_max=steps, eta_min=0.125),
    }
    cases = []
    for kind, make in kinds.items():
        for warmup in (0, 5):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
            schedule = make(optimizer, STEPS - warmup)
            if warmup:
                rise = lr.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
                schedule = lr.SequentialLR(optimizer, [rise, schedule], milestones=[warmup])
            factors = []
            for _ in range(STEPS):
                factors.append(schedule.get_last_lr()[0])
                optimizer.step()
                schedule.step()
            cases.append({"kind": kind, "warmup_steps": warmup, "factors": factors})
    write("schedules", {"every_steps": 7, "factor": 0.5, "floor": 0.125, "cases": cases})


trajectory("sgd", {"learning_rate": 0.01, "weight_decay": 0.1}, sgd())
trajectory("momentum", {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.01}, sgd())
trajectory("nesterov", {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.01},
           sgd(nesterov=True))
trajectory("adam", {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
                    "weight_decay": 0.01}, adam)
schedules()
