"""A snapped network is the same network on numbers that bfloat16 holds, also after half precision has rounded it."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from models.quantizing.rounding import round_to_bf16  # noqa: E402
from models.quantizing.snapping import snap_to_bf16  # noqa: E402


class Small(nn.Module):
    """An even picture is what its edge filters must not see: rounded one by one, their weights see it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.second_norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 1)
        self.bare = nn.Conv2d(4, 4, 1, bias=False)
        with torch.no_grad():
            for conv in (self.first, self.depthwise):
                conv.weight -= conv.weight.mean(dim=(2, 3), keepdim=True)
            for norm in (self.norm, self.second_norm):
                norm.running_var.uniform_(0.5, 2.0)
                norm.weight.uniform_(5.0, 9.0)
                norm.bias.uniform_(1.0, 3.0)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(tiles.permute(0, 3, 1, 2).float())))
        return self.bare(self.last(torch.relu(self.second_norm(self.depthwise(x)))))


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> np.ndarray:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return (conv.weight * factor.reshape(-1, 1, 1, 1)).detach().numpy()


def in_bf16(network: Small) -> Small:
    """What an engine makes of it: normalisations folded in, products rounded to nearest."""
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for conv, norm in ((rounded.first, rounded.norm), (rounded.depthwise, rounded.second_norm)):
            factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).reshape(-1, 1, 1, 1)
            nearest, _ = round_to_bf16(folded(conv, norm), np.zeros(conv.weight.shape[:2], np.float32))
            conv.weight.copy_(torch.from_numpy(nearest) / factor)
    return rounded


@pytest.fixture
def tiles() -> np.ndarray:
    random = np.random.default_rng(0)
    even = random.integers(120, 200, (8, 1, 1, 1))
    return (even + random.integers(-6, 7, (8, 24, 24, 3))).astype(np.uint8)


def test_rounding_a_snapped_network_changes_much_less_than_rounding_the_original(tiles: np.ndarray) -> None:
    original = Small().eval()
    snapped = copy.deepcopy(original)
    snap_to_bf16(snapped, tiles)
    pixels = torch.from_numpy(tiles)
    with torch.no_grad():
        before, after = original(pixels), snapped(pixels)
        loss = (in_bf16(original)(pixels) - before).abs().mean()
        assert (in_bf16(snapped)(pixels) - after).abs().mean() < loss / 20
        assert (after - before).abs().mean() < loss
    half = copy.deepcopy(snapped)
    with torch.no_grad():
        for conv in (half.first, half.depthwise):
            conv.weight.copy_(conv.weight.half().float())
    for conv, norm in (("first", "norm"), ("depthwise", "second_norm")):
        want, found = (folded(getattr(one, conv), getattr(one, norm)) for one in (snapped, half))
        zero = np.zeros(want.shape[:2], np.float32)
        # Half precision moves a weight by less than it takes to round to another number of bfloat16.
        np.testing.assert_array_equal(round_to_bf16(want, zero)[0], round_to_bf16(found, zero)[0])


def test_what_has_no_bias_stays_and_no_hook_is_left(tiles: np.ndarray) -> None:
    network = Small().eval()
    bare = network.bare.weight.clone()
    snap_to_bf16(network, tiles)
    assert torch.equal(network.bare.weight, bare)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    values = network.last.weight.detach().numpy()
    assert not (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF).any()
