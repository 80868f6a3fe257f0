"""What clients see without an edge: the standard that every edge is held to."""

from __future__ import annotations

import pytest

from tests.edge_contract import Base, Commands, Recovery, Sessions
from tests.edge_failures import Failures
from tests.edge_frames import Calls, Frames


class TestDirect(Sessions, Commands, Recovery, Frames, Calls):
    variant = "direct"


@pytest.mark.slow  # the service's own tests have more of it
class TestDirectFailures(Failures, Base):
    variant = "direct"
