"""Only frames that were open when a worker died are held against themselves; these processes really die."""

import subprocess
import sys
from pathlib import Path

from stream.worker.attempts import AttemptJournal

DIE_WITH = """
import os, sys
from pathlib import Path
from stream.worker.attempts import AttemptJournal
journal = AttemptJournal(Path(sys.argv[1]))
for frame in sys.argv[2:]:
    print(journal.crashes(frame))
    journal.enter(frame)
sys.stdout.flush()
os._exit(1)
"""


def die_with(folder: Path, *frames: str) -> list[int]:
    """Open frames in a process that then dies; return the crashes each had been open in."""
    done = subprocess.run(
        [sys.executable, "-c", DIE_WITH, str(folder), *frames], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    return [int(line) for line in done.stdout.split()]


def begin(journal: AttemptJournal, frame: str) -> int:
    """Open a frame as the worker does; the crashes it was worked on in."""
    crashes = journal.crashes(frame)
    journal.enter(frame)
    return crashes


def test_counts_the_crashes_in_which_a_frame_was_open(tmp_path: Path) -> None:
    assert die_with(tmp_path, "a", "b") == [0, 0]
    assert die_with(tmp_path, "a") == [1]
    journal = AttemptJournal(tmp_path)
    assert (begin(journal, "a"), begin(journal, "b"), begin(journal, "c")) == (2, 1, 0)
    journal.close(blame=False)


def test_an_answered_frame_starts_anew(tmp_path: Path) -> None:
    die_with(tmp_path, "a")
    journal = AttemptJournal(tmp_path)
    assert begin(journal, "a") == 1
    journal.finish("a")
    assert begin(journal, "a") == 0
    journal.close(blame=False)


def test_a_clean_stop_blames_nobody_and_a_broken_one_does(tmp_path: Path) -> None:
    for blame, crashes in ((False, 0), (True, 0), (False, 1)):
        journal = AttemptJournal(tmp_path)
        assert begin(journal, "a") == crashes
        journal.close(blame=blame)


def test_a_frame_handed_to_a_living_neighbour_is_not_a_crash(tmp_path: Path) -> None:
    first, second = AttemptJournal(tmp_path), AttemptJournal(tmp_path)
    begin(first, "a")
    begin(first, "b")
    first.leave("a")
    assert begin(second, "a") == 0
    assert begin(second, "b") == 0  # its owner lives
    first.close(blame=False)
    second.close(blame=False)


def test_the_lock_files_of_the_dead_are_swept(tmp_path: Path) -> None:
    die_with(tmp_path, "a")
    journal = AttemptJournal(tmp_path)
    assert len(list((tmp_path / "owners").iterdir())) == 1
    assert begin(journal, "a") == 1  # the absence of the file says the same as the free lock
    journal.close(blame=False)


WAIT_AND_DIE = """
import os, sys
from pathlib import Path
from stream.worker.attempts import AttemptJournal
journal = AttemptJournal(Path(sys.argv[1]))
assert journal.crashes("a") == 1
journal.enter("a")
journal.leave("a")
os._exit(1)
"""


def test_a_frame_that_only_waited_in_a_crash_is_beyond_suspicion(tmp_path: Path) -> None:
    assert die_with(tmp_path, "a") == [0]
    done = subprocess.run([sys.executable, "-c", WAIT_AND_DIE, str(tmp_path)], check=False)
    assert done.returncode == 1
    journal = AttemptJournal(tmp_path)
    assert journal.crashes("a") == 1  # of the first process only: the second had let it go before it died
    journal.close(blame=False)
