"""The runner keeps the order, passes every failure on, and finishes what it was asked for."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from models.engines.protocol import EngineError, Image, Pixels, Scores, Tile
from models.engines.scripted import Script, ScriptedEngine
from models.runner import Runner

RED, BLACK = (255, 0, 0), (0, 0, 0)
SMALL = Script(tile_size=4, fail_on=BLACK)


def plain(colour: tuple[int, int, int]) -> Pixels:
    return np.full((4, 4, 3), colour, np.uint8)


class Gated(ScriptedEngine):
    """Waits inside `infer` until the test opens the gate, and remembers which threads called."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.gate, self.inside, self.threads = threading.Event(), threading.Event(), set[int]()

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        self.inside.set()
        self.gate.wait()
        self.threads.add(threading.get_ident())
        return super().infer(tiles)

    def admit(self, image: Pixels) -> Image:
        self.threads.add(threading.get_ident())
        return super().admit(image)


def test_scores_come_back_for_the_tiles_that_were_asked() -> None:
    with Runner(ScriptedEngine(SMALL)) as runner:
        image = runner.admit(plain(RED)).result()
        scores = runner.infer([Tile(image, 0, 0)]).result()
    np.testing.assert_allclose(scores.probabilities, [[1, 0, 0, 0.5, 0, 0]])


def test_one_thread_and_never_the_callers_touches_the_engine() -> None:
    engine = Gated()
    engine.gate.set()
    with Runner(engine) as runner:
        image = runner.admit(plain(RED)).result()
        for _ in range(5):
            runner.infer([Tile(image, 0, 0)]).result()
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


def test_requests_wait_in_their_order_while_one_runs() -> None:
    engine = Gated()
    with Runner(engine) as runner:
        image = runner.admit(plain(RED)).result()
        futures = [runner.infer([Tile(image, 0, 0)] * count) for count in (1, 2, 3)]
        assert not any(future.done() for future in futures)
        engine.gate.set()
        assert [len(future.result().probabilities) for future in futures] == [1, 2, 3]
    assert engine.calls == [1, 2, 3]


def test_an_exception_of_the_engine_reaches_the_one_who_waits_and_nobody_else() -> None:
    with Runner(ScriptedEngine(SMALL)) as runner:
        bad, good = runner.admit(plain(BLACK)).result(), runner.admit(plain(RED)).result()
        failing, passing = runner.infer([Tile(bad, 0, 0)]), runner.infer([Tile(good, 0, 0)])
        with pytest.raises(EngineError, match="the script says"):
            failing.result()
        assert passing.result().probabilities[0, 0] == 1.0


def test_a_cancelled_request_is_not_run() -> None:
    engine = Gated()
    with Runner(engine) as runner:
        image = runner.admit(plain(RED)).result()
        running, waiting = runner.infer([Tile(image, 0, 0)]), runner.infer([Tile(image, 0, 0)] * 2)
        engine.inside.wait()
        assert waiting.cancel()
        assert not running.cancel()
        engine.gate.set()
        running.result()
    assert engine.calls == [1]


def test_close_finishes_what_waits_then_closes_the_engine_and_takes_nothing_more() -> None:
    engine = Gated()
    runner = Runner(engine)
    image = runner.admit(plain(RED)).result()
    futures = [runner.infer([Tile(image, 0, 0)]) for _ in range(3)]
    engine.gate.set()
    runner.close()
    assert all(future.done() for future in futures) and engine.closed
    with pytest.raises(EngineError, match="closed"):
        runner.infer([Tile(image, 0, 0)])
    runner.close()


def test_a_full_queue_blocks_the_caller_until_a_request_has_started() -> None:
    engine = Gated()
    with Runner(engine, depth=1) as runner:
        image = runner.admit(plain(RED)).result()
        runner.infer([Tile(image, 0, 0)])
        engine.inside.wait()  # one runs
        runner.infer([Tile(image, 0, 0)])  # one waits
        third = threading.Thread(target=lambda: runner.infer([Tile(image, 0, 0)]))
        third.start()
        assert third.is_alive()
        engine.gate.set()
        third.join()
    assert engine.calls == [1, 1, 1]


def test_an_evicted_image_is_forgotten() -> None:
    engine = ScriptedEngine(SMALL)
    with Runner(engine) as runner:
        image = runner.admit(plain(RED)).result()
        runner.evict(image).result()
        runner.evict(image).result()
    assert engine.admitted == []
