"""Makes the files of `from_torch/`: weights of small networks of torchvision and timm, and logits.

It needs PyTorch: pip install -e '.[peers]', then

    python tests/weights/make_torch_logits.py          # writes the files, less than 1 MB in all
    python tests/weights/make_torch_logits.py --page   # runs the example of docs/networks.md
    python tests/weights/make_torch_logits.py --full   # compares networks of full size

(with tests/support and the checkout on PYTHONPATH).

Every parameter is moved away from its initial value, so that no scale is 1 and no bias 0, and
BatchNorm's statistics are those of some batches in training mode.
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pages
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import VGG, cfgs, make_layers

FOLDER = Path(__file__).parent / "from_torch"
CLASSES = 5


class SmallResNet(ResNet):
    """torchvision's ResNet-18 with a sixteenth of its channels."""

    def __init__(self, stem):
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
        size, stride, padding = (7, 2, 3) if stem == "imagenet" else (3, 1, 1)
        self.conv1 = nn.Conv2d(3, 4, size, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(32, CLASSES)
        if stem == "cifar":
            self.maxpool = nn.Identity()

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:
            self.inplanes = 4
        return super()._make_layer(block, planes // 16, blocks, stride, dilate)


def small_vgg(config, norm):
    width, hidden = 2, 8
    plan = [step if step == "M" else step * width // 64 for step in cfgs[config]]
    net = VGG(make_layers(plan, batch_norm=norm), num_classes=CLASSES, init_weights=False)
    net.classifier[0] = nn.Linear(8 * width * 49, hidden)
    net.classifier[3] = nn.Linear(hidden, hidden)
    net.classifier[6] = nn.Linear(hidden, CLASSES)
    return net


def small_convnext():
    widths, depths = (4, 8, 12, 16), (1, 1, 2, 1)
    outputs = (*widths[1:], None)
    blocks = [CNBlockConfig(*sizes) for sizes in zip(widths, outputs, depths, strict=True)]
    return ConvNeXt(blocks, num_classes=CLASSES)


def _vit(**sizes):
    return VisionTransformer(num_classes=CLASSES, **sizes)


SMALL_VGG = {"width": 2, "hidden": 8}
SMALL_CONVNEXT = {"widths": [4, 8, 12, 16], "depths": [1, 1, 2, 1]}
NETWORKS = {
    "resnet18_cifar": (lambda: SmallResNet("cifar"), 16, "resnet18", {"width": 4}),
    "resnet18_imagenet": (
        lambda: SmallResNet("imagenet"),
        *(65, "resnet18", {"width": 4, "stem": "imagenet"}),
    ),
    "vgg11": (lambda: small_vgg("A", False), 32, "vgg11", SMALL_VGG),
    "vgg16_bn": (lambda: small_vgg("D", True), 96, "vgg16", {**SMALL_VGG, "norm": True}),
    "vit_tiny": (
        lambda: _vit(img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=3),
        *(16, "vit_tiny", {"width": 12, "depth": 2, "heads": 3, "patch": 4}),
    ),
    "convnext_torchvision": (small_convnext, 32, "convnext_tiny", SMALL_CONVNEXT),
    "convnext_timm": (
        lambda: TimmConvNeXt(num_classes=CLASSES, depths=(1, 1, 2, 1), dims=(4, 8, 12, 16)),
        *(32, "convnext_tiny", SMALL_CONVNEXT),
    ),
}
FULL = {
    "torchvision resnet18": (torchvision.models.resnet18, 224, "resnet18", {"stem": "imagenet"}),
    "torchvision vgg11": (torchvision.models.vgg11, 224, "vgg11", {}),
    "torchvision vgg11 at 64x64": (torchvision.models.vgg11, 64, "vgg11", {}),
    "torchvision vgg16_bn": (torchvision.models.vgg16_bn, 224, "vgg16", {"norm": True}),
    "timm vit_tiny_patch16_224": (
        lambda: timm.create_model("vit_tiny_patch16_224"),
        *(224, "vit_tiny", {}),
    ),
    "torchvision convnext_tiny": (
        torchvision.models.convnext_tiny,
        *(224, "convnext_tiny", {}),
    ),
    "timm convnext_tiny": (lambda: timm.create_model("convnext_tiny"), 224, "convnext_tiny", {}),
}


def trained(net, side):
    """Moves all parameters and statistics; returns the network, images and their logits."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            spread = 0.2 if parameter.ndim < 2 or "gamma" in name else 0.02
            parameter.add_(spread * torch.randn_like(parameter))
        net.train()
        for _ in range(3):
            net(torch.randn(8, 3, side, side) * 2 + 0.5)
        net.eval()
        images = torch.randn(4, 3, side, side)
        return images.permute(0, 2, 3, 1).numpy(), net(images).numpy()


def make():
    FOLDER.mkdir(exist_ok=True)
    said = {}
    for name, (build, side, network, options) in NETWORKS.items():
        torch.manual_seed(0)
        net = build()
        images, logits = trained(net, side)
        state = {key: value.contiguous() for key, value in net.state_dict().items()}
        save_file(state, FOLDER / f"{name}.safetensors")
        seed = np.asarray(images, np.float16)  # half the bytes; the logits are those of these
        with torch.no_grad():
            logits = net(torch.from_numpy(seed.astype(np.float32)).permute(0, 3, 1, 2)).numpy()
        np.savez_compressed(FOLDER / f"{name}.npz", x=seed[:2], logits=logits[:2])
        said[name] = {"network": network, "options": options}
    said["versions"] = {m.__name__: m.__version__ for m in (torch, torchvision, timm)}
    (FOLDER / "networks.json").write_text(json.dumps(said, indent=1) + "\n")
    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{total} bytes")


def run_page():
    """Runs the example for PyTorch of docs/networks.md, and keeps what it says and printed."""
    blocks = pages.blocks("networks.md")
    chosen = [blocks[0], next(block for block in blocks if pages.needs_torch(block))]
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        torch.manual_seed(0)
        with contextlib.redirect_stdout(printed):
            names = {}
            for block in chosen:
                exec(compile(block, "networks.md", "exec"), names)
    said = {"ran": chosen, "printed": printed.getvalue().splitlines()}
    (FOLDER / "page.json").write_text(json.dumps(said, indent=1) + "\n")
    print(printed.getvalue())


def compare_full():
    import jax

    from unlearnkit import models, weights

    for name, (build, side, network, options) in FULL.items():
        torch.manual_seed(0)
        net = build()
        images, logits = trained(net, side)
        path = Path(f"/tmp/{name.replace(' ', '_')}.pt")
        torch.save(net.state_dict(), path)
        shape = images.shape[1:]
        model = models.create(network, input_shape=shape, n_classes=1000, **options)
        found = weights.read_weights(path, model)
        ours = np.asarray(jax.jit(model.apply)(found.variables, images))
        again = path.with_suffix(".again.pt")
        weights.write_weights(again, found.variables, found)
        old, new = (torch.load(p, weights_only=True) for p in (path, again))
        same = list(old) == list(new) and all(torch.equal(old[k], new[k]) for k in old)
        count = sum(leaf.size for leaf in jax.tree.leaves(found.variables.params))
        worst = np.abs(ours - logits).max()
        print(
            f"{name:30} {count:>11} parameters, largest |logit| {np.abs(logits).max():.3g}, "
            f"largest difference {worst:.2e}, written back the same: {same}",
            flush=True,
        )
        for each in (path, again):
            each.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="compare networks of full size")
    parser.add_argument("--page", action="store_true", help="run the example of the docs")
    given = parser.parse_args()
    compare_full() if given.full else run_page() if given.page else make()
