"""The chunk buffer never executes an older chunk, another session's, or a number that is not finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real.core.chunks import BAD, REASONS, Chunk, ChunkBuffer
from real.core.errors import CommandError, LimitError
from real.core.limiter import Limiter
from real.core.limits import JointLimits

SESSION = "0badcafe"


def chunk(
    sequence=0, points=((1.0, 2.0), (2.0, 3.0)), times=None, *, received=10.0, session=SESSION, age_s=None
) -> Chunk:
    points = np.asarray(points)
    times = 0.1 * np.arange(1, len(points) + 1) if times is None else times
    return Chunk(session, sequence, 123, received, times, points, age_s)


def buffer(**options) -> ChunkBuffer:
    made = ChunkBuffer(2, **{"max_age_s": 0.3, "hold_s": 0.2, **options})
    made.arm(SESSION)
    return made


class TestSample:
    def test_nothing_before_a_chunk(self):
        assert buffer().sample(0.0) is None

    def test_follows_the_points_holds_the_last_and_ends(self):
        b = buffer()
        b.arm(SESSION, position=[0.0, 2.0])
        assert b.push(chunk(), 10.0) == ""
        assert b.sample(10.0) == pytest.approx([0.0, 2.0])
        assert 0.2 < b.sample(10.05)[0] < 0.6 and b.sample(10.05)[1] == 2.0
        assert b.sample(10.1) == pytest.approx([1.0, 2.0])
        assert 1.5 < b.sample(10.175)[0] < 2.0
        assert b.sample(10.39) == pytest.approx([2.0, 3.0])
        assert b.sample(10.41) is None
        assert b.sample(10.15) is None, "a chunk that has ended does not come back"

    def test_without_a_position_it_starts_at_the_first_point(self):
        b = buffer()
        b.push(chunk(), 10.0)
        assert b.sample(10.0) == pytest.approx([1.0, 2.0])

    def test_the_path_is_smooth_across_points_and_chunks(self):
        b, period = buffer(), 1e-3
        b.arm(SESSION, position=[0.0, 0.0])
        path = []
        for tick in range(600):
            now = 10.0 + tick * period
            if tick % 150 == 0:
                ahead = now - 10.0 + 0.1 * np.arange(1, 5)
                b.push(chunk(tick, np.stack([ahead**2, np.sin(3 * ahead)], 1), received=now), now)
            path.append(b.sample(now))
        velocity = np.diff(path, axis=0) / period
        assert np.abs(np.diff(velocity, axis=0)).max() < 0.25, "at each point straight lines turn by 0.9 rad/s"

    def test_a_late_chunk_goes_on_from_where_it_should_be(self):
        b = buffer()
        assert b.push(chunk(), 10.15) == ""
        assert b.sample(10.15) == pytest.approx([1.5, 2.5])

    def test_a_new_chunk_takes_over_without_a_jump(self):
        b = buffer()
        b.push(chunk(), 10.0)
        before = b.sample(10.12)
        assert b.push(chunk(1, [(-1.0, -1.0), (0.0, 0.0)], received=10.12), 10.12) == ""
        assert b.sample(10.12) == pytest.approx(before)
        assert ([-1.0, -1.0] < b.sample(10.17)).all() and (b.sample(10.17) < before).all()
        assert b.sample(10.22) == pytest.approx([-1.0, -1.0])

    @pytest.mark.parametrize(
        ("age_s", "share"),
        [(None, 0.0), (0.05, 0.5), (3600.0, 1.0), (-3600.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0)],
    )
    def test_the_age_of_the_observation_counts_within_bounds(self, age_s, share):
        b = buffer(max_age_s=0.1)
        assert b.push(chunk(times=[0.0, 0.1], age_s=age_s), 10.0) == ""
        assert b.sample(10.0) == pytest.approx(np.array([1.0, 2.0]) + share)

    def test_what_is_returned_cannot_change_the_chunk(self):
        b = buffer()
        points = np.array([(1.0, 2.0), (2.0, 3.0)])
        b.push(chunk(points=points), 10.0)
        points[:] = np.nan
        b.sample(10.3)[:] = np.nan
        assert b.sample(10.3) == pytest.approx([2.0, 3.0])

    def test_a_time_that_is_not_finite(self):
        with pytest.raises(CommandError, match="nan"):
            buffer().sample(float("nan"))


class TestSessions:
    def test_none_is_armed_at_first(self):
        b = ChunkBuffer(2, max_age_s=1.0)
        assert b.push(chunk(), 10.0) == "other session" and b.sample(10.0) is None

    def test_a_restarted_policy_waits_until_it_is_armed(self):
        b = buffer()
        b.push(chunk(5), 10.0)
        restarted = chunk(0, session="feed0000")
        assert b.push(restarted, 10.0) == "other session"
        assert b.sample(10.3) == pytest.approx([2.0, 3.0])
        b.arm("feed0000")
        assert b.sample(10.3) is None, "arming drops the other session's chunk"
        assert b.push(restarted, 10.0) == ""
        assert b.push(chunk(6), 10.0) == "other session"

    def test_armed_for_any_it_stays_with_the_first(self):
        b = ChunkBuffer(2, max_age_s=1.0)
        b.arm()
        assert b.session is None
        assert b.push(chunk(points=[(np.nan, 0.0)]), 10.0) == "not finite"
        assert b.session is None
        assert b.push(chunk(), 10.0) == "" and b.session == SESSION
        assert b.push(chunk(9, session="feed0000"), 10.0) == "other session"

    def test_older_ones_stay_older_after_a_flush_and_a_rearm(self):
        b = buffer()
        assert b.push(chunk(3), 10.0) == ""
        b.flush()
        assert b.sample(10.0) is None
        assert b.push(chunk(3), 10.0) == "older"
        b.arm("feed0000")
        b.push(chunk(0, session="feed0000"), 10.0)
        b.arm(SESSION)
        assert b.push(chunk(2), 10.0) == "older"
        assert b.push(chunk(4), 10.0) == ""

    def test_disarmed_it_takes_nothing(self):
        b = buffer()
        b.push(chunk(), 10.0)
        b.disarm()
        assert b.session is None and b.sample(10.0) is None
        assert b.push(chunk(1), 10.0) == "other session"

    def test_a_start_that_is_no_position_changes_nothing(self):
        b = buffer()
        b.push(chunk(), 10.0)
        for bad in ([0.0], [np.nan, 0.0], [0.0, 0.0, 0.0], ["a", "b"], [[0.0], [0.0, 1.0]]):
            with pytest.raises(CommandError):
                b.arm("feed0000", position=bad)
        assert b.session == SESSION and b.sample(10.1) is not None


class TestRefused:
    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (chunk(1, [(1.0, np.nan), (2.0, 3.0)]), "not finite"),
            (chunk(1, [(1.0, 2.0), (np.inf, 3.0)]), "not finite"),
            (chunk(1, times=[0.1, np.nan]), "not finite"),
            (chunk(1, times=[0.1, -np.inf]), "not finite"),
            (chunk(1, times=[0.1, 0.1]), "times"),
            (chunk(1, times=[0.2, 0.1]), "times"),
            (chunk(1, times=[-0.1, 0.1]), "times"),
            (chunk(1, times=[0.1, 0.1 + 1e-9]), "times"),
            (chunk(1, times=[0.1, 1e9]), "times"),
            (chunk(1, times=[0.1]), "wrong size"),
            (chunk(1, times=[[0.1, 0.2]]), "wrong size"),
            (chunk(1, times=[], points=np.empty((0, 2))), "wrong size"),
            (chunk(1, [(1.0,), (2.0,)]), "wrong size"),
            (chunk(1, [(1.0, 2.0, 3.0)]), "wrong size"),
            (chunk(1, [1.0, 2.0]), "wrong size"),
            (chunk(1, [("1", "2")]), "wrong size"),
            (chunk(1, [(1.0, 2.0)] * 11), "wrong size"),
            (Chunk(SESSION, 1, 0, 10.0, np.array([0.1]), [[1.0], [1.0, 2.0]]), "wrong size"),
            (chunk(1, [(1.0, 2.0), (1.0, 4.6)]), "jump"),
            (chunk(1, [(4.0, 2.0), (4.0, 2.0)]), "jump"),
            (chunk(1, [(1.0, -1e308), (1.0, 1e308)]), "jump"),
            (chunk(1, received=9.6), "stale"),
            (chunk(1, received=10.1), "stale"),
            (chunk(1, received=np.nan), "stale"),
            (chunk(1, received=9.8, times=[0.0, 1e-3]), "stale"),
            (chunk(0), "older"),
            (chunk(-1), "older"),
            (chunk(1, session="feed0000"), "other session"),
        ],
    )
    def test_as_a_whole_and_the_old_one_goes_on(self, bad, reason):
        b = buffer(max_jump=[2.5, 2.5], max_points=10, hold_s=0.15)
        assert b.push(chunk(0, times=[0.2, 0.4]), 10.0) == ""
        twin = buffer()
        twin.push(chunk(0, times=[0.2, 0.4]), 10.0)
        assert b.push(bad, 10.0) == reason
        assert b.counters == {reason: 1} and b.accepted == 1
        assert b.consecutive_bad == (reason in BAD)
        for now in (10.0, 10.3, 10.4, 10.5):
            assert b.sample(now) == pytest.approx(twin.sample(now))

    def test_a_jump_from_the_last_sample(self):
        b = buffer(max_jump=0.5)
        b.arm(SESSION, position=[0.0, 0.0])
        assert b.push(chunk(0, [(0.6, 0.0)]), 10.0) == "jump"
        assert b.push(chunk(1, [(0.4, 0.0)]), 10.0) == ""
        assert b.sample(12.0) is None
        assert b.push(chunk(2, [(1.0, 0.0)], received=12.0), 12.0) == "jump", "a pause does not make a jump good"
        assert b.push(chunk(3, [(0.8, 0.0)], received=12.0), 12.0) == ""

    def test_far_beyond_the_limits(self):
        limits = JointLimits(("a", "b"), [-1, -1], [1, 1], 1, 1, 1)
        b = buffer(limits=limits, max_jump=0.5)
        assert b.push(chunk(0, [(1.4, 0.0)]), 10.0) == "", "the limiter clamps it"
        assert b.push(chunk(1, [(0.0, -1.6)]), 10.0) == "jump"

    def test_bad_ones_in_a_row_are_counted_until_a_good_one(self):
        b = buffer()
        for n in range(3):
            b.push(chunk(n, [(np.nan, 0.0)]), 10.0)
            b.push(chunk(n, session="feed0000"), 10.0)
        assert b.consecutive_bad == 3
        b.push(chunk(0), 10.0)
        assert b.consecutive_bad == 0 and b.counters == {"not finite": 3, "other session": 3}

    @pytest.mark.parametrize(
        "options",
        [
            {"max_age_s": -1.0},
            {"max_age_s": float("nan")},
            {"hold_s": float("inf")},
            {"max_jump": 0.0},
            {"max_jump": [1.0, 1.0, 1.0]},
            {"max_jump": float("nan")},
            {"max_points": 0},
            {"limits": JointLimits(("a",), [-1], [1], 1, 1, 1)},
        ],
    )
    def test_settings_that_cannot_be(self, options):
        with pytest.raises(LimitError):
            buffer(**options)


numbers = st.one_of(st.floats(-3, 3), st.floats(), st.sampled_from([1e308, -1e308, float("nan"), float("inf")]))
mostly = st.floats(-3, 3)


@st.composite
def traffic(draw):
    """Pushes and samples at rising times: (wait, None) or (wait, chunk made of seeds)."""
    k = draw(st.integers(1, 4))
    values = numbers if draw(st.booleans()) else mostly
    times = draw(st.lists(st.floats(0, 0.5), min_size=k, max_size=k, unique=True).map(sorted))
    points = draw(st.lists(st.tuples(values, values), min_size=k, max_size=k))
    return (
        draw(st.floats(0, 0.2)),
        draw(st.integers(0, 8)),
        draw(st.sampled_from([SESSION, SESSION, "feed0000"])),
        draw(st.floats(0, 0.4)),
        draw(st.one_of(st.none(), st.floats())),
        times,
        points,
        draw(st.sampled_from(["push", "push", "push", "flush", "arm", "rearm"])),
    )


class TestAnyOrder:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(traffic(), min_size=1, max_size=12))
    def test_only_newer_chunks_of_the_armed_session_within_their_hull(self, events):
        b = buffer()
        now, hull, newest = 100.0, [], {}
        for wait, sequence, session, delay, age, times, points, kind in events:
            if kind == "push":
                c = chunk(sequence, points, np.array(times), received=now - delay, session=session, age_s=age)
                before = b.sample(now)
                reason = b.push(c, now)
                assert reason in ("", *REASONS)
                if reason:
                    after = b.sample(now)
                    assert before is after is None or (before == after).all()
                else:
                    assert session == b.session
                    assert sequence > newest.get(session, -1)
                    newest[session] = sequence
                    hull = list(points) + ([tuple(last)] if (last := before) is not None else [])
                    hull += [tuple(b._from)] if b._from is not None else []
            elif kind == "flush":
                b.flush()
            else:
                b.arm(SESSION if kind == "arm" else "feed0000")
            for share in (0.0, 0.3, 1.0):
                sample = b.sample(now + share * wait)
                if sample is not None:
                    assert np.isfinite(sample).all()
                    assert (np.min(hull, axis=0) <= sample).all() and (sample <= np.max(hull, axis=0)).all()
            now += wait

    @settings(max_examples=100, deadline=None)
    @given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=6))
    def test_reordered_and_doubled_messages(self, order, twice):
        b, executed = buffer(), []
        for i, sequence in enumerate([*order, *twice]):
            now = 10.0 + 0.01 * i
            b.push(chunk(sequence, [(float(sequence), 0.0)], [0.0], received=now), now)
            executed.append(b.sample(now)[0])
        assert executed == list(np.maximum.accumulate([*order, *twice]))


class TestWithTheLimiter:
    def test_a_10_hz_policy_moves_the_arm_smoothly_and_stops_when_it_ends(self):
        limits = JointLimits(("a", "b"), [-3, -3], [3, 3], 2.0, 10.0, 1000.0)
        limiter, b, dt = Limiter(limits, 0.004), buffer(), 0.004
        limiter.reset([0.0, 0.0])
        b.arm(SESSION, limiter.position)

        def wanted(t):
            return np.stack([0.5 * np.sin(1.5 * t), 0.3 - 0.3 * np.cos(1.5 * t)], axis=-1)

        outputs, errors, ahead = [], [], np.arange(1, 9) * 0.1
        for tick in range(1500):
            now = tick * dt
            if tick % 25 == 0 and now < 4:
                assert b.push(chunk(tick, wanted(now + ahead), ahead, received=now), now) == ""
            target = b.sample(now)
            outputs.append(limiter.stop() if target is None else limiter.step(target))
            if now < 4:
                errors.append(np.abs(limiter.position - wanted(now)))
        assert np.max(errors) < 0.04
        acceleration = np.array([o.acceleration for o in outputs[50:1000]])
        assert np.abs(acceleration).max() < 5.0, "the steps of the policy show: 1.1 rad/s^2 is asked for"
        assert not limiter.moving and b.sample(1500 * dt) is None
