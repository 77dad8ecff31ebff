"""What a training step is computed in: bfloat16 where the hardware has it, float32 where it would be emulated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from models.engines.processor import has_bf16


class DeviceMissing(ValueError):
    """A device that PyTorch does not know, or that is not in this machine."""


def usable(device: str) -> str:
    """The device, if this machine has it.

    Raises:
        DeviceMissing: it has not.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise DeviceMissing(f"there is no device {device!r}: give cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(f"PyTorch finds no graphics card for {device!r}: train on the CPU, or install its driver")
    return device


def mixed(device: str) -> torch.autocast:
    """The context of a step on a device: products in bfloat16 if that pays there, all in float32 if not.

    bfloat16 keeps float32's range, so the loss needs no scale. A processor without instructions for it takes ten times
    as long as in float32 (benchmarks/README.md); cards before Ampere emulate it as well.
    """
    kind = torch.device(device).type
    native: dict[str, Callable[[], bool]] = {
        "cpu": has_bf16,
        "cuda": partial(torch.cuda.is_bf16_supported, including_emulation=False),
    }
    return torch.autocast(kind, torch.bfloat16, enabled=native[kind]() if kind in native else True)


def keep_in_float(network: nn.Module) -> None:
    """Let the depthwise convolutions with a stride or with 5 x 5 weights run in float32, whatever autocast says.

    On a CPU their gradients in bfloat16 take 2 to 5 times as long as in float32 (oneDNN has a fast kernel for 3 x 3 at
    stride 1 alone): two thirds of a step went there, and a step is a third faster without (benchmarks/README.md).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and (module.kernel_size[0] > 3 or module.stride[0] > 1):
            module.forward = partial(_in_float, module.forward)  # type: ignore[method-assign, unused-ignore]


def _in_float(forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return forward(features.float()).to(features.dtype)
