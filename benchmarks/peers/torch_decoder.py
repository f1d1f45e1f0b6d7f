"""GPT-2's decoder in PyTorch, as its users write it: fused attention, one product for q, k, v."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Decoder(nn.Module):
    """Tells every next token; its parameters have GPT-2's names."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, positions: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(positions, width)
        self.h = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        for block in self.h:
            h = block(h)
        return F.linear(self.ln_f(h), self.wte.weight)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = _Attention(width, heads), _Perceptron(width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        h = h + self.attn(self.ln_1(h))
        return h + self.mlp(self.ln_2(h))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        n, length, width = h.shape
        q, k, v = (
            part.view(n, length, self.heads, -1).transpose(1, 2)
            for part in self.c_attn(h).split(width, 2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).reshape(n, length, width))


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(h), approximate="tanh"))


def decoder_of(params: Mapping[str, Any], heads: int) -> Decoder:
    """Returns the decoder with the weights of ours, whose matrices are [in, out].

    Args:
      params: of a network of the family gpt2 with the head `tokens`.
      heads: of the attention.
    """
    vocabulary, width = params["wte"]["weight"].shape
    positions = params["wpe"]["weight"].shape[0]
    network = Decoder(vocabulary, width, len(params["h"]), heads, positions)
    network.load_state_dict(_flat(params))
    return network


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
            continue
        array = np.array(value)
        turned = array.ndim == 2 and not prefix.startswith(("wte", "wpe"))
        found[f"{prefix}{name}"] = torch.from_numpy(array.T.copy() if turned else array)
    return found


def epoch_of(
    network: Decoder, x: torch.Tensor, *, batch_size: int, learning_rate: float
) -> Callable[[], None]:
    """Returns a call that trains for one more epoch on every next token, by Adam.

    Args:
      network: to be trained.
      x: [n, length] token ids.
      batch_size: rows of a step.
      learning_rate: of Adam.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def epoch() -> None:
        for rows in torch.randperm(len(x)).split(batch_size):
            batch = x[rows]
            optimizer.zero_grad()
            logits = network(batch)[:, :-1]
            F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
            optimizer.step()

    return epoch
