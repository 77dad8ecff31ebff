"""Two runs that began at the same weights have a mean, which may be better than either: the validation part says."""

from __future__ import annotations

import copy

import torch

from models.dataset import Manifest
from models.evaluation.scoring import read_ahead
from models.training.publish import logits_of
from models.training.train import masked_loss, targets
from models.vit import DefectNetwork


def begin_alike(one: DefectNetwork, other: DefectNetwork) -> bool:
    """Whether two networks of one architecture are the same but for their heads, as from one base they are."""
    theirs = other.state_dict()
    return all(
        torch.equal(mine, theirs[name]) for name, mine in one.state_dict().items() if not name.startswith("head.")
    )


def mean_of(one: DefectNetwork, other: DefectNetwork) -> DefectNetwork:
    """The mean of two networks' weights, batch statistics included, ready to infer.

    What two runs make of the same beginning tends to lie in one valley of the loss, whose middle is lower than its
    sides (Wortsman et al., "Model soups", ICML 2022): what two networks know, for the price of running one. Of networks
    that did not `begin_alike` it is nonsense.
    """
    mean, theirs = copy.deepcopy(one), other.state_dict()
    with torch.no_grad():
        for name, mine in mean.state_dict().items():
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs[name], 0.5)
    mean.eval()
    return mean


def better_of(student: DefectNetwork, teacher: DefectNetwork, validation: Manifest) -> tuple[DefectNetwork, str]:
    """The student or its mean with its teacher, whichever has the lower loss on the validation part; and why, in words.

    They may have ended in two valleys, after a long run or at a high rate; their mean then lies on the hill between.
    """
    mean = mean_of(student, teacher)
    alone, together = loss_on(student, validation), loss_on(mean, validation)
    if together < alone:
        return mean, f"the mean of the student's and the teacher's weights: {_losses(together, alone)}"
    return student, f"the student; its mean with the teacher is worse: {_losses(together, alone)}"


def loss_on(network: DefectNetwork, manifest: Manifest) -> float:
    """Mean binary cross-entropy of what is known of a manifest's tiles, before calibration."""
    logits = torch.from_numpy(logits_of(network, read_ahead(manifest.images, network.shape.tile_size)))
    labels = torch.from_numpy(manifest.labels)
    return float(masked_loss(logits, targets(labels, None, 0.0), (~torch.isnan(labels)).float()))


def _losses(mean: float, student: float) -> str:
    return f"a loss of {mean:.4f} on the validation part, the student alone {student:.4f}"
