"""The runner keeps the order, passes every failure on, and finishes what it was asked for."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from models.engines.protocol import EngineError, Image, Pending, Pixels, Scores, Tile
from models.engines.scripted import Script, ScriptedEngine
from models.runner import AdmittedTile, Runner

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
        image = runner.admit(plain(RED))
        scores = runner.infer([AdmittedTile(image, 0, 0)]).result()
    np.testing.assert_allclose(scores.probabilities, [[1, 0, 0, 0.5, 0, 0]])


def test_one_thread_and_never_the_callers_touches_the_engine() -> None:
    engine = Gated()
    engine.gate.set()
    with Runner(engine) as runner:
        image = runner.admit(plain(RED))
        for _ in range(5):
            runner.infer([AdmittedTile(image, 0, 0)]).result()
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


def test_requests_wait_in_their_order_while_one_runs() -> None:
    engine = Gated()
    with Runner(engine) as runner:
        image = runner.admit(plain(RED))
        futures = [runner.infer([AdmittedTile(image, 0, 0)] * count) for count in (1, 2, 3)]
        assert not any(future.done() for future in futures)
        engine.gate.set()
        assert [len(future.result().probabilities) for future in futures] == [1, 2, 3]
    assert engine.calls == [1, 2, 3]


def test_an_exception_of_the_engine_reaches_the_one_who_waits_and_nobody_else() -> None:
    with Runner(ScriptedEngine(SMALL)) as runner:
        bad, good = runner.admit(plain(BLACK)), runner.admit(plain(RED))
        failing, passing = runner.infer([AdmittedTile(bad, 0, 0)]), runner.infer([AdmittedTile(good, 0, 0)])
        with pytest.raises(EngineError, match="the script says"):
            failing.result()
        assert passing.result().probabilities[0, 0] == 1.0


def test_a_cancelled_request_is_not_run() -> None:
    engine = Gated()
    with Runner(engine) as runner:
        image = runner.admit(plain(RED))
        running, waiting = runner.infer([AdmittedTile(image, 0, 0)]), runner.infer([AdmittedTile(image, 0, 0)] * 2)
        engine.inside.wait()
        assert waiting.cancel()
        assert not running.cancel()
        engine.gate.set()
        running.result()
    assert engine.calls == [1]


def test_close_finishes_what_waits_then_closes_the_engine_and_takes_nothing_more() -> None:
    engine = Gated()
    runner = Runner(engine)
    image = runner.admit(plain(RED))
    futures = [runner.infer([AdmittedTile(image, 0, 0)]) for _ in range(3)]
    engine.gate.set()
    runner.close()
    assert all(future.done() for future in futures) and engine.closed
    with pytest.raises(EngineError, match="closed"):
        runner.infer([AdmittedTile(image, 0, 0)])
    runner.close()


def test_a_full_queue_blocks_the_caller_until_a_request_has_started() -> None:
    engine = Gated()
    with Runner(engine, depth=1) as runner:
        image = runner.admit(plain(RED))
        runner.infer([AdmittedTile(image, 0, 0)])
        engine.inside.wait()  # one runs
        runner.infer([AdmittedTile(image, 0, 0)])  # one waits
        third = threading.Thread(target=lambda: runner.infer([AdmittedTile(image, 0, 0)]))
        third.start()
        assert third.is_alive()
        engine.gate.set()
        third.join()
    assert engine.calls == [1, 1, 1]


def test_an_evicted_image_is_forgotten() -> None:
    engine = ScriptedEngine(SMALL)
    with Runner(engine) as runner:
        image = runner.admit(plain(RED))
        runner.evict(image).result()
        runner.evict(image).result()
        with pytest.raises(EngineError, match="evicted"):
            runner.infer([AdmittedTile(image, 0, 0)]).result()
    assert engine.admitted == []


def test_a_photo_that_is_refused_says_so_to_whoever_asks_for_its_tiles() -> None:
    with Runner(ScriptedEngine(SMALL)) as runner:
        image = runner.admit(np.zeros((2, 9, 3), np.uint8))
        for _ in range(2):
            with pytest.raises(EngineError, match="holds no tile"):
                runner.infer([AdmittedTile(image, 0, 0)]).result()
        runner.evict(image).result()


class ByItself(ScriptedEngine):
    """Works by itself as a card does: a call is done when a test says so."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.events: list[str] = []
        self.begun = threading.Semaphore(0)
        self.finish = threading.Semaphore(0)

    def admit(self, image: Pixels) -> Image:
        self.events.append("admit")
        self.begun.release()
        return super().admit(image)

    def start(self, tiles: Sequence[Tile]) -> Pending:
        self.events.append("start")
        self.begun.release()
        return Later(self, super().infer(tiles))


class Later:
    done = False

    def __init__(self, engine: ByItself, scores: Scores) -> None:
        self.engine, self.scores = engine, scores

    def wait(self) -> Scores:
        self.engine.finish.acquire()
        self.engine.events.append("done")
        return self.scores


def test_while_an_engine_works_by_itself_the_next_batch_and_photos_go_to_it() -> None:
    engine = ByItself()
    engine_held = Gate()
    with Runner(engine) as runner:
        image = runner.admit(plain(RED))
        held = engine_held.hold(runner)  # so that all of these wait in the queue together
        batches = [runner.infer([AdmittedTile(image, 0, 0)]) for _ in range(2)]
        runner.admit(plain(RED))
        batches.append(runner.infer([AdmittedTile(image, 0, 0)]))
        held.set()
        for _ in range(3):
            engine.begun.acquire()
        engine.finish.release(3)
        assert [len(one.result().probabilities) for one in batches] == [1, 1, 1]
    assert engine.events == ["admit", "start", "start", "done", "admit", "start", "done", "done"]


class Gate:
    """Holds the engine's thread up with a request of its own."""

    def hold(self, runner: Runner) -> threading.Event:
        opened = threading.Event()
        with runner._gate:
            runner._submit(opened.wait)
        return opened


def test_after_a_swap_each_photo_is_scored_by_the_engine_it_is_bound_to_and_the_old_one_drains() -> None:
    old, new = ScriptedEngine(SMALL), ScriptedEngine(Script(tile_size=4, release="scripted.2"))
    with Runner(old) as runner:
        before = runner.admit(plain(RED))
        drained = runner.swap(new)
        after = runner.admit(plain(RED))
        assert runner.engine.release == "scripted.2"
        for photo in (before, after, before):
            assert runner.infer([AdmittedTile(photo, 0, 0)]).result().probabilities[0, 0] == 1.0
        assert (old.calls, new.calls) == ([1, 1], [1])
        with pytest.raises(EngineError, match="two engines"):
            runner.infer([AdmittedTile(before, 0, 0), AdmittedTile(after, 0, 0)]).result()
        with pytest.raises(EngineError, match="still has photos"):
            runner.swap(ScriptedEngine(SMALL))
        assert not drained.done() and not old.closed
        runner.evict(before).result()
        drained.result()
        assert old.closed and not new.closed
        runner.swap(ScriptedEngine(SMALL))  # there is room again
    assert new.closed


def test_a_swap_with_no_photo_on_its_way_closes_the_old_engine_at_once() -> None:
    old = ScriptedEngine(SMALL)
    with Runner(old) as runner:
        runner.swap(ScriptedEngine(SMALL)).result()
        assert old.closed


def test_closing_while_an_engine_drains_closes_both() -> None:
    old, new = ScriptedEngine(SMALL), ScriptedEngine(SMALL)
    runner = Runner(old)
    runner.admit(plain(RED))
    drained = runner.swap(new)
    runner.close()
    assert old.closed and new.closed and drained.done()


def test_whoever_waits_for_a_full_queue_keeps_nobody_else_waiting() -> None:
    def use(runner: Runner) -> None:
        for _ in range(300):
            photo = runner.admit(plain(RED))
            runner.infer([AdmittedTile(photo, 0, 0)])
            runner.evict(photo)

    engine = ScriptedEngine(SMALL)
    with Runner(engine, depth=1) as runner:
        threads = [threading.Thread(target=use, args=(runner,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(engine.calls) == 900 and engine.admitted == []
