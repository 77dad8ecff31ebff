"""The site's back-off, and its hold on real children."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream.errors import Misuse
from stream.site import Backoff, Role, run_site


def test_the_pause_doubles_up_to_a_minute_and_starts_anew_after_a_good_run() -> None:
    backoff = Backoff()
    assert [backoff.pause(ran_s=1.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.pause(ran_s=61.0) == 1
    assert backoff.pause(ran_s=1.0) == 2


def test_a_role_that_is_configured_wrongly_ends_the_site_with_its_word(tmp_path: Path) -> None:
    wrong = Role("worker", ("worker", "--transport", "carrier-pigeon"))
    steady = Role(
        "findings", ("findings", "--transport", f"local:{tmp_path}/log"), {"SPANWATCH_METRICS__FINDINGS_PORT": "-1"}
    )

    async def main() -> None:
        await run_site([wrong, steady], asyncio.Event())

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(main())
    assert raised.group_contains(Misuse, match="worker was configured wrongly")


def test_a_stop_ends_the_children_and_returns(tmp_path: Path) -> None:
    quiet = {"SPANWATCH_METRICS__FINDINGS_PORT": "-1"}
    steady = Role("findings", ("findings", "--transport", f"local:{tmp_path}/log"), quiet)

    async def main() -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(run_site([steady], stop))
            async with asyncio.timeout(60):
                while not (tmp_path / "log").exists():
                    await asyncio.sleep(0.02)
            stop.set()

    asyncio.run(main())
