"""The peer's networks, the same as ours layer by layer, as its users write them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_classifier(),
    )


def cnn_cifar() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_classifier(),
    )


def _classifier() -> list[nn.Module]:
    return [
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    ]


def allcnn_small(width: int = 24) -> nn.Module:
    plan = [(width, 3, 1), (width, 3, 1), (width, 3, 2)]
    plan += [(2 * width, 3, 1), (2 * width, 3, 1), (2 * width, 3, 2)]
    plan += [(2 * width, 3, 1), (2 * width, 1, 1)]
    layers: list[nn.Module] = []
    channels = 3
    for features, size, stride in plan:
        layers += [*_conv_norm(channels, features, size, stride), nn.ReLU()]
        channels = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


def resnet18() -> nn.Module:
    blocks: list[nn.Module] = []
    channels = 64
    for stage in range(4):
        for block in range(2):
            features = 64 * 2**stage
            blocks.append(_BasicBlock(channels, features, 2 if stage and not block else 1))
            channels = features
    return nn.Sequential(
        *_conv_norm(3, 64, 3),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


class _BasicBlock(nn.Module):
    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(channels, features, 3, stride),
            nn.ReLU(),
            *_conv_norm(features, features, 3),
        )
        same = stride == 1 and channels == features
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*_conv_norm(channels, features, 1, stride))
        )

    def forward(self, x):
        return nn.functional.relu(self.body(x) + self.shortcut(x))


def _conv_norm(channels: int, features: int, size: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(features)]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet": lenet,
    "cnn_cifar": cnn_cifar,
    "allcnn_small": allcnn_small,
    "resnet18": resnet18,
}
