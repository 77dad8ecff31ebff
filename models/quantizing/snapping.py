"""Moves a trained network's convolutions onto numbers that bfloat16 holds: a CPU that rounds then changes little."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.quantizing.rounding import round_to_bf16

BATCH = 4
DEAD = 1e-12


class _Watch:
    """Hooks that see, of each convolution, the mean of what entered it and the normalisation right behind it."""

    def __init__(self, network: nn.Module) -> None:
        self.totals: dict[nn.Conv2d, Tensor] = {}
        self.calls: dict[nn.Conv2d, int] = {}
        self.norms: dict[nn.Conv2d, nn.BatchNorm2d] = {}
        self._latest: tuple[nn.Conv2d, Tensor] | None = None
        self._handles = [
            module.register_forward_hook(self._after_convolution)
            for module in network.modules()
            if isinstance(module, nn.Conv2d)
        ]
        self._handles += [
            module.register_forward_pre_hook(self._before_norm)
            for module in network.modules()
            if isinstance(module, nn.BatchNorm2d)
        ]

    def remove(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()

    def _after_convolution(self, module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.totals[module] = self.totals.get(module, torch.zeros(())) + inputs[0].mean(dim=(0, 2, 3))
        self.calls[module] = self.calls.get(module, 0) + 1
        self._latest = module, output

    def _before_norm(self, module: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        if self._latest is not None and self._latest[1] is inputs[0]:
            self.norms[self._latest[0]] = module


def snap_to_bf16(network: nn.Module, tiles: NDArray[np.uint8]) -> None:
    """Round every convolution, together with the normalisation behind it, to bfloat16; in place.

    A CPU engine folds the two and rounds the product. Filters that look for edges cancel the even part of what enters
    them, and rounded each for itself their weights no longer cancel: of the difference that bfloat16 makes to the
    scores that is the larger half. Here the product is rounded first, and the mean of the error, over `tiles`
    uint8[n, size, size, 3], goes into the normalisation's bias (or the convolution's own). The network computes nearly
    the same in float32, and rounding it once more, to half precision or in the engine, changes nothing of weight.

    Call it in evaluation mode, with the preprocessing folded, and before anything is computed that others are compared
    with. A convolution without any bias behind it is left as it is.
    """
    watch = _Watch(network)
    try:
        with torch.no_grad():
            for start in range(0, len(tiles), BATCH):
                network(torch.from_numpy(tiles[start : start + BATCH]))
            for module, total in watch.totals.items():
                _snap(module, total / watch.calls[module], watch.norms.get(module))
    finally:
        watch.remove()


def _snap(conv: nn.Conv2d, entering: Tensor, norm: nn.BatchNorm2d | None) -> None:
    bias = conv.bias if norm is None else norm.bias
    if bias is None:
        return
    factor = torch.ones(conv.out_channels)
    if norm is not None and norm.running_var is not None:
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        factor = torch.where(factor.abs() < DEAD, torch.ones_like(factor), factor)  # a dead channel stays dead
    scaled = factor.reshape(-1, 1, 1, 1)
    means = entering.reshape(conv.groups, -1).repeat_interleave(conv.out_channels // conv.groups, dim=0)
    rounded, correction = round_to_bf16((conv.weight * scaled).numpy(), means.numpy())
    conv.weight.copy_(torch.from_numpy(rounded) / scaled)
    bias.add_(torch.from_numpy(correction))
