"""The policy node on a stack: sessions, what it skips, and what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from real.errors import StackError
from real.nodes.policy import PolicyNode
from real.stack import load
from real.transport.local import LocalBus
from robolearn.bundle import Bundle, BundleError
from tests.real.stack_on_bus import RATE, StackOnBus, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "swing")


def test_chunks_are_what_the_bundle_says_of_the_same_channels(bundle, tmp_path):
    stack = StackOnBus(bundle, tmp_path)
    chunks = []
    kind = "trajectory_msgs/msg/JointTrajectory"
    stack.operator.subscribe("policy/action_chunk", kind, lambda m, r: chunks.append((m, r.monotonic)))
    stack.arm()
    stack.bus.run(1.0)
    assert 20 <= len(chunks) <= 22
    session = chunks[0][0].header.frame_id.split("/")[0]
    assert [m.header.frame_id for m, _ in chunks] == [f"{session}/{k}" for k in range(len(chunks))]
    np.testing.assert_allclose(np.diff([at for _, at in chunks]), 1 / RATE, atol=1e-6)
    again, inputs = Bundle.load(bundle), list(stack.policy._canaries)
    for _ in range(len(chunks) - len(inputs)):
        again.step(inputs[0])  # only the phase counts
    for values, (message, _) in zip(inputs, chunks[-len(inputs) :], strict=True):
        np.testing.assert_allclose(message.points[0].positions, again.step(values)["joint_target"], atol=1e-5)
    stack.ask("hold")
    stack.until("HOLD", 0.1)
    stack.bus.run(0.5)
    stack.arm()
    stack.bus.run(0.2)
    late = [m.header.frame_id for m, _ in chunks if not m.header.frame_id.startswith(session)]
    assert late[0].endswith("/0") and late[0].split("/")[0] == stack.policy._session
    stack.check_limits()


def test_a_policy_that_gives_nonsense_gives_no_chunk_and_lives(bundle, tmp_path):
    stack = StackOnBus(bundle, tmp_path)
    stack.running(0.5)
    stack.policy.bundle.resume({"phase": np.array([3e38], np.float32)})  # the next sine of it is anything but a number
    stack.until("HOLD", 1.0)
    assert stack.policy.skipped > 3
    stack.bus.run(0.3)
    stack.ask("arm")
    stack.bus.run(0.5)
    assert stack.mode == "POLICY", "a new episode begins with a new state"
    stack.check_limits()


def test_what_does_not_fit_is_refused_before_anything_runs(bundle, tmp_path):
    node = LocalBus().node("policy")
    with pytest.raises(StackError, match=r"needs policy\.bundle"):
        PolicyNode(node, load("panda_twin"))
    with pytest.raises(BundleError, match="no bundle at"):
        PolicyNode(node, load("panda_twin", {"bundle": str(tmp_path / "nothing")}))
