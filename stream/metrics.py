"""The figures of one role, in base units, on a registry that is passed in, and the three pages that show them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from stream.errors import Misuse

log = logging.getLogger(__name__)

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Everything a role counts. No label names a frame: the number of series does not grow with the work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.frames = Counter("spanwatch_frames", "Frames answered.", ["outcome"], registry=registry)
        self.frame_seconds = Histogram(
            "spanwatch_frame_seconds", "From taking a frame to its commit.", buckets=SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "spanwatch_stage_seconds",
            "Time one frame spent in one stage.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_tiles = Histogram(
            "spanwatch_batch_tiles",
            "Tiles per micro-batch.",
            buckets=(1, 8, 16, 32, 48, 64, 128, 256),
            registry=registry,
        )
        self.batch_wait_seconds = Histogram(
            "spanwatch_batch_wait_seconds", "How long a batch's oldest tile waited.", buckets=SECONDS, registry=registry
        )
        self.batch_released = Counter(
            "spanwatch_batch_released", "Batches by why they were released.", ["reason"], registry=registry
        )
        self.inflight_bytes = Gauge("spanwatch_inflight_bytes", "Bytes of frames in flight.", registry=registry)
        self.lag_records = Gauge(
            "spanwatch_lag_records", "Records not committed yet.", ["topic", "partition"], registry=registry
        )
        self.lag_seconds = Gauge(
            "spanwatch_lag_seconds", "Age of the oldest record in work.", ["topic", "partition"], registry=registry
        )
        self.dead_frames = Counter("spanwatch_dead_frames", "Dead frames by reason.", ["reason"], registry=registry)
        self.alerts = Counter("spanwatch_alerts", "Changes of alerts.", ["defect", "severity"], registry=registry)
        self.small_findings = Counter(
            "spanwatch_small_findings", "Defects of photos that too few tiles showed.", ["defect"], registry=registry
        )
        self.decisions = Counter(
            "spanwatch_decisions", "Decisions by what came of them.", ["outcome"], registry=registry
        )
        self.release_info = Gauge(
            "spanwatch_release_info",
            "1 for what runs, and why it was chosen.",
            ["release", "engine", "precision", "why"],
            registry=registry,
        )


@asynccontextmanager
async def serve(metrics: Metrics, host: str, port: int, ready: Callable[[], bool]) -> AsyncIterator[int | None]:
    """Serve `/metrics`, `/healthz` (the loop turns) and `/readyz` (work is taken) while the block runs; yield the port.

    A `port` of -1 serves nothing; 0 takes any free port.

    Raises:
        Misuse: the port is taken, or not ours to take.
    """
    if port < 0:
        yield None
        return

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readiness(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if ready() else web.Response(text="not ready\n", status=503)

    app = web.Application()
    app.add_routes([web.get("/metrics", show), web.get("/healthz", health), web.get("/readyz", readiness)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Misuse(
                f"cannot serve metrics on {host}:{port} ({error.strerror}): another role may have it;"
                " 0 takes any free port, -1 serves none (worker_port, findings_port under [metrics])"
            ) from error
        bound = runner.addresses[0][1]
        log.info("metrics host=%s port=%d", host, bound)
        yield bound
    finally:
        await runner.cleanup()
