"""Remembered answers: the same as asked ones, and only where the question is the same."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.vlm_rewards.brightness import TASK, Brightness, pictures, tasks
from vlm_rewards.answer_store import AnswerStore
from vlm_rewards.baselines import ElapsedTime, RandomInit
from vlm_rewards.cache import Cached
from vlm_rewards.critic import Capability, Window
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.frames import Frames

NAN = float("nan")
ROOT = Path(__file__).resolve().parents[2]


def noise(count: int, seed: int = 0) -> Frames:
    made = torch.Generator().manual_seed(seed)
    return Frames.now(torch.randint(0, 256, (count, 2, 8, 8, 3), dtype=torch.uint8, generator=made), ("front", "wrist"))


def later(frames: Frames, seconds: float) -> Frames:
    return Frames(frames.rgb, frames.cameras, frames.stamps + seconds)


@pytest.mark.parametrize("capability", ["score", "done", "delta", "prefer", "value"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_remembered_answers_are_those_of_the_critic(capability, on_disk, tmp_path):
    critic = RandomInit(seed=3)
    cached = Cached(critic, folder=tmp_path if on_disk else None)
    seen = (noise(5),) if capability in ("score", "done") else (noise(5), noise(5, seed=1))
    words = [TASK, TASK, "another", "another", TASK]
    expected = getattr(critic, capability)(*seen, words)
    for _ in range(2):
        given = getattr(cached, capability)(*seen, words)
        # The critic may be asked in another order, which moves the last bit of a sum.
        torch.testing.assert_close(given.values, expected.values)
        assert torch.equal(given.confidence, expected.confidence)
        assert given.revision == expected.revision and given.valid.all()
    assert (cached.misses, cached.hits) == (5, 5)


def test_only_what_is_not_known_is_sent_on_and_equal_questions_once():
    critic = Brightness()
    cached = Cached(critic)
    cached.score(pictures([0.1, 0.2]), tasks(2))
    given = cached.score(pictures([0.3, 0.1, 0.3, 0.2, 0.4]), tasks(5))
    assert critic.asked == [2, 2]
    assert given.values.tolist() == pytest.approx([11.2, 10.4, 11.2, 10.8, 11.6])
    assert (cached.misses, cached.hits) == (4, 3)
    assert cached.counts()["kept"] == 4


def test_everything_that_a_question_is_made_of_counts():
    critic = Brightness()
    cached = Cached(critic)
    one = pictures(torch.tensor([[0.1, 0.2]]), ("front", "wrist"))

    def is_new(ask) -> bool:
        before = len(critic.asked)
        ask()
        return len(critic.asked) > before

    assert is_new(lambda: cached.score(one, tasks(1)))
    assert not is_new(lambda: cached.score(one, tasks(1)))
    assert is_new(lambda: cached.score(one, ["make it dark"]))
    assert is_new(lambda: cached.done(one, tasks(1)))
    assert is_new(lambda: cached.score(Frames(one.rgb, ("front", "top"), one.stamps), tasks(1)))
    changed = one.rgb.clone()
    changed[0, 0, 0, 3, 3, 2] += 1
    assert is_new(lambda: cached.score(Frames(changed, one.cameras, one.stamps), tasks(1)))
    assert is_new(lambda: cached.delta(one, Frames(changed, one.cameras, one.stamps), tasks(1)))
    assert is_new(lambda: cached.delta(Frames(changed, one.cameras, one.stamps), one, tasks(1)))
    assert is_new(lambda: cached.score(Frames(one.rgb.view(1, 1, 2, 2, 8, 3), one.cameras, one.stamps), tasks(1)))
    critic.revision = "2"
    assert is_new(lambda: cached.score(one, tasks(1)))
    assert cached.revision == "2" and cached.score(one, tasks(1)).revision == "2"
    critic.name = "another"
    assert is_new(lambda: cached.score(one, tasks(1)))


def test_the_order_in_which_cameras_come_does_not_count():
    critic = Brightness(cameras=("front", "wrist"))
    cached = Cached(critic)
    frames = pictures(torch.tensor([[0.1, 0.2]]), ("wrist", "front"))
    cached.score(frames, tasks(1))
    cached.score(frames.of(("front", "wrist")), tasks(1))
    assert critic.asked == [1]


def test_stamps_are_those_of_the_question():
    cached = Cached(Brightness())
    cached.score(pictures([0.1]), tasks(1))
    given = cached.score(later(pictures([0.1]), 60.0), tasks(1))
    assert cached.hits == 1
    assert given.stamps.tolist() == [60.0]
    assert given.fresh(60.5, 1.0).valid.all()


def test_a_critic_that_goes_by_the_clock_is_asked_at_another_time():
    cached = Cached(ElapsedTime(horizon_s=10.0))
    start = pictures([0.5])
    assert cached.value(later(start, 2.0), start, tasks(1)).values == pytest.approx(0.2)
    assert cached.value(later(start, 4.0), start, tasks(1)).values == pytest.approx(0.4)
    assert cached.value(later(start, 4.0), start, tasks(1)).values == pytest.approx(0.4)
    assert (cached.misses, cached.hits) == (2, 1)


def test_invalid_answers_are_not_remembered():
    critic = Brightness()
    cached = Cached(critic)
    for _ in range(2):
        given = cached.score(pictures([0.1, NAN, NAN]), tasks(3))
        assert given.valid.tolist() == [True, False, False]
        assert given.values[1:].isnan().all() and given.confidence.tolist() == [0.75, 0.0, 0.0]
        assert "words about a lens" in given.reasons[2]
    assert critic.asked == [2, 1]


def test_the_least_recently_used_answer_is_forgotten():
    critic = Brightness()
    cached = Cached(critic, size=2)
    for shown in (0.1, 0.2, 0.1, 0.3, 0.1, 0.2):
        cached.score(pictures([shown]), tasks(1))
    assert sum(critic.asked) == 4  # 0.2 was pushed out by 0.3, 0.1 never
    assert cached.counts()["kept"] == 2
    # A batch larger than the memory is answered all the same.
    assert cached.score(pictures([0.1, 0.2, 0.3, 0.4]), tasks(4)).values.tolist() == pytest.approx(
        [10.4, 10.8, 11.2, 11.6]
    )
    with pytest.raises(CriticError, match="size 0"):
        Cached(critic, size=0)


def test_value_and_done_share_the_work_and_the_memory():
    asked = []

    class Sharing(Brightness):
        def value_and_done(self, now, start, instructions):
            asked.append(len(now))
            return super().value_and_done(now, start, instructions)

    cached = Cached(Sharing())
    now, start = pictures([0.5, 1.0, NAN, 0.5]), pictures([0.0] * 4)
    for _ in range(2):
        value, done = cached.value_and_done(now, start, tasks(4))
        assert value.values[[0, 1, 3]].tolist() == [0.5, 1.0, 0.5]
        assert done.values[[0, 1, 3]].tolist() == [0.0, 1.0, 0.0]
        assert value.valid.tolist() == done.valid.tolist() == [True, True, False, True]
    assert asked == [3, 1]
    cached.value(now.rows(torch.tensor([0])), start.rows(torch.tensor([0])), tasks(1))
    assert cached.misses == 4
    value, done = cached.value_and_done(now.rows(torch.tensor([1])), pictures([0.25]), tasks(1))
    assert value.values == 0.75 and done.values == 1.0 and asked[-1] == 1


def test_done_may_go_by_the_start_where_that_is_known():
    cached = Cached(ElapsedTime(horizon_s=4.0))
    now, start = later(pictures([0.5]), 10.0), later(pictures([0.5]), 8.0)
    assert cached.value_and_done(now, start, tasks(1))[1].values == 0.0
    assert cached.done(now, tasks(1)).values == 1.0


def test_it_is_asked_like_the_critic_itself():
    cached = Cached(Brightness([Capability.SCORE], cameras=("front",), window=Window(4, 0.1, causal=False)))
    assert (cached.name, cached.cameras, cached.window.frames) == ("brightness", ("front",), 4)
    with pytest.raises(MissingCapability):
        cached.done(pictures([0.1]), tasks(1))
    with pytest.raises(CriticError, match="empty"):
        cached.score(pictures([0.1]), [""])
    with pytest.raises(CriticError, match="whole recordings"):
        cached.require_online()
    assert len(cached.score(pictures([0.1]).rows(torch.tensor([False])), [])) == 0


def test_plans_are_passed_through():
    plan = Cached(Brightness()).plan(pictures([0.1]), tasks(1))
    assert plan.waypoints.shape == (1, 2, 2)


def test_a_critic_without_revision_is_refused():
    critic = Brightness()
    critic.revision = ""
    with pytest.raises(CriticError, match="no revision"):
        Cached(critic)


# On disk


def test_another_run_finds_what_was_answered(tmp_path):
    first = Cached(Brightness(), folder=tmp_path)
    first.score(pictures([0.1, 0.2]), tasks(2))
    other = Brightness()
    second = Cached(other, folder=tmp_path)  # while the first is still open
    assert second.score(pictures([0.1, 0.2]), tasks(2)).values.tolist() == pytest.approx([10.4, 10.8])
    assert second.hits == 2 and not other.asked
    first.close()
    assert first.score(pictures([0.1, 0.3]), tasks(2)).valid.all()


def test_damaged_entries_are_asked_again_and_counted(tmp_path):
    Cached(Brightness(), folder=tmp_path).score(pictures([0.1, 0.2, 0.3]), tasks(3))
    with sqlite3.connect(tmp_path / "answers.sqlite") as file:
        keys = [key for (key,) in file.execute("SELECT key FROM answers ORDER BY key")]
        (entry,) = file.execute("SELECT entry FROM answers WHERE key = ?", keys[:1]).fetchone()
        file.execute("UPDATE answers SET entry = ? WHERE key = ?", (bytes([entry[0] ^ 1]) + entry[1:], keys[0]))
        file.execute("UPDATE answers SET entry = 'text' WHERE key = ?", keys[1:2])
    file.close()
    for damaged in (2, 0):
        critic = Brightness()
        cached = Cached(critic, folder=tmp_path)
        assert cached.score(pictures([0.1, 0.2, 0.3]), tasks(3)).values.tolist() == pytest.approx([10.4, 10.8, 11.2])
        assert sum(critic.asked) == cached.counts()["damaged"] == damaged


@pytest.mark.parametrize("harm", ["no database", "cut"])
def test_a_damaged_file_is_set_aside_and_counted(tmp_path, harm):
    with_many = Cached(Brightness(), folder=tmp_path)
    with_many.score(pictures(torch.arange(200) / 200), tasks(200))
    with_many.close()
    file = tmp_path / "answers.sqlite"
    data = file.read_bytes()
    file.write_bytes(b"not a database at all" * 100 if harm == "no database" else data[:4096] + bytes(len(data) - 4096))
    cached = Cached(Brightness(), folder=tmp_path)
    for _ in range(2):
        assert cached.score(pictures([0.1]), tasks(1)).values == pytest.approx(10.4)
    assert cached.counts()["damaged"] == 1 and (tmp_path / "answers.damaged").is_file()
    cached.score(pictures([0.2]), tasks(1))
    cached.close()
    critic = Brightness()
    Cached(critic, folder=tmp_path).score(pictures([0.2]), tasks(1))
    assert not critic.asked


def test_a_folder_that_cannot_be_used_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CriticError, match="cannot keep answers"):
        Cached(Brightness(), folder=tmp_path / "file")
    Cached(Brightness(), folder=tmp_path).close()
    with sqlite3.connect(tmp_path / "answers.sqlite") as file:
        file.execute("PRAGMA user_version = 7")
    file.close()
    with pytest.raises(CriticError, match="format 7"):
        Cached(Brightness(), folder=tmp_path)


def test_a_killed_process_leaves_what_it_answered(tmp_path):
    script = f"""
        import itertools
        from pathlib import Path
        from vlm_rewards.answer_store import AnswerStore
        store = AnswerStore(Path({str(tmp_path)!r}))
        for n in itertools.count():
            store.put({{b"key %d" % n: (n / 2, 1.0)}})
            if n == 50:
                print("running", flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None and child.stdout.readline() == b"running\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = AnswerStore(tmp_path)
    assert store.get([b"key %d" % n for n in range(51)]) == {b"key %d" % n: (n / 2, 1.0) for n in range(51)}
    assert store.damaged == 0
