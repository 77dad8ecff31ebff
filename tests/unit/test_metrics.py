"""The pages of a role: figures, health, readiness, on loopback; and no series that grows with the work."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from stream.errors import Misuse
from stream.metrics import Metrics, serve

NAMES = {
    "spanwatch_frames_total",
    "spanwatch_frame_seconds",
    "spanwatch_stage_seconds",
    "spanwatch_batch_tiles",
    "spanwatch_batch_wait_seconds",
    "spanwatch_batch_released_total",
    "spanwatch_inflight_bytes",
    "spanwatch_lag_records",
    "spanwatch_lag_seconds",
    "spanwatch_dead_frames_total",
    "spanwatch_alerts_total",
    "spanwatch_small_findings_total",
    "spanwatch_release_info",
}


def test_the_pages_say_what_is_counted_and_whether_work_is_taken() -> None:
    async def main() -> None:
        metrics, ready = Metrics(CollectorRegistry()), False
        metrics.frames.labels("result").inc()
        async with serve(metrics, "127.0.0.1", 0, lambda: ready) as port, aiohttp.ClientSession() as web:

            async def page(name: str) -> tuple[int, str]:
                async with web.get(f"http://127.0.0.1:{port}/{name}") as answer:
                    return answer.status, await answer.text()

            status, text = await page("metrics")
            assert status == 200 and 'spanwatch_frames_total{outcome="result"} 1.0' in text
            assert {name for name in NAMES if name in text} == NAMES
            assert await page("healthz") == (200, "ok\n")
            assert (await page("readyz"))[0] == 503
            ready = True
            assert (await page("readyz"))[0] == 200

    asyncio.run(main())


def test_a_taken_port_is_told_with_the_way_out() -> None:
    async def main() -> None:
        metrics = Metrics(CollectorRegistry())
        async with serve(metrics, "127.0.0.1", 0, lambda: True) as port:
            with pytest.raises(Misuse, match="0 takes any free port"):
                async with serve(metrics, "127.0.0.1", port or 0, lambda: True):
                    pass

    asyncio.run(main())


def test_minus_one_serves_nothing() -> None:
    async def main() -> None:
        async with serve(Metrics(CollectorRegistry()), "127.0.0.1", -1, lambda: True) as port:
            assert port is None

    asyncio.run(main())
