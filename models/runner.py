"""One thread owns the engines: it admits photos, runs batches, and swaps in the next engine as the old one drains."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from models.engines.protocol import Engine, EngineError, Image, Pending, Pixels, Scores, Tile

AHEAD = 2
"""Batches that an engine which works by itself has on its way: one runs, and the next starts without asking anybody."""

Work = tuple["Future[Any]", Callable[[], Any]]


class _Slot:
    """An engine and the photos that are bound to it; it is closed when there are none left and another one is live."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.photos = 0
        self.drained: Future[None] = Future()


class Admission:
    """A photo on its way to the engine it is bound to, or there; its tiles can be asked for at once."""

    __slots__ = ("_image", "_slot")

    def __init__(self, slot: _Slot) -> None:
        self._slot: _Slot | None = slot
        self._image: Image | EngineError | None = None


class AdmittedTile(NamedTuple):
    """The square of a photo with its top left corner at (y, x), in pixels."""

    photo: Admission
    y: int
    x: int


class Runner:
    """Calls engines from one thread, in the order of the requests.

    The next batch waits in the queue while this one runs, so the engine starts it without asking anybody. At most
    `depth` requests wait; 0 sets no bound, for a caller that bounds its work in another way.

    Rule: keep two batches on their way, one running and one waiting. Trap: a request beyond `depth` blocks the caller
    until one has started; on an event loop's thread that stops everything else.
    """

    def __init__(self, engine: Engine, depth: int = 8) -> None:
        self._live = _Slot(engine)
        self._before: _Slot | None = None
        self._work: queue.Queue[Work | None] = queue.Queue(maxsize=depth)
        self._gate = threading.Lock()  # orders requests against close and swap: nothing is queued behind the end
        self._count = threading.Lock()  # of photos and slots; never held while a full queue is waited for
        self._started: deque[tuple[Future[Any], Pending]] = deque()
        self._closing = False
        # Not a daemon: the interpreter must not be torn down while the engine's C++ threads run.
        self._thread = threading.Thread(target=self._run, name=f"engine-{engine.release}")
        self._thread.start()

    @property
    def engine(self) -> Engine:
        """The engine that the next photo is bound to, for its attributes; its methods belong to the runner's thread."""
        return self._live.engine

    def admit(self, image: Pixels) -> Admission:
        """Engine.admit in the engine's thread; whoever asks for the photo's tiles hears of its exception."""
        with self._gate:
            slot = self._live
            with self._count:
                slot.photos += 1
            photo = Admission(slot)
            self._submit(lambda: self._admit(photo, slot, image))
        return photo

    def infer(self, tiles: Sequence[AdmittedTile]) -> Future[Scores]:
        """Scores of tiles whose photos are bound to one engine; its exception is the future's.

        A cancelled future is not run. Tiles of two engines are an EngineError: whoever makes batches ends one where the
        next photo is bound to another engine.
        """
        with self._gate:
            return self._submit(lambda: self._start(tiles))

    def evict(self, photo: Admission) -> Future[None]:
        """Engine.evict in the engine's thread; evicting twice is allowed."""
        with self._gate:
            return self._submit(lambda: self._evict(photo))

    def swap(self, engine: Engine) -> Future[None]:
        """Bind every further photo to this engine; photos bound to the one before are still scored by that.

        The future is done when the last of those is evicted and the old engine closed. Raises EngineError while the
        swap before is not: there is room for two engines on a card, not for three.
        """
        with self._gate:
            with self._count:
                if self._before is not None:
                    raise EngineError(f"{self._before.engine.release} still has photos: wait for the swap before")
                old, self._live = self._live, _Slot(engine)
                self._before = old
            self._submit(self._settle)
        return old.drained

    def close(self) -> None:
        """Finish what was asked for, close the engines, end the thread. Closing twice is allowed."""
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
        """Queue it, inside the gate."""
        future: Future[Any] = Future()
        if self._closing:
            raise EngineError("the runner is closed")
        self._work.put((future, call))
        return future

    def _run(self) -> None:
        while True:
            if len(self._started) == AHEAD or (self._started and self._work.empty()):
                self._finish(*self._started.popleft())
            elif (work := self._work.get()) is None:
                break
            else:
                self._begin(*work)
                del work  # the batch's arrays must not live until the next one comes
        self._finish_all()
        if self._before is not None:
            self._before.engine.close()
            self._before.drained.set_result(None)
        self._live.engine.close()

    def _begin(self, future: Future[Any], call: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            found = call()
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            future.set_exception(error)
            return
        if isinstance(found, _Started) and not found.pending.done:
            self._started.append((future, found.pending))
        elif isinstance(found, _Started):
            self._finish(future, found.pending)
        else:
            future.set_result(found)

    def _finish_all(self) -> None:
        while self._started:
            self._finish(*self._started.popleft())

    @staticmethod
    def _finish(future: Future[Any], pending: Pending) -> None:
        try:
            future.set_result(pending.wait())
        except BaseException as error:  # as above
            future.set_exception(error)

    def _admit(self, photo: Admission, slot: _Slot, image: Pixels) -> None:
        try:
            photo._image = slot.engine.admit(image)
        except EngineError as error:
            photo._image = error

    def _start(self, tiles: Sequence[AdmittedTile]) -> _Started:
        slots = {tile.photo._slot for tile in tiles} or {self._live}
        if len(slots) > 1:
            raise EngineError("tiles of two engines, or of an evicted photo, in one batch")
        (slot,) = slots
        if slot is None:
            raise EngineError("the tile's photo was evicted")
        return _Started(slot.engine.start([Tile(self._image(tile.photo), tile.y, tile.x) for tile in tiles]))

    @staticmethod
    def _image(photo: Admission) -> Image:
        if isinstance(photo._image, EngineError):
            raise photo._image
        assert photo._image is not None  # its admission was queued before
        return photo._image

    def _evict(self, photo: Admission) -> None:
        slot, photo._slot = photo._slot, None
        if slot is None:
            return
        if isinstance(photo._image, Image):
            slot.engine.evict(photo._image)
        with self._count:
            slot.photos -= 1
        self._settle()

    def _settle(self) -> None:
        """Close the engine of before once nothing is bound to it any more."""
        with self._count:
            slot = self._before
            if slot is None or slot.photos:
                return
            self._before = None
        self._finish_all()  # whoever evicted a photo early still gets what was begun, and not what is left of it
        try:
            slot.engine.close()
            slot.drained.set_result(None)
        except EngineError as error:
            slot.drained.set_exception(error)


class _Started(NamedTuple):
    """A batch that an engine has begun with."""

    pending: Pending
