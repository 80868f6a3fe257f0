"""What clients see without an edge: the standard that every edge is held to."""

from __future__ import annotations

import pytest

from tests.edges.contract import Base, Commands, Recovery, Sessions
from tests.edges.failures import Failures
from tests.edges.frames import Calls, Frames


class TestDirect(Sessions, Commands, Recovery, Frames, Calls):
    variant = "direct"


@pytest.mark.slow  # the service's own tests have more of it
class TestDirectFailures(Failures, Base):
    variant = "direct"
