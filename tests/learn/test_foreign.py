"""Models made elsewhere, as somebody with the package onnx makes them; other tests import the small one made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from models.release import ReleaseError  # noqa: E402
from models.releases.foreign import ForeignModel, import_onnx  # noqa: E402
from models.releases.store import default_store, site_store  # noqa: E402
from models.taxonomy import load_taxonomy  # noqa: E402
from tests.unit.models.made_releases import Site  # noqa: E402

FOREIGN = Path(__file__).parents[1] / "data" / "foreign"


def small_model(last: str = "Sigmoid", embeds: bool = True) -> bytes:
    """Says how dark and how red a tile is: uint8[n, 32, 32, 3] -> float32[n, 2], and its mean colour as embedding."""
    weights = np.array([[-4.0, 8.0], [-4.0, -4.0], [-4.0, -4.0]], dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["tiles"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["bytes"], axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["bytes", "full"], ["embeddings"]),
        helper.make_node("Gemm", ["embeddings", "weights", "bias"], ["logits"]),
        helper.make_node(last, ["logits"], ["probabilities"]),
    ]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", 3]),
    ]
    graph = helper.make_graph(
        nodes,
        "dark and red",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 32, 32, 3])],
        outputs if embeds else outputs[:1],
        [
            numpy_helper.from_array(np.array(255.0, dtype=np.float32), "full"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([4.0, -1.0], dtype=np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_the_small_models_of_the_other_tests_are_these() -> None:
    assert onnx.load(FOREIGN / "small.onnx") == onnx.load_from_string(small_model())
    assert onnx.load(FOREIGN / "bare.onnx") == onnx.load_from_string(small_model(embeds=False))


def test_logits_get_a_sigmoid_and_then_say_the_same(tmp_path: Path) -> None:
    site = Site(tmp_path)
    store = site_store(site.store.folder, site.keys)
    (tmp_path / "logits.onnx").write_bytes(small_model("Identity"))
    taxonomy = load_taxonomy(FOREIGN / "taxonomy.toml")
    shipped = default_store().open()
    plain = import_onnx(store, ForeignModel(FOREIGN / "small.onnx", taxonomy, "plain"), shipped, site.key)
    turned = import_onnx(
        store, ForeignModel(tmp_path / "logits.onnx", taxonomy, "turned", logits=True), shipped, site.key
    )
    with np.load(plain.path("golden.npz")) as first, np.load(turned.path("golden.npz")) as second:
        np.testing.assert_allclose(first["probabilities"], second["probabilities"], atol=1e-6)
        assert first["probabilities"].std() > 0.01


def test_logits_that_were_not_announced_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "logits.onnx").write_bytes(small_model("Identity"))
    model = ForeignModel(tmp_path / "logits.onnx", load_taxonomy(FOREIGN / "taxonomy.toml"))
    with pytest.raises(ReleaseError, match="are no probabilities; if they are logits, say --logits"):
        import_onnx(site.store, model, default_store().open(), site.key)
    assert site.store.own_ids() == []
