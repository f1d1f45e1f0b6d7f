"""A round of the published total gradient attack in PyTorch, on the same two networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.peers.torch_models import Params, apply_mlp, total_gradient

Pair = tuple[torch.Tensor, torch.Tensor]


class Batch(NamedTuple):
    """What a round is played on: images and labels; poisons are made of `base`."""

    clean: Pair
    held_out: Pair
    base: Pair


class Rates(NamedTuple):
    """Step sizes of attacker and defender, the defender's steps, and the solve's."""

    attacker: float
    defender: float
    defender_steps: int
    damping: float
    solve_steps: int


def generate(theta: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Returns poisons in [0, 1] of images and one-hot labels, by a leaky dense network."""
    h = torch.cat([x.flatten(1), F.one_hot(y, 10).to(x.dtype)], dim=1)
    depth = len(theta) // 2
    for i in range(depth):
        h = F.linear(h, theta[f"{i}.weight"], theta[f"{i}.bias"])
        h = F.leaky_relu(h, 0.2) if i < depth - 1 else h
    return ((torch.tanh(h) + 1) / 2).reshape(x.shape)


def play_round(
    theta: Params, w: Params, batch: Batch, rates: Rates
) -> tuple[Params, Params, float]:
    """Returns both networks after a total gradient step and the defender's, and the residual."""
    theta = {name: leaf.detach().requires_grad_(True) for name, leaf in theta.items()}
    poisons = generate(theta, *batch.base)
    gradient, residual = total_gradient(
        apply_mlp,
        w,
        poisons,
        batch.base[1],
        batch.clean,
        batch.held_out,
        damping=rates.damping,
        steps=rates.solve_steps,
    )
    moves = torch.autograd.grad(poisons, list(theta.values()), grad_outputs=gradient)
    theta = {
        name: (leaf + rates.attacker * move).detach()
        for (name, leaf), move in zip(theta.items(), moves, strict=True)
    }
    with torch.no_grad():
        poisons = generate(theta, *batch.base)
    x, y = torch.cat([batch.clean[0], poisons]), torch.cat([batch.clean[1], batch.base[1]])
    for _ in range(rates.defender_steps):
        w = {name: leaf.detach().requires_grad_(True) for name, leaf in w.items()}
        slopes = torch.autograd.grad(F.cross_entropy(apply_mlp(w, x), y), list(w.values()))
        w = {
            name: (leaf - rates.defender * slope).detach()
            for (name, leaf), slope in zip(w.items(), slopes, strict=True)
        }
    return theta, w, residual
