"""The SVM layer by cvxpylayers: `python svm.py problem.npz answer.npz repeats`.

Reads x, y and C; writes weights, bias, the gradient of sum(weights) + bias in x as it comes by
default (LSQR) and by LSMR, which solves the same system more exactly, and the seconds of every
solve with its gradient by default. It needs torch and cvxpylayers, not unlearnkit.
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

    def solve(**settings: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
        features = torch.tensor(x, requires_grad=True)
        settings = {"solve_method": "Clarabel", **settings}
        start = time.perf_counter()
        w, b = layer(torch.tensor(y)[:, None] * features, solver_args=settings)
        (w.sum() + b.sum()).backward()
        return w.detach(), b.detach(), features.grad, time.perf_counter() - start

    w, b, gradient, first = solve()
    seconds = [first, *(solve()[3] for _ in range(int(repeats) - 1))]
    exact = solve(mode="lsmr")[2]
    np.savez(
        answer,
        weights=w.numpy(),
        bias=b.numpy(),
        gradient=gradient.numpy(),
        gradient_lsmr=exact.numpy(),
        seconds=seconds,
        setup=setup,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
