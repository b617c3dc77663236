"""The deployed stack at work: functions run, streams are polled, and every third batch comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cli.reports import Reports
from cli.target import Target
from lambda_esm import Backoff, Clients, StreamPoller, every

if TYPE_CHECKING:
    from local.stack import Stack


@pytest.fixture(scope="session")
def poller(deployed: Stack) -> Iterator[StreamPoller]:
    """Polls the streams of the deployed stack and redelivers every third batch."""
    poller = StreamPoller(
        Clients(deployed.ministack.endpoint), redeliver=every(3), backoff=Backoff(0.05, 0.5), take_over=True
    )
    with poller:
        poller.wait_until_drained(60)
        yield poller


@pytest.fixture
def target(deployed: Stack, poller: StreamPoller) -> Target:
    """The stack as the command line sees it, with its streams polled."""
    return Target("of the tests", deployed.outputs, deployed.client)


@pytest.fixture
def reports(target: Target) -> Reports:
    """What the stack says of its uploads."""
    return Reports(target)
