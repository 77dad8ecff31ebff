"""The reference engine: a release's weights in PyTorch, in float32; what every other engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import load_file

from models.engines.protocol import EngineError, Image, Pixels, Scores, Tile, check_image, gather
from models.release import WEIGHTS_FILE, Release
from models.vit import DefectNetwork

BATCH = 16


def load_network(release: Release) -> DefectNetwork:
    """The release's network in float32, ready to infer; raises EngineError if weights and architecture do not fit."""
    network = DefectNetwork(release.architecture)
    network.folded = True  # as every release is
    stored = load_file(release.path(WEIGHTS_FILE))
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in stored.items()}, strict=False)
    except RuntimeError as error:
        raise EngineError(f"{release.id}: {error}") from error
    absent = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")} - set(stored)
    if absent:
        raise EngineError(f"{release.id}: no weights for {', '.join(sorted(absent))}")
    network.eval()
    return network


class TorchEngine:
    """Runs a network in float32 on the CPU; see models/engines/protocol.py for the promises."""

    def __init__(self, release: Release, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._release = release
        self._network: DefectNetwork | None = load_network(release).to(memory_format=torch.channels_last)

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the release."""
        return self._release.names

    @property
    def tile_size(self) -> int:
        """That of the release, in pixels."""
        return self._release.tile_size

    @property
    def release(self) -> str:
        """Id of the release."""
        return self._release.id

    @property
    def precision(self) -> str:
        """Always `f32`."""
        return "f32"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Longer calls are cut; shorter ones are run as they are."""
        return (BATCH,)

    def admit(self, image: Pixels) -> Image:
        """Keep the array; nothing is copied."""
        check_image(image, self.tile_size)
        return Image(image)

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """One batch after the other."""
        if self._network is None:
            raise EngineError(f"{self.release}: the engine is closed")
        shape = self._release.architecture
        scores = Scores(
            np.empty((len(tiles), shape.classes), dtype=np.float32),
            np.empty((len(tiles), shape.width), dtype=np.float32),
        )
        for start in range(0, len(tiles), BATCH):
            part = tiles[start : start + BATCH]
            pixels = np.empty((len(part), self.tile_size, self.tile_size, 3), dtype=np.uint8)
            gather(part, pixels)
            with torch.inference_mode():
                probabilities, embeddings = self._network(torch.from_numpy(pixels))
            scores.probabilities[start : start + len(part)] = probabilities.numpy()
            scores.embeddings[start : start + len(part)] = embeddings.numpy()
        return scores

    def evict(self, image: Image) -> None:
        """The array is freed when the last reference to the image is gone."""

    def close(self) -> None:
        """Drop the network."""
        self._network = None
