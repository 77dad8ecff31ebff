"""The five numbers that say which network a release's weights belong to."""

from __future__ import annotations

import msgspec


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sizes of the network: `tile_size` and `stride` in pixels, the rest in counts."""

    tile_size: int = 256
    stride: int = 16
    width: int = 192
    depth: int = 3
    heads: int = 3
    classes: int = 6
