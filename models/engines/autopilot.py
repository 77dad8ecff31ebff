"""Opens the fastest engine that this machine has and that decides as the reference does; says what it chose and why."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from models.engines.choices import Choice, Trial, default_folder, read_choice, this_machine, write_choice
from models.engines.gate import Verdict, judge
from models.engines.openvino import PRECISIONS, OpenVinoEngine, OpenVinoOptions, Precision
from models.engines.processor import has_bf16
from models.engines.protocol import Engine, EngineError
from models.engines.trial import evidence, golden, median, rates, score_tiles
from models.release import INT8_FILE, Release
from models.releases.disk import locked

log = logging.getLogger(__name__)


class Pace(NamedTuple):
    """How long a measurement takes: rounds, and seconds of each round for each candidate.

    The defaults are what a worker does by itself: with the gate's tiles about fifteen seconds on two cores.
    """

    rounds: int = 3
    seconds: float = 0.4


QUICK = Pace()


def open_engine(
    release: Release,
    precision: Literal["auto", "f32", "bf16", "int8"] = "auto",
    threads: int | None = None,
    folder: Path | None = None,
) -> Engine:
    """Open a verified release; `threads` is the number of cores to use (None: all this process may use).

    `auto` is the fastest precision that passes the gate (models/engines/gate.py), measured once on this machine and
    remembered in `folder` (None: the user's cache). Raises EngineError if the precision asked for, or any with `auto`,
    is not to be had or does not compute what the golden tiles say.
    """
    if precision != "auto":
        return _opened(release, precision, threads)
    where = folder or default_folder()
    choice = choose(release, threads, where)
    try:
        engine = _opened(release, choice.precision, threads)
    except EngineError as error:
        log.warning("engine remembered precision=%s fails=%r; measuring again", choice.precision, str(error))
        choice = build(release, threads, where)
        engine = _opened(release, choice.precision, threads)
    log.info(
        "engine chosen release=%s precision=%s tiles_per_second=%.0f why=%r",
        release.id,
        choice.precision,
        choice.tiles_per_second,
        choice.why,
    )
    return engine


def choose(release: Release, threads: int | None = None, folder: Path | None = None) -> Choice:
    """The choice of an earlier measurement, or of one made now; processes that start together measure once.

    Raises EngineError if no precision passes the gate.
    """
    where = folder or default_folder()
    machine = this_machine(release, threads)
    with _locked(where) as writable:
        choice = read_choice(where, machine)
        if choice is None:
            log.info("engine measuring release=%s cores=%d: once, it takes some seconds", release.id, machine.cores)
            choice = _measured(release, threads, QUICK)
            if writable:
                _keep(where, choice)
    return choice


def build(
    release: Release,
    threads: int | None = None,
    folder: Path | None = None,
    pace: Pace = QUICK,
) -> Choice:
    """Measure every precision on this machine, take the fastest that passes the gate, and remember it.

    Raises EngineError if none passes.
    """
    where = folder or default_folder()
    with _locked(where) as writable:
        choice = _measured(release, threads, pace)
        if writable:
            _keep(where, choice)
    return choice


def try_all(release: Release, threads: int | None = None, pace: Pace = QUICK) -> list[Trial]:
    """Each precision's speed and verdict; one that cannot be opened or run keeps the reason in its record."""
    known, all_known = golden(release), evidence(release)
    trials: dict[Precision, Trial] = {}
    engines: dict[str, Engine] = {}
    for precision in PRECISIONS:
        try:
            if obstacle := _obstacle(release, precision):
                raise EngineError(obstacle)
            engine: Engine = OpenVinoEngine(release, OpenVinoOptions(precision=precision, streams=threads))
            # Float32 against float32 differs in the last digits or is wrong everywhere: a few tiles tell.
            seen = known if precision == "f32" else all_known
            found = score_tiles(engine, seen.tiles).probabilities
            trials[precision] = Trial(precision=precision, verdict=judge(found, seen, release.classes, precision))
            engines[precision] = engine
        except EngineError as error:
            trials[precision] = Trial(precision=precision, failed=str(error))
    measured = rates(engines, pace.seconds, pace.rounds)
    for opened in engines.values():
        opened.close()
    return [
        Trial(precision=name, tiles_per_second=median(measured[name]), verdict=one.verdict) if name in measured else one
        for name, one in trials.items()
    ]


def fastest(trials: Sequence[Trial]) -> Trial | None:
    """Of those that pass the gate; None if none does."""
    passed = [one for one in trials if one.passed and one.tiles_per_second is not None]
    return max(passed, key=lambda one: one.tiles_per_second or 0.0, default=None)


def explain(best: Trial, trials: Sequence[Trial]) -> str:
    """Why this one and not the others, in one line."""
    words = [f"{best.tiles_per_second:.0f} tiles/s and the gate passed"]
    for one in trials:
        if one.precision == best.precision:
            continue
        speed = "" if one.tiles_per_second is None else f" with {one.tiles_per_second:.0f}"
        words.append(f"{one.precision}{speed}: {one.why_not or 'slower'}")
    return "; ".join(words)


def _obstacle(release: Release, precision: Precision) -> str | None:
    """What is known without trying."""
    if precision == "bf16" and not has_bf16():
        return "the CPU has no bfloat16 arithmetic"
    if precision == "int8" and INT8_FILE not in release.files:
        return f"the release holds no {INT8_FILE}"
    return None


def _measured(release: Release, threads: int | None, pace: Pace) -> Choice:
    tried = try_all(release, threads, pace)
    best = fastest(tried)
    if best is None:
        said = "; ".join(f"{one.precision}: {one.why_not}" for one in tried)
        raise EngineError(f"{release.id}: no precision passes the gate on this machine ({said})")
    return Choice(
        machine=this_machine(release, threads),
        release=release.id,
        precision=best.precision,
        tiles_per_second=best.tiles_per_second or 0.0,
        why=explain(best, tried),
        trials=tuple(tried),
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """One process at a time measures, or all would measure each other; False where nothing can be written."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except OSError as error:
            log.warning("engine measurement cannot be kept folder=%s reason=%r", folder, str(error))
            yield False
            return
        yield True


def _keep(folder: Path, choice: Choice) -> None:
    try:
        write_choice(folder, choice)
    except OSError as error:
        log.warning("engine measurement cannot be kept folder=%s reason=%r", folder, str(error))


def _opened(release: Release, precision: Precision, threads: int | None) -> Engine:
    engine = OpenVinoEngine(release, OpenVinoOptions(precision=precision, streams=threads))
    try:
        verdict = compare_with_golden(engine, release)
        if not verdict.sane:
            raise EngineError(
                f"{release.id} in {precision}: probabilities differ from the reference by {verdict.mean:.4f} on "
                f"average and {verdict.largest:.4f} at most, {verdict.agreement:.1%} of the decisions are the same"
            )
    except EngineError:
        engine.close()
        raise
    log.info(
        "engine open release=%s precision=%s largest_difference=%.4f mean_difference=%.4f agreement=%.3f",
        release.id,
        precision,
        verdict.largest,
        verdict.mean,
        verdict.agreement,
    )
    return engine


def compare_with_golden(engine: Engine, release: Release) -> Verdict:
    """Run the release's golden tiles and compare with the float32 probabilities stored beside them."""
    known = golden(release)
    return judge(score_tiles(engine, known.tiles).probabilities, known, release.classes, engine.precision)
