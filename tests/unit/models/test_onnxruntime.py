"""The second opinion agrees with the first, and says what to do where it is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.engines.autopilot import compare_with_golden
from models.engines.onnxruntime import OnnxRuntimeEngine
from models.engines.protocol import EngineError, Tile
from models.engines.trial import golden, score_tiles
from models.release import INT8_FILE, MODEL_FILE, Release
from models.releases.store import default_store

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def release() -> Release:
    return default_store().open()


def test_without_the_library_it_says_how_to_get_it_and_serving_does_not_mind() -> None:
    program = (
        "import sys\n"
        "sys.modules['onnxruntime'] = None\n"
        "from models.engines.onnxruntime import OnnxRuntimeEngine\n"
        "from models.engines.protocol import EngineError\n"
        "from models.releases.store import default_store\n"
        "import models.engines.autopilot\n"
        "try:\n"
        "    OnnxRuntimeEngine(default_store().open())\n"
        "except EngineError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "pip install 'spanwatch[bench]'" in done.stdout


def test_it_agrees_with_the_reference_in_every_batch(release: Release) -> None:
    pytest.importorskip("onnxruntime")
    engine = OnnxRuntimeEngine(release, threads=1)
    verdict = compare_with_golden(engine, release)
    assert verdict.passed and verdict.largest < 1e-3
    tiles = golden(release).tiles[:5]
    np.testing.assert_allclose(score_tiles(engine, tiles).probabilities, golden(release).expected[:5], atol=1e-3)
    assert engine.infer([]).embeddings.shape == (0, release.architecture.width)
    assert (engine.classes, engine.tile_size, engine.release) == (release.names, release.tile_size, release.id)
    image = engine.admit(tiles[0])
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer([Tile(image, 0, 0)])


def test_a_file_that_is_missing_or_no_model_is_refused(release: Release, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    without = msgspec.structs.replace(release, files={MODEL_FILE: ""}, folder=tmp_path)
    with pytest.raises(EngineError, match=INT8_FILE):
        OnnxRuntimeEngine(without, "int8")
    (tmp_path / MODEL_FILE).write_bytes(b"no model")
    with pytest.raises(EngineError, match=MODEL_FILE):
        OnnxRuntimeEngine(without)
