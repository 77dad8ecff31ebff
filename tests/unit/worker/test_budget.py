"""The byte budget is never passed, except by one frame that is alone."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.worker.budget import ByteBudget


def test_one_frame_is_always_admitted_when_nothing_is_open_however_large() -> None:
    async def main() -> None:
        budget = ByteBudget(10, lambda _: None)
        await budget.acquire(1000)
        assert budget.held == 1000
        second = asyncio.ensure_future(budget.acquire(1))
        await asyncio.sleep(0)
        assert not second.done()
        await budget.release(1000)
        await second
        assert budget.held == 1

    asyncio.run(main())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 40), st.randoms())
@settings(max_examples=50)
def test_holds_at_most_the_limit_or_one_frame_and_lets_everything_through(
    sizes: list[int], limit: int, random: object
) -> None:
    async def main() -> None:
        seen: list[int] = []
        budget = ByteBudget(limit, seen.append)
        holding: list[int] = []
        largest = 0

        async def admit() -> None:
            nonlocal largest
            for size in sizes:
                await budget.acquire(size)
                holding.append(size)
                assert budget.held <= limit or len(holding) == 1
                largest = max(largest, budget.held)

        admitting = asyncio.ensure_future(admit())
        while not admitting.done() or holding:
            await asyncio.sleep(0)
            if holding:
                index = random.randrange(len(holding))  # type: ignore[attr-defined]
                await budget.release(holding.pop(index))
        await admitting
        assert budget.held == 0 and max(seen) == largest

    asyncio.run(main())
