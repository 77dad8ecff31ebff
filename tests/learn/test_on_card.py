"""What PyTorch does for a card, as far as a machine without one can tell: exports that fit, work that is counted."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")

from benchmarks.gpu import PLAIN  # noqa: E402
from benchmarks.shares import flops_of  # noqa: E402
from models.architecture import Architecture  # noqa: E402
from models.engines.gpu.driver import driver_obstacle  # noqa: E402
from models.engines.gpu.graphs import cast_first, folded, in_half  # noqa: E402
from models.engines.protocol import EngineError  # noqa: E402
from models.engines.torch import load_network  # noqa: E402
from models.engines.torch_on_card import in_precision, open_torch  # noqa: E402
from models.engines.trial import golden  # noqa: E402
from models.releases.store import default_store  # noqa: E402
from models.training.export import traced  # noqa: E402
from models.vit import DefectNetwork  # noqa: E402


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_transformer_is_exported_as_tensorrt_takes_it(name: str) -> None:
    shape = Architecture(stem="patches", depth=2, **PLAIN[name])
    graph = traced(DefectNetwork(shape).eval(), np.zeros((2, 256, 256, 3), dtype=np.uint8))
    model = onnx.load_from_string(in_half(cast_first(folded(graph))))
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[0] == "Cast" and kinds.count("LayerNormalization") == 2 * shape.depth + 1


def test_attention_is_counted_as_arithmetic() -> None:
    shape = Architecture(stem="patches", depth=1, heads=1, width=64)
    tokens, width = 256, 64
    linear = 2 * tokens * width * (3 * width + width + 8 * width) + 2 * tokens * 3 * 16 * 16 * width + 2 * width * 6
    attention = 2 * 2 * tokens * tokens * width
    assert flops_of(DefectNetwork(shape).eval(), 256) == linear + attention


def test_weights_in_half_precision_say_nearly_the_same() -> None:
    release = default_store().open()
    known = golden(release)
    network = in_precision(copy.deepcopy(load_network(release)), "bf16")
    tiles = torch.from_numpy(known.tiles[:8])
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(tiles)[0].float().numpy()
    assert np.abs(found - known.expected[:8]).mean() < 0.01


@pytest.mark.skipif(driver_obstacle() is None, reason="this machine has a card")
def test_without_a_card_it_says_so() -> None:
    with pytest.raises(EngineError, match="NVIDIA driver"):
        open_torch(default_store().open(), "f16")
