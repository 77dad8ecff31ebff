"""The reference engine: a release's weights in PyTorch, in float32; what every other engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import load_file

from models.engines.on_cpu import OnCpu
from models.engines.protocol import EngineError, Scores, Tile
from models.release import WEIGHTS_FILE, Release
from models.vit import DefectNetwork

BATCH = 16


def load_network(release: Release) -> DefectNetwork:
    """The release's network in float32, ready to infer; raises EngineError if weights and architecture do not fit, or
    the release is a graph made elsewhere."""
    if release.architecture.kind == "foreign":
        raise EngineError(f"{release.id} was made elsewhere: there is its graph alone, nothing that PyTorch could load")
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


class TorchEngine(OnCpu):
    """Runs a network in float32 on the CPU; see models/engines/protocol.py for the promises."""

    def __init__(self, release: Release, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        super().__init__(release)
        self._network: DefectNetwork | None = load_network(release).to(memory_format=torch.channels_last)

    @property
    def precision(self) -> str:
        """Always `f32`."""
        return "f32"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Longer calls are cut; shorter ones are run as they are."""
        return (BATCH,)

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """One batch after the other."""
        if self._network is None:
            raise EngineError(f"{self.release}: the engine is closed")
        scores = self._room(len(tiles))
        for rows, pixels in self._batches(tiles, BATCH):
            with torch.inference_mode():
                probabilities, embeddings = self._network(torch.from_numpy(pixels))
            scores.probabilities[rows] = probabilities.numpy()
            scores.embeddings[rows] = embeddings.numpy()
        return scores

    def close(self) -> None:
        """Drop the network."""
        self._network = None
