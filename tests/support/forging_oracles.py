"""Errors of forged batches of logistic regression, in float64 NumPy."""

import numpy as np
from softmax_regression import BIAS, KERNEL, MODEL, as_float64, draw, gradient, softmax, weights

from unlearnkit.forging.steps import honest_step

RATE = 0.1
VARIABLES = weights()
ALLOWED = draw(7, 40)


def step_of(b, seed=8):
    return honest_step(MODEL, VARIABLES, draw(seed, b), RATE)


def as_vector(g):
    return np.concatenate([np.ravel(np.asarray(g[name], np.float64)) for name in (KERNEL, BIAS)])


def wanted(step):
    return as_vector(step.gradient["classifier"])


def error_of(step, x, labels):
    """η ‖∇L - g‖ for real labels [b, 3]."""
    w, x = as_float64(step.variables), np.asarray(x, np.float64)
    x = x.reshape(len(x), -1)
    s = softmax(x @ w[KERNEL] + w[BIAS])
    y = np.asarray(labels, np.float64)
    c = s * y.sum(-1, keepdims=True) - y
    got = {KERNEL: x.T @ c / len(x), BIAS: c.mean(0)}
    return step.learning_rate * np.linalg.norm(as_vector(got) - wanted(step))


def error_of_choice(step, allowed, indices):
    """η ‖∇L - g‖ for examples of `allowed`, by their own gradients one by one."""
    w = as_float64(step.variables)
    rows = [as_vector(gradient(w, allowed.take(np.array([i])))) for i in np.asarray(indices)]
    return step.learning_rate * np.linalg.norm(np.mean(rows, axis=0) - wanted(step))
