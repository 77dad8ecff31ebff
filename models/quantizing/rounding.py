"""Rounds weights to whole numbers so that a layer's outputs, not its weights, stay close to what they were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
DAMPING = 0.01


def round_weights(
    weights: NDArray[np.float32], scales: NDArray[np.float32], inputs: NDArray[np.float32]
) -> NDArray[np.int8]:
    """int8[outputs, inputs] such that `scales[:, None] * result` stands in for `weights`, float32[outputs, inputs].

    `inputs` are samples of what enters the layer, float32[n, inputs]; `scales` is float32[outputs], above 0. One column
    after the other is rounded, and its error is made good by those that are still free, by the least squares of the
    outputs, columns of the largest inputs first: GPTQ (Frantar and others, "GPTQ: Accurate Post-Training Quantization
    for Generative Pre-trained Transformers", 2023, algorithm 1).
    """
    moment = inputs.T.astype(np.float64) @ inputs / max(1, len(inputs))
    diagonal = np.arange(len(moment))
    # Inputs that are always 0 or always alike leave the problem without one answer; this picks the smallest change.
    moment[diagonal, diagonal] += DAMPING * moment[diagonal, diagonal].mean() + 1e-12
    order = np.argsort(-moment[diagonal, diagonal], kind="stable")
    spread = np.linalg.cholesky(np.linalg.inv(moment[np.ix_(order, order)])).T
    rest, steps = weights[:, order].astype(np.float64), scales.astype(np.float64)
    rounded = np.empty_like(rest)
    for column in diagonal:
        rounded[:, column] = np.clip(np.round(rest[:, column] / steps), -LARGEST, LARGEST)
        error = (rest[:, column] - rounded[:, column] * steps) / spread[column, column]
        rest[:, column:] -= np.outer(error, spread[column, column:])
    result = np.empty_like(rounded)
    result[:, order] = rounded
    return result.astype(np.int8)


def round_to_bf16(
    weights: NDArray[np.float32], means: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights that bfloat16 holds exactly, and what to add to each output so that its mean stays.

    `weights` float32[outputs, inputs, ...] of a convolution, `means` float32[outputs, inputs] of what enters it for
    each output. Rounding to nearest, ties to even, is what the CPU would do. Done here, the mean of the error goes into
    the bias, which stays in float32: for filters whose weights cancel, that is the larger part of the error by far.
    """
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    error = (weights - rounded).sum(axis=tuple(range(2, weights.ndim)))
    return rounded, np.asarray((error * means).sum(axis=1), dtype=np.float32)
