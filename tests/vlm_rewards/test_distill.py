"""A critic distilled onto states while they are visited: what is learned, and when it is believed."""

from __future__ import annotations

import math

import pytest
import torch

from vlm_rewards.agreement import Agreement
from vlm_rewards.distill import LESSON, PAUSE, Student

SIZE = 8


def states(count: int, generator: torch.Generator) -> torch.Tensor:
    """(B, SIZE) of very different scales, as observations have."""
    return torch.randn(count, SIZE, generator=generator) * torch.tensor([1.0, 1.0, 0.7, 3.0, 1.0, 0.01, 0.1, 5.0])


def critic(obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A potential of two numbers' distance, and done where it is high."""
    potential = (1.0 - (obs[:, 0] - obs[:, 1]).abs() / 3.0).clamp(0.0, 1.0)
    return potential, torch.where(potential > 0.9, 0.97, 0.02)


def taught(calls: int, worlds: int = 64, asked: float = 0.25, seed: int = 0, student: Student | None = None) -> Student:
    student = student or Student(SIZE, threshold=0.9, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(calls):
        obs = states(worlds, generator)
        potential, done = critic(obs)
        silent = torch.rand(worlds, generator=generator) >= asked
        student.see(obs, potential.masked_fill(silent, math.nan), done.masked_fill(silent, math.nan))
    return student


def test_it_comes_to_agree_with_the_critic_about_states_it_never_saw():
    student = taught(300)
    obs = states(2000, torch.Generator().manual_seed(9))
    (potential, done), (wanted, truly) = student.read(obs), critic(obs)
    assert torch.corrcoef(torch.stack([potential, wanted]))[0, 1] > 0.95
    said, true = done >= 0.9, truly >= 0.9
    assert (said & true).sum() / said.sum() > 0.9 and (said & true).sum() / true.sum() > 0.5
    assert student.seen == pytest.approx(300 * 16, rel=0.05)
    figures = student.agreement.figures()
    assert figures["correlation"] > 0.93 and figures["error"] < 0.1 and figures["precision"] > 0.85


def test_it_is_believed_only_once_its_guesses_held_against_new_answers():
    student = Student(SIZE, threshold=0.9)
    obs = states(50, torch.Generator().manual_seed(1))
    potential, suspected = student.speak(obs)
    assert potential.isnan().all() and not suspected.any()
    taught(PAUSE, student=student)
    assert not student.agreement.on_potential and student.speak(obs)[0].isnan().all()
    taught(120, seed=1, student=student)
    assert student.agreement.on_potential
    torch.testing.assert_close(student.speak(obs)[0], student.read(obs)[0])


def test_it_suspects_success_where_the_critic_finds_it():
    student = taught(300)
    obs = states(4000, torch.Generator().manual_seed(9))
    suspected, true = student.speak(obs)[1], critic(obs)[1] > 0.9
    assert (suspected & true).sum() / true.sum() > 0.8
    assert suspected.sum() < 1.5 * true.sum() < 0.5 * len(obs)


def test_it_is_not_believed_on_labels_without_rule():
    student, generator = Student(SIZE, threshold=0.9), torch.Generator().manual_seed(0)
    for _ in range(80):
        labels = torch.rand(64, 2, generator=generator)
        student.see(states(64, generator), labels[:, 0], (labels[:, 1] > 0.8).float())
    assert student.agreement.correlation < 0.4 and not student.agreement.on_potential


def test_answers_of_one_kind_are_enough_to_learn_that_kind():
    student, generator = Student(SIZE, threshold=0.9), torch.Generator().manual_seed(0)
    for _ in range(150):
        obs = states(64, generator)
        student.see(obs, critic(obs)[0], torch.full((64,), math.nan))
    assert student.agreement.on_potential and student.speak(states(10, generator))[0].isfinite().all()
    assert not {"precision", "recall"} & set(student.agreement.figures())


def test_a_lesson_waits_for_enough_answers():
    student, generator = Student(SIZE), torch.Generator().manual_seed(0)
    for call in range(1, 2 * LESSON):
        obs = states(1, generator)
        student.see(obs, *critic(obs))
        assert student.seen == (0 if call < LESSON else LESSON)
    student = Student(SIZE)
    for call in range(1, 2 * PAUSE):
        obs = states(LESSON, generator)
        student.see(obs, *critic(obs))
        assert student.seen == (0 if call < PAUSE else PAUSE * LESSON)


def test_it_continues_to_the_last_bit():
    student = taught(40)
    again = Student(SIZE, threshold=0.9, seed=5)
    again.load_state_dict(student.state_dict())
    for one in (student, again):
        taught(30, seed=3, student=one)
    obs = states(100, torch.Generator().manual_seed(4))
    assert torch.equal(torch.stack(student.read(obs)), torch.stack(again.read(obs)))
    assert student.agreement.figures() == again.agreement.figures() and student.seen == again.seen


def test_it_leaves_the_global_random_numbers_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    taught(20)
    assert torch.equal(before, torch.random.get_rng_state())


def test_agreement_is_that_of_the_newest_answers():
    generator = torch.Generator().manual_seed(0)
    agreement = Agreement(0.5)
    answered = torch.rand(400, 2, generator=generator)
    agreement.add(answered, answered)
    assert agreement.correlation == pytest.approx(1.0) and agreement.error == 0.0 and agreement.precision == 1.0
    for _ in range(20):
        answered = torch.rand(400, 2, generator=generator)
        agreement.add(1.0 - answered, answered)
    assert agreement.correlation == pytest.approx(-1.0, abs=0.05) and agreement.precision < 0.05
    assert not agreement.on_potential


def test_nothing_is_known_of_few_or_constant_answers():
    agreement = Agreement(0.5)
    assert agreement.figures() == {}
    agreement.add(torch.rand(20, 2), torch.rand(20, 2))
    assert "correlation" not in agreement.figures()
    flat = Agreement(0.5)
    flat.add(torch.rand(500, 2), torch.full((500, 2), 0.3))
    assert "correlation" not in flat.figures() and flat.figures()["error"] > 0.0
    flat.add(torch.rand(10, 2), torch.full((10, 2), math.nan))
    assert math.isfinite(flat.error)
