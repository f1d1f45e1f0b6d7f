"""Networks by name, and adapters for flax modules and plain functions."""

from __future__ import annotations

import inspect
from typing import Any

from unlearnkit.base import Model
from unlearnkit.io.vocabularies import gpt2_tokenizer, read_tokenizer, write_tokenizer
from unlearnkit.models.adapters import freeze_state, from_functions, from_linen, from_nnx
from unlearnkit.models.adopting import Adopted, adopt
from unlearnkit.models.allcnn import allcnn, allcnn_small
from unlearnkit.models.averaging import deep_averaging
from unlearnkit.models.cnn import cnn_cifar, cnn_mnist
from unlearnkit.models.convnext import convnext_tiny
from unlearnkit.models.dense import logistic, mlp, nn_tgda
from unlearnkit.models.embedding_noise import with_embedding_noise, with_noise_columns
from unlearnkit.models.factories import check_made, import_factory
from unlearnkit.models.fresh import starting_from
from unlearnkit.models.haiku import from_haiku
from unlearnkit.models.layers import Conv, Images, Implementation, images
from unlearnkit.models.lenet import lenet
from unlearnkit.models.lora import lora, merge_lora
from unlearnkit.models.pretrained import Pretrained, load_pretrained, save_pretrained
from unlearnkit.models.resnet import resnet18
from unlearnkit.models.speedrun import speedrun
from unlearnkit.models.transformer import (
    SMOLLM2_135M,
    Decoder,
    Head,
    gpt2,
    gpt2_decoder,
    gpt2_medium,
    gpt2_tiny,
    llama_tiny,
    network_of,
    partition_specs,
    shard_variables,
    smollm2_135m,
    transformer,
)
from unlearnkit.models.vgg import vgg11, vgg16, vggmini
from unlearnkit.models.vit import vit_tiny
from unlearnkit.registry import Registry

MODELS: Registry[Model] = Registry(
    "network",
    {
        "logistic": logistic,
        "mlp": mlp,
        "nn": nn_tgda,
        "lenet": lenet,
        "cnn_mnist": cnn_mnist,
        "cnn_cifar": cnn_cifar,
        "vggmini": vggmini,
        "allcnn": allcnn,
        "allcnn_small": allcnn_small,
        "resnet18": resnet18,
        "speedrun": speedrun,
        "vgg11": vgg11,
        "vgg16": vgg16,
        "vit_tiny": vit_tiny,
        "convnext_tiny": convnext_tiny,
        "deep_averaging": deep_averaging,
        "gpt2_tiny": gpt2_tiny,
        "gpt2": gpt2,
        "gpt2_medium": gpt2_medium,
        "llama_tiny": llama_tiny,
        "smollm2_135m": smollm2_135m,
    },
)
"""Name -> factory; each takes `input_shape`, `n_classes` and its own options by keyword."""


def create(name: str, *, input_shape: tuple[int, ...], n_classes: int, **options: Any) -> Model:
    """Returns the network called `name`. Equal calls return equal models.

    Args:
      name: a key of `MODELS`, a network of another package, or `package.module:factory`, whose
        code then runs: a function that returns a `Model`, or an `Adopted` one. It is given
        `input_shape` and `n_classes` where it takes arguments of these names.
      input_shape: the shape of one example; (height, width, channels) for the convolutional ones.
      n_classes: the number of logits.
      **options: further arguments of the factory, such as `implementation` or `width`.

    Raises:
      ValueError: the name or an option is unknown, or the input does not suit the network.
      ImportError: no module of that name.
      TypeError: a factory that returns no network.

    Example:
      model = models.create("resnet18", input_shape=(32, 32, 3), n_classes=10)
      variables = model.init(key)
    """
    named, _, rest = name.partition(":")
    if rest and named in MODELS:
        raise ValueError(f"network {named!r}: a setting must read name=value, got {rest!r}")
    factory = import_factory(name) if ":" in name else MODELS.find(name)
    taken = set(inspect.signature(factory).parameters)
    known = taken - {"input_shape", "n_classes"}
    if unknown := sorted(options.keys() - known):
        raise ValueError(
            f"network {name!r} has no option {', '.join(unknown)}; "
            f"its options: {', '.join(sorted(known)) or 'none'}"
        )
    if n_classes < 1:
        raise ValueError(f"n_classes must be >= 1, got {n_classes}")
    if not input_shape or any(side < 1 for side in input_shape):
        raise ValueError(f"input_shape must have sides >= 1, got {tuple(input_shape)}")
    given = {"input_shape": tuple(input_shape), "n_classes": n_classes}
    made = factory(**{key: value for key, value in given.items() if key in taken}, **options)
    if ":" in name:
        return check_made(name, made)
    hashable = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return made._replace(origin=(name, tuple(sorted(hashable.items()))))


__all__ = [
    "MODELS",
    "SMOLLM2_135M",
    "Adopted",
    "Conv",
    "Decoder",
    "Head",
    "Images",
    "Implementation",
    "Pretrained",
    "adopt",
    "allcnn",
    "allcnn_small",
    "cnn_cifar",
    "cnn_mnist",
    "convnext_tiny",
    "create",
    "freeze_state",
    "from_functions",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "gpt2",
    "gpt2_decoder",
    "gpt2_medium",
    "gpt2_tiny",
    "gpt2_tokenizer",
    "images",
    "lenet",
    "llama_tiny",
    "load_pretrained",
    "logistic",
    "lora",
    "merge_lora",
    "mlp",
    "network_of",
    "nn_tgda",
    "partition_specs",
    "read_tokenizer",
    "resnet18",
    "save_pretrained",
    "shard_variables",
    "smollm2_135m",
    "speedrun",
    "starting_from",
    "transformer",
    "vgg11",
    "vgg16",
    "vggmini",
    "vit_tiny",
    "with_embedding_noise",
    "with_noise_columns",
    "write_tokenizer",
]
