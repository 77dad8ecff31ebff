"""Where a run starts: image-trained stem, a base release, or the weights of a file or of timm's collection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm import create_model
from torch import Tensor

from models.architecture import Architecture
from models.dataset import digest_of
from models.release import FOLDED
from models.vit import DefectNetwork, load_image_trained_stem

TIMM = "timm:"
# timm's names of a plain vision transformer -> ours.
RENAMED = {"patch_embed.proj.": "stem.0.", "pos_embed": "positions", "fc_norm.": "norm."}
HALF = (0.5, 0.5, 0.5)


# What a plain vision transformer has beside what we compute with: the token of the class, and heads.
LEFT_BEHIND = ("cls_token", "reg_token", "head.", "fc.", "pre_logits.")


class InitialError(ValueError):
    """Weights that cannot be had, or do not fit the network: with the first names of which one side has no equal."""


def fresh(shape: Architecture, seed: int) -> DefectNetwork:
    """The image-trained stem where there is one, and everything behind it from nothing, drawn from the seed."""
    torch.manual_seed(seed)
    network = DefectNetwork(shape)
    load_image_trained_stem(network)
    return network


def initial(shape: Architecture, seed: int, init: str | None = None) -> DefectNetwork:
    """A network to start from.

    Args:
        init: None for `fresh`; a `.safetensors` file with this network's tensors or those of a plain vision transformer
            in timm's names, whose pixels were prepared with a mean and deviation of 0.5 (a file does not say);
            or `timm:NAME`, which says it, and downloads that model's weights where they are not on the disk yet.

    Raises:
        InitialError: the weights cannot be had, or are not those of this architecture (the head may be missing or of
            other classes), or those of a release.
    """
    network = fresh(shape, seed)
    if init is None:
        return network
    if init.startswith(TIMM):
        name = init.removeprefix(TIMM)
        try:
            model = create_model(name, pretrained=True, num_classes=0, img_size=shape.seen(shape.tile_size))
        except (RuntimeError, TypeError, OSError) as error:  # no such model, not one of tiles, no network
            raise InitialError(f"{init}: {error}") from error
        mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        take(network, _as_ours(model.state_dict(), shape, mean, std), init)
    else:
        take(network, _as_ours(_tensors(Path(init)), shape), init)
    return network


def identity(init: str | None) -> str | None:
    """What tells one `init` of `initial` from another: the name of weights that are kept elsewhere, or a file's digest.

    Raises:
        InitialError: there is no such file.
    """
    if init is None or init.startswith(TIMM):
        return init
    try:
        return digest_of([Path(init)])
    except OSError as error:
        raise _unreadable(init, error) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors; a release's are left to `--base`, which knows how they are kept and what they have learned."""
    try:
        weights: dict[str, Tensor] = load_file(path)
        with safe_open(path, "pt") as file:
            told = FOLDED in (file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    # Older releases do not say that they are such; what they mix is kept so by nobody else.
    if told or {torch.float16, torch.float32} <= {tensor.dtype for tensor in weights.values()}:
        raise InitialError(f"{path}: weights of a release: start from its whole folder with --base")
    return weights


def _unreadable(path: str | Path, error: Exception) -> InitialError:
    return InitialError(f"{path}: not a .safetensors file that can be read: {error}")


def take(network: DefectNetwork, weights: Mapping[str, Tensor], whose: str) -> None:
    """Replace every weight of the network but the head and the calibration, which belong to other classes.

    Raises:
        InitialError: see `initial`.
    """
    own = {
        name: value for name, value in network.state_dict().items() if not name.startswith(("head.", "scale", "bias"))
    }
    wrong = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
    # A tensor that nobody takes belongs to a layer that ours has not: the start would be another function.
    kept = (*own, *LEFT_BEHIND, "scale", "bias")
    wrong += [name for name in weights if not name.startswith(kept)]
    if wrong:
        raise InitialError(f"{whose}: not the weights of this architecture: {', '.join(wrong[:3])} (of {len(wrong)})")
    found = {name: weights[name].float() for name in own if name in weights}
    network.load_state_dict(found, strict=False)


def _as_ours(
    weights: Mapping[str, Tensor],
    shape: Architecture,
    mean: tuple[float, ...] = HALF,
    std: tuple[float, ...] = HALF,
) -> dict[str, Tensor]:
    """timm's tensors of a plain vision transformer under our names; tensors that are ours already stay as they are.

    `mean` and `std` are how its pixels were prepared, in shares of 255; ours are 0.5, and the difference moves into the
    first convolution.
    """
    if "patch_embed.proj.weight" not in weights:
        return dict(weights)
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        start = next((old for old in RENAMED if name.startswith(old)), "")
        ours[RENAMED.get(start, "") + name.removeprefix(start)] = value
    side = shape.seen(shape.tile_size) // shape.stride
    if "positions" in ours:
        ours["positions"] = ours["positions"][:, -side * side :].unflatten(1, (side, side))
    kernel, to = ours["stem.0.weight"], torch.tensor(std).view(1, 3, 1, 1)
    shift = (0.5 - torch.tensor(mean).view(1, 3, 1, 1)) / to
    ours["stem.0.bias"] = ours["stem.0.bias"] + (kernel * shift).sum(dim=(1, 2, 3))
    ours["stem.0.weight"] = kernel * (0.5 / to)
    return ours


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What a run wrote; tensors only, nothing is unpickled."""
    words: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return words
