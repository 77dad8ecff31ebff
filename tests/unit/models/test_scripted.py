"""The scripted engine keeps the engine's promises, so that what passes with it passes with a real one."""

import subprocess
import sys

import numpy as np
import pytest

from models.engines.protocol import Engine, EngineError, Tile
from models.engines.scripted import EXIT_CODE, Script, ScriptedEngine

SCRIPT = Script(classes=("a", "b", "c", "d"), tile_size=4, nan_on=(1, 2, 3))


def test_scores_are_channel_means() -> None:
    engine: Engine = ScriptedEngine(SCRIPT)
    image = engine.admit(np.full((4, 8, 3), (255, 51, 0), np.uint8))
    scores = engine.infer([Tile(image, 0, 0), Tile(image, 0, 4)])
    np.testing.assert_allclose(scores.probabilities, [[1.0, 0.2, 0.0, 0.5]] * 2, rtol=1e-6)
    assert scores.embeddings.shape == (2, 6)
    assert scores.probabilities.dtype == scores.embeddings.dtype == np.float32


def test_no_tiles_give_no_scores() -> None:
    assert ScriptedEngine(SCRIPT).infer([]).probabilities.shape == (0, 4)


@pytest.mark.parametrize(("y", "x"), [(1, 0), (0, 5), (-1, 0), (0, -4)])
def test_a_tile_that_hangs_over_the_edge_is_refused(y: int, x: int) -> None:
    engine = ScriptedEngine(SCRIPT)
    image = engine.admit(np.zeros((4, 8, 3), np.uint8))
    with pytest.raises(EngineError, match="not inside"):
        engine.infer([Tile(image, y, x)])


@pytest.mark.parametrize("shape", [(3, 8, 3), (8, 3, 3), (8, 8), (8, 8, 4)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError):
        ScriptedEngine(SCRIPT).admit(np.zeros(shape, np.uint8))
    with pytest.raises(EngineError, match="float64"):
        ScriptedEngine(SCRIPT).admit(np.zeros((8, 8, 3)))  # type: ignore[arg-type]


def test_a_marked_tile_scores_not_a_number_and_its_neighbours_do_not() -> None:
    engine = ScriptedEngine(SCRIPT)
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0, 4] = (1, 2, 3)
    image = engine.admit(pixels)
    probabilities = engine.infer([Tile(image, 0, 0), Tile(image, 0, 4)]).probabilities
    assert np.isfinite(probabilities[0]).all() and np.isnan(probabilities[1]).all()


def test_a_marked_tile_ends_the_process() -> None:
    program = (
        "import numpy as np\n"
        "from models.engines.protocol import Tile\n"
        "from models.engines.scripted import Script, ScriptedEngine\n"
        "engine = ScriptedEngine(Script(tile_size=4, exit_on=(9, 9, 9)))\n"
        "engine.infer([Tile(engine.admit(np.full((4, 4, 3), 9, np.uint8)), 0, 0)])\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == EXIT_CODE


def test_a_closed_engine_says_so() -> None:
    engine = ScriptedEngine(SCRIPT)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer([])
