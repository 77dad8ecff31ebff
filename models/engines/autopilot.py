"""Opens the fastest engine that this machine has and that decides as the reference does; says what it chose and why."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from models.engines.candidates import AnyPrecision, Candidate, Conditions, candidates
from models.engines.choices import Choice, Machine, Trial, read_choice, this_machine, write_choice
from models.engines.gate import Verdict, judge
from models.engines.gpu.device import DeviceLost
from models.engines.gpu.watch import BuildStopped
from models.engines.protocol import Engine, EngineError
from models.engines.trial import evidence, golden, median, rates, score_tiles
from models.release import Release
from models.releases.disk import locked

log = logging.getLogger(__name__)


class Pace(NamedTuple):
    """How long a measurement takes: rounds, and seconds of each round for each candidate.

    The defaults are what a worker does by itself: with the gate's tiles about fifteen seconds on two cores.
    """

    rounds: int = 3
    seconds: float = 0.4


QUICK = Pace()


class Opened(NamedTuple):
    """An engine that is ready, and in one line why it is this one."""

    engine: Engine
    why: str


def open_engine(
    release: Release, precision: AnyPrecision | Literal["auto"] = "auto", under: Conditions | None = None
) -> Engine:
    """The engine of `open_chosen`, for whoever does not ask why."""
    return open_chosen(release, precision, under).engine


def open_chosen(
    release: Release, precision: AnyPrecision | Literal["auto"] = "auto", under: Conditions | None = None
) -> Opened:
    """Open a verified release.

    `auto` is the fastest engine and precision that passes the gate (models/engines/gate.py), measured once on this
    machine and remembered. Raises EngineError if the precision asked for, or any with `auto`, is not to be had or does
    not compute what the golden tiles say.
    """
    where = under or Conditions()
    if precision != "auto":
        return Opened(_first(release, precision, where), f"{precision} was asked for")
    choice = choose(release, where)
    try:
        engine = _opened(release, choice, where)
    except EngineError as error:
        chosen = f"{choice.engine} {choice.precision}"
        log.warning("engine remembered choice=%r fails=%r; measuring again", chosen, str(error))
        choice = build(release, where)
        engine = _opened(release, choice, where)
    log.info(
        "engine chosen release=%s engine=%s precision=%s tiles_per_second=%.0f why=%r",
        release.id,
        choice.engine,
        choice.precision,
        choice.tiles_per_second,
        choice.why,
    )
    return Opened(engine, choice.why)


def choose(release: Release, under: Conditions | None = None) -> Choice:
    """The choice of an earlier measurement, or of one made now; processes that start together measure once.

    Raises EngineError if nothing passes the gate.
    """
    where = under or Conditions()
    machine = this_machine(release, where)
    with _locked(where.folder) as writable:
        choice = read_choice(where.folder, machine)
        if choice is None:
            log.info("engine measuring release=%s cores=%d: once, it takes some seconds", release.id, machine.cores)
            choice = _measured(release, where, QUICK, machine)
            if writable:
                _keep(where.folder, choice)
    return choice


def build(release: Release, under: Conditions | None = None, pace: Pace = QUICK) -> Choice:
    """Measure every candidate on this machine, take the fastest that passes the gate, and remember it.

    Raises EngineError if none passes.
    """
    where = under or Conditions()
    with _locked(where.folder) as writable:
        choice = _measured(release, where, pace, this_machine(release, where))
        if writable:
            _keep(where.folder, choice)
    return choice


def try_all(release: Release, under: Conditions, pace: Pace = QUICK) -> list[Trial]:
    """Each candidate's speed and verdict; one that cannot be opened or run keeps the reason in its record."""
    known, all_known = golden(release), evidence(release)
    trials: dict[str, Trial] = {}
    engines: dict[str, Engine] = {}
    for one in candidates(release, under):
        try:
            engine = one.open()
            # Float32 against float32 differs in the last digits or is wrong everywhere: a few tiles tell.
            seen = known if one.precision == "f32" else all_known
            found = score_tiles(engine, seen.tiles).probabilities
            verdict = judge(found, seen, release.classes, one.precision)
            trials[one.name] = Trial(engine=one.engine, precision=one.precision, verdict=verdict)
            engines[one.name] = engine
        except (DeviceLost, BuildStopped):
            raise  # it is no candidate's fault, and no other one on the card would fare better
        except EngineError as error:
            trials[one.name] = Trial(engine=one.engine, precision=one.precision, failed=str(error))
    measured = rates(engines, pace.seconds, pace.rounds)
    for opened in engines.values():
        opened.close()
    return [
        msgspec.structs.replace(one, tiles_per_second=median(measured[name])) if name in measured else one
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
        if one is not best:
            speed = "" if one.tiles_per_second is None else f" with {one.tiles_per_second:.0f}"
            words.append(f"{one.engine} {one.precision}{speed}: {one.why_not or 'slower'}")
    return "; ".join(words)


def _measured(release: Release, under: Conditions, pace: Pace, machine: Machine) -> Choice:
    tried = try_all(release, under, pace)
    best = fastest(tried)
    if best is None:
        said = "; ".join(f"{one.engine} {one.precision}: {one.why_not}" for one in tried) or "no engine is installed"
        raise EngineError(f"{release.id}: nothing passes the gate on this machine ({said})")
    return Choice(
        machine=machine,
        release=release.id,
        engine=best.engine,
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


def _first(release: Release, precision: AnyPrecision, under: Conditions) -> Engine:
    """The first candidate of a precision that opens and computes right; raises EngineError with the reasons if none."""
    reasons = []
    for one in candidates(release, under):
        if one.precision == precision:
            try:
                return _sane(one, release)
            except DeviceLost:
                raise
            except EngineError as error:
                reasons.append(f"{one.engine}: {error}")
    raise EngineError(f"{release.id} in {precision}: {'; '.join(reasons) or 'no engine here runs that'}")


def _opened(release: Release, choice: Choice, under: Conditions) -> Engine:
    for one in candidates(release, under):
        if (one.engine, one.precision) == (choice.engine, choice.precision):
            return _sane(one, release)
    raise EngineError(f"{release.id}: {choice.engine} {choice.precision} is not to be had here any more")


def _sane(one: Candidate, release: Release) -> Engine:
    """Open it, and hold it against the golden tiles before it serves; raises EngineError if its scores are off."""
    engine = one.open()
    try:
        verdict = compare_with_golden(engine, release)
        if not verdict.sane:
            raise EngineError(
                f"{release.id} in {one.name}: probabilities differ from the reference by {verdict.mean:.4f} on "
                f"average and {verdict.largest:.4f} at most, {verdict.agreement:.1%} of the decisions are the same"
            )
    except EngineError:
        engine.close()
        raise
    log.info(
        "engine open release=%s engine=%s precision=%s largest_difference=%.4f mean_difference=%.4f agreement=%.3f",
        release.id,
        one.engine,
        one.precision,
        verdict.largest,
        verdict.mean,
        verdict.agreement,
    )
    return engine


def compare_with_golden(engine: Engine, release: Release) -> Verdict:
    """Run the release's golden tiles and compare with the float32 probabilities stored beside them."""
    known = golden(release)
    return judge(score_tiles(engine, known.tiles).probabilities, known, release.classes, engine.precision)
