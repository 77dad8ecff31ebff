"""Faust's consumer as findings has it, without a broker: what it does when Faust opens the flow."""

from __future__ import annotations

from pathlib import Path

from faust.types import TP
from prometheus_client import CollectorRegistry

from stream.config import Config
from stream.findings.faust_app import make_app
from stream.findings.membership import Membership
from stream.metrics import Metrics
from stream.transport.protocol import Transport
from tests.unit.findings.driving import duty
from tests.unit.findings.test_membership import Broker, shot, with_member

RESULTS = TP("site.results", 0)


def test_what_lay_in_the_queues_when_the_flow_opens_is_fetched_again_and_nothing_stays_held_back(
    tmp_path: Path,
) -> None:
    """Two rebalances that overlap: the flow was open, records lay ready, and the second one opens it once more."""

    async def test(_: Membership, broker: Broker, log: Transport) -> None:
        member = Membership(duty(log, Metrics(CollectorRegistry())), "site.")
        app = make_app(Config(transport="kafka://127.0.0.1:1", topic_prefix="site."), member)
        await member.assigned(broker, [RESULTS])
        app.consumer.resume_partitions({RESULTS})
        await member.fetched(broker, {RESULTS: [shot(5), shot(6)]})
        app.consumer.on_buffer_full(RESULTS)
        assert RESULTS not in app.consumer._get_active_partitions()

        app.flow_control.resume()
        app.consumer.resume_flow()

        await member.before_fetch(broker)
        assert broker.sought == [{RESULTS: 5}]
        assert RESULTS in app.consumer._get_active_partitions()
        app.consumer._thread.thread_loop.close()  # made with it, and closed by the thread that has not begun

    with_member(tmp_path, test)
