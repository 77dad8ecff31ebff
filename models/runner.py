"""One thread owns the engine; everyone else hands it work and gets a future."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from models.engines.protocol import Engine, EngineError, Image, Pixels, Scores, Tile

T = TypeVar("T")
Work = tuple["Future[Any]", Callable[[], Any]]


class Runner:
    """Calls one engine from one thread, in the order of the requests.

    The next batch waits in the queue while this one runs, so the engine starts it without asking anybody. At most
    `depth` requests wait; 0 sets no bound, for a caller that bounds its work in another way.

    Rule: keep two batches on their way, one running and one waiting. Trap: a request beyond `depth` blocks the caller
    until one has started; on an event loop's thread that stops everything else.
    """

    def __init__(self, engine: Engine, depth: int = 8) -> None:
        self._engine = engine
        self._work: queue.Queue[Work | None] = queue.Queue(maxsize=depth)
        self._gate = threading.Lock()  # orders requests against close: nothing is queued behind the end
        self._closing = False
        # Not a daemon: the interpreter must not be torn down while the engine's C++ threads run.
        self._thread = threading.Thread(target=self._run, name=f"engine-{engine.release}")
        self._thread.start()

    @property
    def engine(self) -> Engine:
        """The engine, for its attributes; its methods belong to the runner's thread."""
        return self._engine

    def admit(self, image: Pixels) -> Future[Image]:
        """Engine.admit in the engine's thread."""
        return self._submit(lambda: self._engine.admit(image))

    def infer(self, tiles: Sequence[Tile]) -> Future[Scores]:
        """Engine.infer in the engine's thread; its exception is the future's. A cancelled future is not run."""
        return self._submit(lambda: self._engine.infer(tiles))

    def evict(self, image: Image) -> Future[None]:
        """Engine.evict in the engine's thread."""
        return self._submit(lambda: self._engine.evict(image))

    def call(self, work: Callable[[Engine], T]) -> Future[T]:
        """Anything else that the engine should do, in its thread and in its turn."""
        return self._submit(lambda: work(self._engine))

    def close(self) -> None:
        """Finish what was asked for, close the engine, end the thread. Closing twice is allowed."""
        with self._gate:
            if not self._closing:
                self._closing = True
                self._work.put(None)
        self._thread.join()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def _submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._gate:
            if self._closing:
                raise EngineError("the runner is closed")
            self._work.put((future, call))
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # whoever waits must hear of it, whatever it is
                future.set_exception(error)
            # The last batch's arrays must not live until the next one comes.
            del work, future, call
        self._engine.close()
