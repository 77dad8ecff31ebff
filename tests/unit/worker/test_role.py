"""What a worker says of itself among its figures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from models.engines.scripted import ScriptedEngine
from stream.metrics import Metrics
from stream.worker.judge import Judge
from stream.worker.role import Loaded, say_what_runs


def test_the_figures_name_release_engine_and_precision_and_why_they_were_chosen() -> None:
    registry, engine = CollectorRegistry(), ScriptedEngine()
    say_what_runs(
        Metrics(registry), Loaded(engine, Judge(engine.release, engine.precision, ()), "the others are slower")
    )
    said = {
        "release": engine.release,
        "engine": "ScriptedEngine",
        "precision": engine.precision,
        "why": "the others are slower",
    }
    assert registry.get_sample_value("spanwatch_release_info", said) == 1.0
