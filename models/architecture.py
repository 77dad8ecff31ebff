"""The few facts that say which network a release's weights belong to."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["transformer", "convolution", "foreign"]
Stem = Literal["tf_efficientnet_lite0", "tf_efficientnet_lite2", "patches"]


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which network, and its sizes: `tile_size`, `seen_size`, `stride` and `levels` in pixels, the rest in counts.

    `seen_size`: the network itself enlarges a tile to this side first, 0 if it takes it as it is. A hairline is a pixel
    or two wide, and the first convolution has a stride of two: larger, it survives (models/README.md has what it gave).

    `kind` transformer: blocks on the tokens that `stem` makes; `levels` are the strides of the stem's stages that go
    into each token (8 for hairlines, 16, 32 for what stands around). The stem `patches` is the plain vision
    transformer's: one convolution a token, no levels. `kind` convolution: the whole image-trained network, the
    reference a transformer has to beat and the shape of a teacher; `depth`, `heads` and `levels` mean nothing there.
    `kind` foreign: a graph made elsewhere, of which only `tile_size`, `width` and `classes` are known.
    """

    tile_size: int = 256
    seen_size: int = 0
    stride: int = 16
    width: int = 192
    depth: int = 3
    heads: int = 3
    classes: int = 6
    kind: Kind = "transformer"
    stem: Stem = "tf_efficientnet_lite0"
    levels: tuple[int, ...] = (16,)

    def seen(self, side: int) -> int:
        """What a tile of `side` px is enlarged to; smaller crops, in training, by about as much."""
        if not self.seen_size:
            return side
        return round(side * self.seen_size / self.tile_size / COARSEST) * COARSEST


# By the names that the command takes. `vit_small` is for a graphics card: on a CPU it learns little in an hour.
PRESETS = {
    "lite0vit2": Architecture(depth=2, levels=(8, 16, 32)),
    "lite0vit3": Architecture(),
    "lite0": Architecture(kind="convolution", width=1280, depth=0),
    "lite0x320": Architecture(kind="convolution", width=1280, depth=0, seen_size=320),
    "lite2": Architecture(kind="convolution", width=1280, depth=0, stem="tf_efficientnet_lite2"),
    "vit_small": Architecture(width=384, depth=12, heads=6, stem="patches"),
}
COARSEST = 32
"""Pixels of the last stride: what a tile is enlarged to is a multiple, so that every map of the stem is even."""


def with_classes(preset: str, classes: int) -> Architecture:
    """The architecture of that name, for so many classes."""
    return msgspec.structs.replace(PRESETS[preset], classes=classes)
