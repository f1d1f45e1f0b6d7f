"""The benchmarks' networks in PyTorch, on the same parameters, and published TGDA's solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F

Params = dict[str, torch.Tensor]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tensor(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array)).to(DEVICE)


def lenet_params(params: Any) -> Params:
    """Returns [k, k, in, out] kernels as [out, in, k, k], [in, out] as [out, in].

    The first dense layer reads channels-last features, as the JAX network gives them.
    """
    out = {}
    for name, layer in params.items():
        kernel = np.asarray(layer["kernel"])
        axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        out[f"{name}.weight"] = tensor(np.ascontiguousarray(kernel.transpose(axes)))
        out[f"{name}.bias"] = tensor(layer["bias"])
    return out


def apply_lenet(p: Params, x: torch.Tensor) -> torch.Tensor:
    """Maps x [n, 28, 28, 1] to logits."""
    h = x.permute(0, 3, 1, 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, p["conv1.weight"], p["conv1.bias"], padding=2)), 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, p["conv2.weight"], p["conv2.bias"])), 2)
    h = h.permute(0, 2, 3, 1).flatten(1)
    h = F.relu(F.linear(h, p["fc1.weight"], p["fc1.bias"]))
    h = F.relu(F.linear(h, p["fc2.weight"], p["fc2.bias"]))
    return F.linear(h, p["classifier.weight"], p["classifier.bias"])


def mlp_params(params: Any) -> Params:
    out = {}
    for i, layer in enumerate(params):
        out[f"{i}.weight"] = tensor(np.ascontiguousarray(np.asarray(layer["kernel"]).T))
        out[f"{i}.bias"] = tensor(layer["bias"])
    return out


def apply_mlp(p: Params, x: torch.Tensor) -> torch.Tensor:
    h, depth = x.flatten(1), len(p) // 2
    for i in range(depth):
        h = F.linear(h, p[f"{i}.weight"], p[f"{i}.bias"])
        h = F.relu(h) if i < depth - 1 else h
    return h


def flat(params: Any) -> np.ndarray:
    """Returns a JAX tree's numbers in one vector, to compare by."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def total_gradient(
    apply: Callable[[Params, torch.Tensor], torch.Tensor],
    params: Params,
    poison: torch.Tensor,
    poison_labels: torch.Tensor,
    clean: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    *,
    damping: float,
    steps: int,
) -> tuple[torch.Tensor, float]:
    """Returns the total gradient by double backward and CG on the normal equations.

    (H + damping I)² v = (H + damping I) b, two products per step on one retained graph, as the
    published TGDA code does; and the relative residual of (H + damping I) v = b.
    """
    names = list(params)
    weights = [params[name].detach().requires_grad_(True) for name in names]
    poison = poison.detach().requires_grad_(True)
    held = dict(zip(names, weights, strict=True))
    b = torch.autograd.grad(F.cross_entropy(apply(held, validation[0]), validation[1]), weights)
    x, y = torch.cat([clean[0], poison]), torch.cat([clean[1], poison_labels])
    loss = F.cross_entropy(apply(held, x), y)
    gradient = torch.autograd.grad(loss, weights, create_graph=True)

    def product(v: list[torch.Tensor]) -> list[torch.Tensor]:
        hv = torch.autograd.grad(gradient, weights, grad_outputs=v, retain_graph=True)
        return [h + damping * u for h, u in zip(hv, v, strict=True)]

    def dot(u: list[torch.Tensor], v: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.sum(p * q) for p, q in zip(u, v, strict=True)]).sum()

    v, r = [torch.zeros_like(w) for w in weights], list(b)
    s = product(r)
    p, ss = s, dot(s, s)
    for _ in range(steps):
        q = product(p)
        alpha = ss / dot(q, q)
        v = [u + alpha * w for u, w in zip(v, p, strict=True)]
        r = [u - alpha * w for u, w in zip(r, q, strict=True)]
        s = product(r)
        new = dot(s, s)
        p = [u + (new / ss) * w for u, w in zip(s, p, strict=True)]
        ss = new
    cross = torch.autograd.grad(gradient, poison, grad_outputs=v)[0]
    return -cross, float(torch.sqrt(dot(r, r) / dot(list(b), list(b))))


def hessian_product(
    apply: Callable[[Params, torch.Tensor], torch.Tensor],
    params: Params,
    x: torch.Tensor,
    y: torch.Tensor,
    vector: Params,
) -> list[torch.Tensor]:
    """Returns the product of the loss's Hessian with a vector, by double backward."""
    weights = {name: leaf.detach().requires_grad_(True) for name, leaf in params.items()}
    leaves = list(weights.values())
    gradient = torch.autograd.grad(F.cross_entropy(apply(weights, x), y), leaves, create_graph=True)
    return list(torch.autograd.grad(gradient, leaves, grad_outputs=[vector[n] for n in weights]))


def empirical_ntk(
    apply: Callable[[Params, torch.Tensor], torch.Tensor],
    params: Params,
    x: torch.Tensor,
    *,
    chunk: int | None = None,
) -> torch.Tensor:
    """Returns the NTK [n, c, n, c] by contracting `torch.func`'s Jacobians, leaf by leaf."""

    def one(p: Params, example: torch.Tensor) -> torch.Tensor:
        return apply(p, example[None])[0]

    rows = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0), chunk_size=chunk)(params, x)
    leaves = [leaf.flatten(2) for leaf in rows.values()]
    return torch.stack([torch.einsum("iap,jbp->iajb", leaf, leaf) for leaf in leaves]).sum(0)


def ntk_product(
    apply: Callable[[Params, torch.Tensor], torch.Tensor],
    params: Params,
    x: torch.Tensor,
    vector: torch.Tensor,
) -> torch.Tensor:
    """Returns the NTK times a vector [n, c] by one `vjp` and one `jvp`, no kernel stored."""

    def of_params(p: Params) -> torch.Tensor:
        return apply(p, x)

    direction = torch.func.vjp(of_params, params)[1](vector)[0]
    return torch.func.jvp(of_params, (params,), (direction,))[1]


def per_example_gradients(
    apply: Callable[[Params, torch.Tensor], torch.Tensor],
    params: Params,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    chunk: int | None,
) -> Params:
    """Returns `torch.func.vmap(grad)`'s gradients, one row per example."""

    def loss(p: Params, example: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(apply(p, example[None]), label[None])

    batched = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0), chunk_size=chunk)
    return batched(params, x, y)


def gram(gradients: Params) -> torch.Tensor:
    """Returns the inner products of per-example gradients, one row per example in every leaf."""
    bank = torch.cat([leaf.flatten(1) for leaf in gradients.values()], dim=1)
    return bank @ bank.T


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


class LeNet(torch.nn.Module):
    """`apply_lenet` as a module whose layers are modules, for packages that look for them."""

    def __init__(self, params: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = torch.nn.Conv2d(1, 6, 5, padding=2), torch.nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = torch.nn.Linear(400, 120), torch.nn.Linear(120, 84)
        self.classifier = torch.nn.Linear(84, 10)
        self.load_state_dict(lenet_params(params))
        self.to(DEVICE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.max_pool2d(F.relu(self.conv1(x.permute(0, 3, 1, 2))), 2)
        h = F.max_pool2d(F.relu(self.conv2(h)), 2)
        h = F.relu(self.fc1(h.permute(0, 2, 3, 1).flatten(1)))
        return self.classifier(F.relu(self.fc2(h)))


def to_ours(params: Params, like: Any) -> Any:
    """Returns what `lenet_params` makes of our parameters as ours again.

    Args:
      params: by name.
      like: our parameters, for their order.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in like:
        weight = params[f"{name}.weight"].detach().cpu().numpy()
        axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
        bias = params[f"{name}.bias"].detach().cpu().numpy()
        found[name] = {"kernel": weight.transpose(axes), "bias": bias}
    return found
