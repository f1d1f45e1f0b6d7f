"""The SVM layer by cvxpylayers: `python svm.py problem.npz answer.npz repeats`.

Reads x, y and C; writes weights, bias, the gradient of sum(weights) + bias in x, and the seconds of
every solve with its gradient. It needs torch and cvxpylayers, not unlearnkit.
"""

import sys
import time

import cvxpy as cp
import numpy as np
import torch
from cvxpylayers.torch import CvxpyLayer


def main(problem: str, answer: str, repeats: str) -> None:
    data = np.load(problem)
    x, y, penalty = data["x"], data["y"].astype(float), float(data["C"])
    start = time.perf_counter()
    rows = cp.Parameter(x.shape)
    weights, bias = cp.Variable(x.shape[1]), cp.Variable()
    losses = cp.pos(1 - rows @ weights - y * bias)
    objective = cp.Minimize(cp.sum_squares(weights) / 2 + penalty * cp.sum(losses))
    layer = CvxpyLayer(cp.Problem(objective), parameters=[rows], variables=[weights, bias])
    setup = time.perf_counter() - start

    seconds = []
    for _ in range(int(repeats)):
        features = torch.tensor(x, requires_grad=True)
        start = time.perf_counter()
        w, b = layer(torch.tensor(y)[:, None] * features, solver_args={"solve_method": "Clarabel"})
        (w.sum() + b.sum()).backward()
        seconds.append(time.perf_counter() - start)
    np.savez(
        answer,
        weights=w.detach().numpy(),
        bias=b.detach().numpy(),
        gradient=features.grad.numpy(),
        seconds=seconds,
        setup=setup,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
