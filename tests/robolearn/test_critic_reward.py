"""A critic as the reward of training on a small arm_push: what is looked at when, whose word counts, what is paid."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from robolearn.critic_opening import open_critic
from robolearn.critic_reward import CriticReward
from robolearn.critic_settings import CriticRewardError, RewardSettings
from sim.camera import BatchCameras
from sim.engines import Engine
from sim.env import Env
from sim.experts.arm import scripted
from sim.tasks import make_env
from tests.robolearn.pixel_critic import PixelCritic
from vlm_rewards.baselines import ElapsedTime, RandomInit
from vlm_rewards.critic import Capability, Critic, Judged, MissingCapability, Window
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.reward_config import RewardConfig

GAMMA = 0.9
N = 6


PLAIN = {"same_color": 0.0, "front_camera": "high"}
"""What the pixel critic can see."""


def arm(num_envs: int = N, **settings) -> Env:
    return make_env("arm_push", num_envs, seed=3, engine=Engine(threads=1), **{**PLAIN, **settings})


def truth(**settings) -> RewardSettings:
    return RewardSettings(critic="truth", threshold=0.5, debounce=1, **settings)


class Diary:
    """Watches beside a reward, with cameras of its own, and writes down what there was to be seen."""

    def __init__(self, env: Env, reward: CriticReward, cameras: tuple[str, ...] = ()) -> None:
        self.env, self.reward = env, reward
        self.cameras = BatchCameras(env.world, cameras, 64, 64, threads=1) if cameras else None
        self.now: list[SimpleNamespace] = []
        self.starts: list[SimpleNamespace] = []
        env.watcher = self

    def _page(self, **more) -> SimpleNamespace:
        c = self.env.channels
        rgb = None if self.cameras is None else self.cameras.refresh().rgb.clone()
        asked = self.env.instructions()
        return SimpleNamespace(progress=c["progress"].clone(), done=c["done"] > 0.5, rgb=rgb, asked=asked, **more)

    def judge(self):
        self.now.append(self._page())
        self.now[-1].stop = stop = self.reward.judge()
        return stop

    def begun(self, worlds, reset):
        mask = torch.zeros(self.env.num_envs, dtype=torch.bool)
        mask[worlds.chosen()] = True
        self.starts.append(self._page(mask=mask, step=len(self.now)))
        self.reward.begun(worlds, reset)


def play(env: Env, reward: CriticReward, steps: int, experts: int = 3):
    """Steps and rewards; the first worlds are moved by the expert, the others stand still."""
    out = []
    for _ in range(steps):
        action = scripted(env)
        action[experts:] = 0.0
        step = env.step(action)
        out.append((step, reward(step)))
    return out


def shaped(phi, following, step, success):
    """By hand: γΦ(s') - Φ(s), 0 beyond terminations, and 1 for success."""
    return GAMMA * following * ~step.terminated - phi + success.float()


def by_hand(diary: Diary, played, potential, success):
    """Rewards of all steps, of the potential and the success that the functions read off a page."""
    rewards = []
    begun = iter(diary.starts)
    phi = potential(next(begun))
    for page, (step, _) in zip(diary.now, played, strict=True):
        following = potential(page)
        rewards.append(shaped(phi, following, step, success(page)))
        ended = step.terminated | step.truncated
        phi = torch.where(ended, potential(next(begun)), following) if bool(ended.any()) else following
    return torch.stack(rewards)


@pytest.mark.parametrize("success", ["task", "critic"])
def test_truth_is_shaping_by_the_channels_through_successes_and_time_outs(success):
    env = arm(ends="done" if success == "task" else "never", episode_s=2.5)
    reward = CriticReward(env, None, truth(stage=RewardConfig(success=success)), GAMMA)
    diary = Diary(env, reward)
    env.reset()
    played = play(env, reward, 80)
    ends = torch.stack([step.terminated for step, _ in played]), torch.stack([step.truncated for step, _ in played])
    assert ends[0].any() and ends[1].any()
    wanted = by_hand(diary, played, lambda page: page.progress, lambda page: page.done)
    torch.testing.assert_close(torch.stack([r for _, r in played]), wanted, atol=1e-6, rtol=0)


def test_an_episode_that_ends_in_all_worlds_at_once_is_paid_by_its_own_potential():
    env = arm(episode_s=0.5, ends="never")
    reward = CriticReward(env, None, truth(stage=RewardConfig(success="task")), GAMMA)
    diary = Diary(env, reward)
    env.reset()
    played = play(env, reward, 12)
    assert all(bool(played[t][0].truncated.all()) for t in (4, 9))
    wanted = by_hand(diary, played, lambda page: page.progress, lambda page: page.done)
    torch.testing.assert_close(torch.stack([r for _, r in played]), wanted, atol=1e-6, rtol=0)


def test_a_reset_in_the_middle_of_episodes_starts_afresh():
    env = arm()
    reward = CriticReward(env, None, truth(stage=RewardConfig(success="task")), GAMMA)
    diary = Diary(env, reward)
    env.reset()
    play(env, reward, 7)
    env.reset()
    diary.now.clear()
    del diary.starts[:-1]
    played = play(env, reward, 3)
    wanted = by_hand(diary, played, lambda page: page.progress, lambda page: page.done)
    torch.testing.assert_close(torch.stack([r for _, r in played]), wanted, atol=1e-6, rtol=0)


def pixel(env: Env, **settings) -> CriticReward:
    return CriticReward(env, PixelCritic(), RewardSettings(critic="pixels", **settings), GAMMA)


def seen(page, start_rgb) -> tuple[torch.Tensor, torch.Tensor]:
    """What the critic says of a page, asked apart from the training."""
    critic, now = PixelCritic(), Frames.now(page.rgb, ("front",))
    start = Frames.now(start_rgb, ("front",))
    return critic.value(now, start, page.asked).values, critic.done(now, page.asked).values


def test_a_critic_sees_the_last_pictures_before_a_reset_and_the_first_ones_after_it():
    env = arm(ends="never", episode_s=2.5)
    reward = pixel(env, threshold=0.8, debounce=2)
    diary = Diary(env, reward, ("front",))
    env.reset()
    played = play(env, reward, 60)
    starts = iter(diary.starts)
    first = next(starts).rgb
    held = seen(diary.starts[0], first)[0].nan_to_num(0.0)
    count = torch.zeros(N, dtype=torch.long)
    stopped = timed_out = 0
    for page, (step, paid) in zip(diary.now, played, strict=True):
        value, done = seen(page, first)
        following = torch.where(value.isfinite(), value, held)
        count = torch.where(done >= 0.8, count + 1, 0)
        stop = count >= 2
        assert torch.equal(page.stop, stop) and torch.equal(step.terminated, stop)
        torch.testing.assert_close(paid, shaped(held, following, step, stop), atol=1e-6, rtol=0)
        ended = step.terminated | step.truncated
        stopped, timed_out = stopped + int(stop.sum()), timed_out + int(step.truncated.sum())
        held = following
        if bool(ended.any()):
            again = next(starts)
            first = torch.where(ended[:, None, None, None, None], again.rgb, first)
            held = torch.where(ended, seen(again, first)[0].nan_to_num(0.0), held)
            count = count.masked_fill(ended, 0)
    assert stopped and timed_out
    found = reward.report()
    assert found["critic/moments"] == N * 60 and found["critic/looked"] == 1.0
    assert found["critic/held"] == pytest.approx(found["critic/abstained"]) and found["critic/held"] > 0
    assert found["time/critic_ms"] > 0 and reward.report().get("critic/looked") is None
    reward.close()


def test_results_of_episodes_tell_what_the_critic_called_done_and_what_was():
    env = arm(ends="never", episode_s=2.5)
    reward = pixel(env, threshold=0.8, debounce=1)
    diary = Diary(env, reward)
    env.reset()
    said = false = 0
    for page, (step, _) in zip(diary.now, play(env, reward, 60), strict=True):
        if step.episodes:
            stop, ids = page.stop, step.final_ids
            assert torch.equal(step.episodes["critic_done"], stop[ids].float())
            assert torch.equal(step.episodes["false_done"], (stop & ~page.done)[ids].float())
            said, false = said + int(stop.sum()), false + int((stop & ~page.done).sum())
    assert said
    assert reward.report()["critic/done_precision"] == pytest.approx(1.0 - false / said)
    reward.close()


def test_pictures_of_some_worlds_now_and_then_and_the_last_answer_in_between():
    env = arm(8, ends="never", episode_s=50)
    critic = PixelCritic()
    settings = RewardSettings(critic="pixels", every=3, share=0.25, threshold=0.8, debounce=9)
    reward = CriticReward(env, critic, settings, GAMMA, seed=1)
    diary = Diary(env, reward, ("front",))
    env.reset()
    paid = torch.stack([r for _, r in play(env, reward, 20, experts=8)])
    assert critic.asked == [2] * 7  # at the start, and after every third step
    answers = torch.stack([seen(page, diary.starts[0].rgb)[0] for page in diary.now])
    filmed = torch.tensor([bool(r.abs().sum() > 1e-6) for r in paid.T])
    assert filmed.sum() == 2
    phi = torch.zeros(8)
    for t, page in enumerate(diary.now):
        due = (t + 1) % 3 == 0
        following = torch.where(answers[t].isfinite() & filmed, answers[t], phi) if due else phi
        step = SimpleNamespace(terminated=torch.zeros(8, dtype=torch.bool))
        torch.testing.assert_close(paid[t], shaped(phi, following, step, page.stop), atol=1e-6, rtol=0)
        phi = following
    found = reward.report()
    assert found["critic/looked"] == pytest.approx(2 * 6 / (8 * 20))
    reward.close()


def test_a_distilled_potential_speaks_in_all_worlds_once_it_is_reliable():
    env = make_env("arm_reach", 12, seed=3, engine=Engine(threads=1), ends="never", episode_s=2.0)
    settings = truth(share=0.5, distill=True, stage=RewardConfig(success="none"))
    assert settings.stage.fallback == "distilled"
    reward = CriticReward(env, None, settings, GAMMA)
    diary = Diary(env, reward)
    env.reset()
    unpaid = torch.stack([r for _, r in play(env, reward, 4, experts=12)]).abs().sum(0) < 1e-6
    assert unpaid.sum() == 6  # as long as nobody knows what their states are worth
    found = reward.report()
    assert found["critic/distilled"] == 0.0 and found["critic/held"] == found["critic/looked"] == 0.5
    generator = torch.Generator().manual_seed(0)
    for _ in range(16 + 8 * 20):
        reward(env.step(torch.where(torch.rand(12, 1, generator=generator) < 0.3, scripted(env), 0.0)))
    reward.report()
    diary.now.clear()
    paid = torch.stack([r for _, r in play(env, reward, 20, experts=12)])[:19]
    found = reward.report()
    assert (
        found["critic/student_correlation"] > 0.8 and found["critic/distilled"] == 1.0 and found["critic/held"] == 0.0
    )
    following = torch.stack([page.progress for page in diary.now[:19]])
    gained = GAMMA * following - torch.cat([diary.starts[-2].progress[None], following[:-1]])
    for worlds in (unpaid, ~unpaid):
        assert torch.corrcoef(torch.stack([paid[:, worlds].flatten(), gained[:, worlds].flatten()]))[0, 1] > 0.7


def test_a_rehearsed_student_speaks_from_the_first_step_on():
    env = make_env("arm_push", 8, seed=3, engine=Engine(threads=1), ends="never", episode_s=4.0)
    settings = truth(share=0.25, distill=True, rehearsal=2500, stage=RewardConfig(success="critic"))
    reward = CriticReward(env, None, settings, GAMMA, seed=1)
    reward.watch()
    found = reward.rehearse()
    assert found["correlation"] > 0.8 and found["precision"] > 0.8
    assert env.watcher is reward
    env.reset()
    step = env.step(torch.zeros(8, 2))
    reward(step)
    said = reward.report()
    assert said["critic/distilled"] == 1.0 and said["critic/looked"] == 0.25 and said["critic/held"] == 0.0
    ends = []
    for _ in range(40):
        step = env.step(scripted(env))
        reward(step)
        ends.append(step.terminated)
    said = reward.report()
    never_filmed = torch.stack(ends).any(0) & ~reward._filmed
    assert never_filmed.sum() >= 3  # success is asked about where the student suspects it, and is the critic's word
    assert 0.0 < said["critic/asked"] < 0.3 and said["critic/done_precision"] == 1.0
    again = CriticReward(
        make_env("arm_push", 8, seed=3, engine=Engine(threads=1), ends="never", episode_s=4.0),
        None,
        settings,
        GAMMA,
        seed=1,
    )
    assert again.rehearse() == found


def test_without_a_script_there_is_nothing_to_rehearse():
    env = arm(4, ends="never")
    env.task.name = "arm_dance"
    reward = CriticReward(env, None, truth(distill=True, rehearsal=100), GAMMA)
    with pytest.raises(
        CriticRewardError, match=r"reward\.rehearsal has nothing to show.*arm_dance.*reward\.rehearsal=0"
    ):
        reward.rehearse()
    with pytest.raises(CriticRewardError, match="rehearsal must be 0 without reward.distill=true, got 100"):
        truth(rehearsal=100)


def test_worlds_whose_physics_fails_are_neither_looked_at_nor_done():
    env = arm(4, ends="never")
    critic = PixelCritic()
    critic._done = lambda now, instructions: Judged(torch.ones(len(now)))
    reward = CriticReward(env, critic, RewardSettings(critic="pixels", debounce=1, threshold=0.5), GAMMA)
    reward.watch()
    env.reset()
    env.world.shards[0].physics.bind("qvel")[0] = 1e12
    step = env.step(torch.zeros(4, 2))
    assert int(step.log["world/diverged"]) == 1
    lost = int(torch.nonzero(step.episodes["diverged"]).flatten()[0])
    paid = reward(step)
    assert step.terminated.all() and step.episodes["critic_done"].sum() == 3
    assert paid[lost] <= 0.0 and all(paid[i] > 0.0 for i in range(4) if i != lost)
    assert critic.asked == [4, 3, 4]
    reward.close()
    assert env.watcher is None


def test_reasons_for_missing_answers_are_told_once(caplog):
    env = arm(4, ends="never")
    reward = pixel(env)
    reward._judge._critic._value = lambda now, start, instructions: Judged(torch.full((len(now),), torch.nan))
    reward.watch()
    with caplog.at_level(logging.WARNING):
        env.reset()
        for _ in range(5):
            reward(env.step(torch.zeros(4, 2)))
    about = [record.message for record in caplog.records if "not a finite number" in record.message]
    assert about == ["critic pixels has no answer about 4 of 4 moments: the critic's answer is not a finite number"]
    assert reward.report()["critic/abstained"] == 1.0
    reward.close()


class Hops(Critic):
    """Compares moments alone."""

    name, revision = "hops", "1"
    capabilities = frozenset({Capability.DELTA, Capability.DONE})

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        return Judged((after.stamps - before.stamps).float() / 5.0)

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged(torch.zeros(len(now)))


def test_a_critic_that_compares_moments_becomes_a_potential():
    env = arm(3, ends="never")
    reward = CriticReward(env, Hops(), RewardSettings(critic="hops", cameras=["front"], size=8), GAMMA)
    reward.watch()
    env.reset()
    paid = torch.stack([reward(env.step(torch.zeros(3, 2))) for _ in range(3)])
    phi = torch.tensor([0.0, 0.02, 0.04, 0.06])
    wanted = (GAMMA * phi[1:] - phi[:-1])[:, None].expand(3, 3)
    torch.testing.assert_close(paid, wanted, atol=1e-5, rtol=0)
    reward.close()


def test_the_elapsed_time_control_pays_for_time_and_ends_with_the_episode():
    settings = RewardSettings(critic="elapsed_time", cameras=["front"], size=8, debounce=1)
    critic, settings = open_critic(settings, {"name": "arm_push", "episode_s": 1.0})
    assert isinstance(critic, ElapsedTime) and critic.horizon_s == 1.0
    env = arm(2, episode_s=1.0, ends="never")
    reward = CriticReward(env, critic, settings, GAMMA)
    reward.watch()
    env.reset()
    steps = [env.step(torch.zeros(2, 2)) for _ in range(1)]
    paid = [reward(steps[0])] + [reward(env.step(torch.zeros(2, 2))) for _ in range(8)]
    last = env.step(torch.zeros(2, 2))
    assert last.terminated.all() and not last.truncated.any()
    torch.testing.assert_close(paid[0], torch.full((2,), GAMMA * 0.1), atol=1e-6, rtol=0)
    torch.testing.assert_close(reward(last), torch.full((2,), 1.0 - 0.9), atol=1e-6, rtol=0)
    reward.close()


class Wide(RandomInit):
    window = Window(4, 0.1)


class Elsewhere(RandomInit):
    cameras = ("top", "front")


class NoDone(RandomInit):
    name = "no_done"
    capabilities = frozenset({Capability.VALUE})


@pytest.fixture(scope="module")
def still() -> Env:
    return arm(2)


@pytest.mark.parametrize(
    ("critic", "settings", "error", "message"),
    [
        (
            Elsewhere(),
            {},
            CriticRewardError,
            "looks through cameras top, front; task 'arm_push' has no top; its cameras:",
        ),
        (
            PixelCritic(),
            {"cameras": ["wrist"]},
            CriticRewardError,
            "made for cameras front, not for reward.cameras=wrist",
        ),
        (RandomInit(), {"cameras": ["side"]}, CriticRewardError, "has no side; its cameras: front, wrist"),
        (Wide(), {}, CriticRewardError, "looks at 4 pictures of each moment"),
        (NoDone(), {}, MissingCapability, "'no_done' cannot done; it can: value"),
        (
            PixelCritic(),
            {"stage": {"gamma": 0.99}},
            CriticError,
            "shapes with gamma 0.99, the learner discounts with 0.9",
        ),
        (PixelCritic(), {"stage": {"terms": {"remainin": 1.0}}}, CriticError, "did you mean 'remaining'"),
        (PixelCritic(), {"stage": {"shaping": "value", "credit": "min"}}, CriticError, "needs whole episodes"),
        (PixelCritic(), {"stage": {"ensemble": "min"}}, CriticError, "ensemble=min does not go with one critic's"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(still, critic, settings, error, message):
    with pytest.raises(error, match=message):
        CriticReward(still, critic, RewardSettings(critic="x", **settings), GAMMA)


@pytest.mark.parametrize("task", ["dex_track", "g1_walk"])
def test_a_task_without_known_success_is_refused(small, task):
    with pytest.raises(CriticRewardError, match=f"task '{task}' has no channel done and progress, by which .*truth"):
        CriticReward(small(2, task), None, truth(stage=RewardConfig(success="task")), GAMMA)
