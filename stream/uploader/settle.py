"""When a file in a watched folder has been written to its end, and the folder's driver around that decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream.uploader.report import Refused
from stream.uploader.scan import Found, walk


@dataclass(slots=True)
class _Seen:
    size: int
    mtime_ns: int
    since: float
    taken: bool = False


class Settle:
    """Says once of every state of a file that it has been the same for long enough.

    Only differences count, never the modification time's value: the clocks of cameras and servers are wrong.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._files: dict[Path, _Seen] = {}

    def due(self, path: Path, size: int, mtime_ns: int, now: float) -> bool:
        """Whether to take the file now: unchanged for `settle_s`, and not yet taken as it is. `now` in seconds."""
        seen = self._files.get(path)
        if seen is None or (seen.size, seen.mtime_ns) != (size, mtime_ns):
            seen = self._files[path] = _Seen(size, mtime_ns, now)
        if seen.taken or now - seen.since < self._settle_s:
            return False
        seen.taken = True
        return True

    def retain(self, paths: Iterable[Path]) -> None:
        """Forget all others: when a card comes back, its files are new again (and the outbox knows them)."""
        kept = set(paths)
        self._files = {path: seen for path, seen in self._files.items() if path in kept}


class Watch:
    """Folders that are looked at again and again; each look returns what has become due since the last one.

    It polls instead of asking the kernel (inotify): network mounts report no change that another machine makes, and a
    card that is pulled out takes its watches along. A look costs one stat a file.
    """

    def __init__(self, paths: Sequence[Path], settle_s: float) -> None:
        self._paths = tuple(paths)
        self._settle = Settle(settle_s)
        self._refused: set[Refused] = set()
        self.missing: tuple[Path, ...] = ()
        """Which of the named paths were not there at the last look."""

    def look(self, now: float) -> list[Found | Refused]:
        """What is due: settled files, and what cannot be read (told once as long as it stays so)."""
        self.missing = tuple(path for path in self._paths if not path.exists())
        found = list(walk(path for path in self._paths if path not in self.missing))
        files = [item for item in found if isinstance(item, Found)]
        refused = {item for item in found if isinstance(item, Refused)}
        due: list[Found | Refused] = [
            file for file in files if self._settle.due(file.path, file.size, file.mtime_ns, now)
        ]
        due += sorted(refused - self._refused, key=lambda item: item.path)
        self._refused = refused
        self._settle.retain(file.path for file in files)
        return due
