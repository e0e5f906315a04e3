"""The reward stage: one reward for rollouts, replays and recordings, whatever answers fail."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from tests.vlm_rewards.tabular import generator
from vlm_rewards.errors import CriticError
from vlm_rewards.stage import RewardConfig, RewardStage, Transitions, relabel, relabel_episodes

GAMMA = 0.95


def lived(T: int = 50, N: int = 6, seed: int = 0, broken: float = 0.0) -> Transitions:
    """T steps of N worlds: random ends of both kinds, potentials of which a share is invalid, success, two terms."""
    g = generator(seed)
    terminated = torch.rand(T, N, generator=g) < 0.05
    truncated = torch.rand(T, N, generator=g) < 0.05
    ended = terminated | truncated
    seen = torch.rand(T + 1, N, generator=g, dtype=torch.float64)
    final = torch.rand(T, N, generator=g, dtype=torch.float64)
    valid = torch.rand(T + 1, N, generator=g) >= broken
    final_valid = torch.rand(T, N, generator=g) >= broken
    return Transitions(
        terminated,
        truncated,
        seen[:-1].masked_fill(~valid[:-1], torch.nan),
        torch.where(ended, final, seen[1:]).masked_fill(~torch.where(ended, final_valid, valid[1:]), torch.nan),
        valid[:-1],
        torch.where(ended, final_valid, valid[1:]),
        success=torch.rand(T, N, generator=g) < 0.2,
        terms={"stage": torch.rand(T, N, generator=g, dtype=torch.float64), "effort": -seen[:-1]},
    )


def each(t: Transitions, change: Callable[[torch.Tensor], torch.Tensor]) -> Transitions:
    """The same change of every tensor."""
    given = {f.name: getattr(t, f.name) for f in fields(t) if f.name != "terms"}
    made: dict[str, Any] = {name: None if value is None else change(value) for name, value in given.items()}
    return Transitions(**made, terms={name: change(term) for name, term in t.terms.items()})


def rows(t: Transitions, index: Any) -> Transitions:
    """Some of the first axis."""
    return each(t, lambda value: value[index])


def flat(t: Transitions) -> Transitions:
    """Rows without order."""
    return each(t, torch.Tensor.flatten)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"shaping": "difference", "terms": {"effort": 0.1}},
    {"shaping": "value", "success": "task", "bonus": 3.0},
    {"shaping": "none", "terms": {"stage": 1.0, "effort": 0.5}},
    {"bound": "par", "references": (0.2, 0.6), "weight": 2.0},
    {"bound": "clip", "clip": 0.8, "success": "none"},
    {"terms": {"stage": 1.0, "effort": 2.0}, "gate": "stage"},
    {"terms": {"stage": 1.0, "effort": 2.0}, "mixing": "soft_and"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("fallback", ["hold", "drop"])
def test_steps_rollouts_and_replays_give_the_same_rewards(settings: dict[str, Any], fallback: str) -> None:
    t = lived(broken=0.3)
    T, N = t.shape
    config = RewardConfig(fallback=fallback, **settings)
    whole = RewardStage(config, GAMMA, N)(t)
    stage = RewardStage(config, GAMMA, N)
    steps = [stage(rows(t, k)) for k in range(T)]
    assert torch.allclose(torch.stack([s.reward for s in steps]), whole.reward)
    assert torch.equal(torch.stack([s.valid for s in steps]), whole.valid)
    for name, total in whole.counts.items():
        assert int(sum(s.counts[name] for s in steps)) == int(total), name
    chunked = RewardStage(config, GAMMA, N)
    parts = [chunked(rows(t, part)) for part in torch.arange(T).split([7, 1, 30, 12])]
    assert torch.allclose(torch.cat([p.reward for p in parts]), whole.reward)

    # A replay keeps the potentials that were used; NaN says that there was none.
    stored = replace(t, potential=whole.potential, next_potential=whole.next_potential, valid=None, next_valid=None)
    order = torch.randperm(T * N, generator=generator())
    got = RewardStage(config, GAMMA)(rows(flat(stored), order))
    assert torch.allclose(got.reward, whole.reward.flatten()[order])
    assert torch.equal(got.valid, whole.valid.flatten()[order])
    assert fallback == "drop" or bool(whole.valid.all())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("broken", [0.0, 0.5, 0.95])
def test_held_potentials_telescope_exactly(seed: int, broken: float) -> None:
    t = lived(T=80, N=4, seed=seed, broken=broken)
    result = RewardStage(RewardConfig(success="none"), GAMMA, 4)(t)
    assert result.potential is not None and result.next_potential is not None
    episodes = 0
    for n in range(4):
        start = 0
        for end in torch.nonzero(t.ended[:, n]).flatten().tolist():
            discount = GAMMA ** torch.arange(end + 1 - start, dtype=torch.float64)
            got = float((discount * result.reward[start : end + 1, n]).sum())
            expected = -float(result.potential[start, n])
            if not t.terminated[end, n]:
                expected += GAMMA ** (end + 1 - start) * float(result.next_potential[end, n])
            assert got == pytest.approx(expected, abs=1e-9)
            start, episodes = end + 1, episodes + 1
    assert episodes > 5


@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_is_the_last_valid_answer_of_the_episode(seed: int) -> None:
    t = lived(seed=seed, broken=0.6)
    T, N = t.shape
    result = RewardStage(RewardConfig(), GAMMA, N)(t)
    assert result.next_potential is not None and result.potential is not None
    unseen = replaced = 0
    for n in range(N):
        held, fresh = 0.0, True
        for k in range(T):
            if fresh:
                seen = bool(t.valid[k, n])
                held, unseen = (float(t.potential[k, n]) if seen else 0.0), unseen + (not seen)
            assert float(result.potential[k, n]) == held
            if t.next_valid[k, n]:
                held = float(t.next_potential[k, n])
            else:
                replaced += 1
            assert float(result.next_potential[k, n]) == held
            fresh = bool(t.ended[k, n])
    assert int(result.counts["unseen"]) == unseen
    assert int(result.counts["replaced"]) == int(result.counts["invalid"]) == replaced
    assert bool(result.valid.all())


def test_dropping_can_be_farmed_where_holding_cannot() -> None:
    """Forward where the critic sees it, back where it does not: a loop of two visible and two hidden moves."""
    phi = torch.tensor([0.2, 0.5, 0.8, 0.5] * 10 + [0.2], dtype=torch.float64).unsqueeze(-1)
    sees = torch.tensor([True, True, True, False] * 10 + [True]).unsqueeze(-1)
    no = torch.zeros(40, 1, dtype=torch.bool)
    t = Transitions(no, no, phi[:-1], phi[1:], sees[:-1], sees[1:])
    paid = {}
    for fallback in ("drop", "hold"):
        result = RewardStage(RewardConfig(fallback=fallback, success="none"), gamma=1.0)(t)
        paid[fallback] = float(result.reward.sum())
    assert paid["drop"] == pytest.approx(10 * 0.6)
    assert paid["hold"] == pytest.approx(0.0)


def test_dropping_leaves_out_both_transitions_of_an_invalid_visit() -> None:
    t = lived(broken=0.3)
    result = RewardStage(RewardConfig(fallback="drop", success="none"), GAMMA, t.shape[1])(t)
    assert t.valid is not None and t.next_valid is not None
    absent = ~(t.valid & (t.next_valid | t.terminated))
    assert torch.equal(~result.valid, absent)
    assert bool((result.reward[absent] == 0).all())
    assert int(result.counts["absent"]) == int(absent.sum()) > 0


def test_a_distilled_potential_stands_in_and_its_failure_is_reported() -> None:
    t = lived(broken=0.4)
    other = torch.rand(t.shape, dtype=torch.float64, generator=generator(5))
    following = other.roll(-1, 0)
    following[0, 0] = torch.nan
    assert t.next_valid is not None
    t.next_valid[0, 0] = False
    t = replace(t, distilled=other, next_distilled=following)
    result = RewardStage(RewardConfig(fallback="distilled", success="none"), GAMMA, t.shape[1])(t)
    assert result.next_potential is not None and t.next_potential is not None
    assert torch.equal(result.next_potential[t.next_valid], t.next_potential[t.next_valid])
    rest = ~t.next_valid
    assert torch.equal(result.next_potential[rest].nan_to_num(-1), following[rest].nan_to_num(-1))
    assert not bool(t.ended[0, 0])
    assert result.valid.logical_not().nonzero().tolist() == [[0, 0], [1, 0]]
    with pytest.raises(CriticError, match="fallback=distilled needs"):
        RewardStage(RewardConfig(fallback="distilled"), GAMMA)(lived())


def test_time_outs_keep_the_next_potential_and_terminations_pay_the_bonus() -> None:
    t = Transitions(
        torch.tensor([True, False, False, True]),
        torch.tensor([False, True, False, True]),
        torch.tensor([0.8, 0.8, 0.8, 0.8]),
        torch.tensor([0.9, 0.9, 0.9, torch.nan]),
        success=torch.tensor([True, False, False, False]),
    )
    result = RewardStage(RewardConfig(bonus=2.0), 0.9)(t)
    assert result.reward.tolist() == pytest.approx([1.2, 0.01, 0.01, -0.8], abs=1e-6)
    assert set(result.parts) == {"potential", "success"}
    assert bool(result.valid.all())


def test_the_potential_of_a_visit_is_used_twice_even_if_the_critic_changes_its_mind() -> None:
    no = torch.zeros(1, dtype=torch.bool)
    stage = RewardStage(RewardConfig(success="none"), 1.0, num_worlds=1)
    first = stage(Transitions(no, no, torch.tensor([0.1]), torch.tensor([0.4])))
    second = stage(Transitions(no, no, torch.tensor([0.7]), torch.tensor([0.9])))
    assert first.reward.tolist() == pytest.approx([0.3])
    assert second.reward.tolist() == pytest.approx([0.5])
    assert int(second.counts["revised"]) == 1
    stage.reset()
    assert stage(Transitions(no, no, torch.tensor([0.7]), torch.tensor([0.9]))).reward.tolist() == pytest.approx([0.2])


def test_a_saved_stage_goes_on_where_it_stopped() -> None:
    t = lived(broken=0.5)
    config = RewardConfig(terms={"stage": 1.0, "effort": 1.0}, gate="stage", gate_threshold=0.9, gate_release=0.2)
    whole = RewardStage(config, GAMMA, t.shape[1])(t)
    before, after = RewardStage(config, GAMMA, t.shape[1]), RewardStage(config, GAMMA, t.shape[1])
    head = before(rows(t, slice(0, 21)))
    after.load_state_dict(before.state_dict())
    before(rows(t, slice(21, 30)))
    tail = after(rows(t, slice(21, None)))
    assert torch.equal(torch.cat((head.reward, tail.reward)), whole.reward)


def test_invalid_and_not_finite_answers_are_counted_never_paid() -> None:
    no = torch.zeros(4, dtype=torch.bool)
    phi = torch.tensor([0.5, 0.5, 0.5, 0.5])
    t = Transitions(
        no,
        no,
        phi,
        torch.tensor([0.6, torch.nan, torch.inf, 0.6]),
        ~no,
        torch.tensor([True, True, True, False]),
        success=~no,
        success_valid=torch.tensor([True, True, False, True]),
    )
    result = RewardStage(RewardConfig(fallback="drop"), 1.0)(t)
    assert result.parts["potential"].tolist() == pytest.approx([0.1, 0.0, 0.0, 0.0])
    assert result.parts["success"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert result.valid.tolist() == [True, False, False, False]
    assert {n: int(result.counts[n]) for n in ("rows", "invalid", "not_finite", "absent", "success_invalid")} == {
        "rows": 4,
        "invalid": 3,
        "not_finite": 2,
        "absent": 3,
        "success_invalid": 1,
    }
    assert result.summary()["critic/invalid"] == 0.75
    assert result.summary()["reward/potential"] == pytest.approx(0.025)


def test_a_term_that_is_not_a_number_stays_so_behind_a_closed_gate() -> None:
    no = torch.zeros(2, dtype=torch.bool)
    t = Transitions(no, no, success=no, terms={"effort": torch.tensor([1.0, torch.nan])})
    config = RewardConfig(shaping="none", terms={"effort": 1.0}, gate="success")
    assert RewardStage(config, GAMMA)(t).reward.isnan().tolist() == [False, True]


def test_a_gate_is_never_put_before_a_potential() -> None:
    t = lived()
    plain = RewardStage(RewardConfig(), GAMMA)(t)
    gated = RewardStage(RewardConfig(gate="stage", gate_threshold=2.0, terms={"effort": 1.0}), GAMMA)(t)
    assert torch.equal(plain.parts["potential"], gated.parts["potential"])
    assert bool((gated.parts["task/effort"] == 0).all())
    value = RewardStage(RewardConfig(shaping="value", gate="stage", gate_threshold=2.0), GAMMA)(t)
    assert bool((value.parts["value"] == 0).all())


def test_an_ensemble_that_disagrees_abstains_and_is_held() -> None:
    no = torch.zeros(3, 1, dtype=torch.bool)
    phi = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.9, 0.4]]).unsqueeze(-1)
    config = RewardConfig(ensemble="mean", abstain_std=0.1, success="none")
    result = RewardStage(config, 1.0)(Transitions(no, no, phi[:, :-1], phi[:, 1:]))
    assert result.next_potential is not None
    assert result.next_potential.flatten().tolist() == pytest.approx([0.2, 0.2, 0.4])
    assert int(result.counts["abstained"]) == int(result.counts["replaced"]) == 1
    with pytest.raises(CriticError, match="ensemble=none does not go with an ensemble's"):
        RewardStage(RewardConfig(), 1.0)(Transitions(no, no, phi[:, :-1], phi[:, 1:]))


def test_min_form_credit_needs_whole_episodes() -> None:
    t = lived()
    config = RewardConfig(shaping="value", credit="min", success="none")
    result = RewardStage(config, GAMMA)(t)
    first = int(torch.nonzero(t.ended[:, 0])[0]) + 1
    assert t.next_potential is not None
    own = t.next_potential[:first, 0]
    assert float(result.reward[:first, 0].sum()) == pytest.approx(float((torch.softmax(-own / 0.1, 0) * own).sum()))
    with pytest.raises(CriticError, match="credit=min needs whole episodes"):
        RewardStage(config, GAMMA, 6)(rows(t, 0))


def test_gdpo_takes_all_rows_as_one_group() -> None:
    t = lived()
    config = RewardConfig(shaping="none", success="none", terms={"stage": 1.0, "effort": 5.0}, mixing="gdpo")
    result = RewardStage(config, GAMMA)(t)
    assert set(result.parts) == {"task"}
    assert float(result.reward.mean()) == pytest.approx(0.0, abs=1e-9)
    assert float(result.reward.std(unbiased=False)) == pytest.approx(1.0)


def test_relabelling_recomputes_both_sides_with_one_revision() -> None:
    t = lived(T=20, N=3)
    g = generator(3)
    phi, final = torch.rand(21, 3, generator=g), torch.rand(20, 3, generator=g)
    ends = (t.terminated, t.truncated)
    again = relabel(phi, *ends, ["r2"] * 63, final=final, success=t.success, terms=t.terms)
    result = RewardStage(RewardConfig(), GAMMA)(again)
    assert result.next_potential is not None
    assert torch.equal(result.next_potential[~t.ended], phi[1:][~t.ended])
    assert torch.equal(result.next_potential[t.ended], final[t.ended])
    with pytest.raises(CriticError, match=r"2 revisions of a critic \(r1, r2\)"):
        relabel(phi, *ends, ["r2"] * 62 + ["r1"], final=final)
    with pytest.raises(CriticError, match="as final"):
        relabel(phi, *ends, ["r2"])
    with pytest.raises(CriticError, match="T steps have T"):
        relabel(phi[1:], *ends, ["r2"])


def test_recorded_episodes_are_the_columns_of_a_rollout() -> None:
    g = generator()
    lengths, ends = (5, 1, 9), (True, False, True)
    phi = [torch.rand(n + 1, generator=g, dtype=torch.float64) for n in lengths]
    phi[2][3:5] = torch.nan
    done = [torch.arange(n) == n - 1 for n in lengths]
    t = relabel_episodes(phi, ends, ["r1"], success=done, terms={"effort": [p[1:] for p in phi]})
    assert tuple(t.shape) == (15, 1)
    result = RewardStage(RewardConfig(), GAMMA)(t)
    start = 0
    for values, end, finish in zip(phi, ends, done, strict=True):
        n = len(values) - 1
        alone = Transitions(
            (finish & end).unsqueeze(-1),
            (finish & (not end)).unsqueeze(-1),
            values[:-1].unsqueeze(-1),
            values[1:].unsqueeze(-1),
            success=finish.unsqueeze(-1),
        )
        own = RewardStage(RewardConfig(), GAMMA)(alone)
        assert torch.equal(result.reward[start : start + n], own.reward)
        start += n
    assert int(result.counts["replaced"]) == 2
    with pytest.raises(CriticError, match="L steps, one or more"):
        relabel_episodes([torch.rand(1)], [True], ["r1"])


@pytest.mark.parametrize("fallback", ["hold", "drop", "distilled"])
def test_nothing_is_read_back_from_a_device(fallback: str) -> None:
    """Torch's device ``meta`` has no numbers to read: asking for one raises."""
    T, N = 4, 3
    flag = torch.empty(T, N, dtype=torch.bool, device="meta")
    phi = torch.empty(T, N, device="meta")
    terms = {"stage": phi, "effort": phi}
    config = RewardConfig(fallback=fallback, terms={"effort": 1.0}, gate="stage", gate_release=0.1)
    stage = RewardStage(config, GAMMA, N)
    t = Transitions(flag, flag, phi, phi, flag, flag, phi, phi, flag, flag, terms)
    assert tuple(stage(t).reward.shape) == tuple(stage(t).valid.shape) == (T, N)
    many = torch.empty(2, T, N, device="meta")
    stage = RewardStage(RewardConfig(ensemble="lower", abstain_std=0.1, success="none"), GAMMA, N)
    assert stage(Transitions(flag, flag, many, many)).reward.device.type == "meta"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shaping": "potental"}, "unknown reward shaping 'potental'; did you mean 'potential'"),
        ({"fallback": "zero"}, "reward fallbacks: distilled, drop, hold"),
        ({"weight": -1.0}, "weight must be 0 or more; got -1.0"),
        ({"weight": float("nan")}, "weight must be a finite number"),
        ({"gamma": 1.5}, "gamma must be between 0 and 1"),
        ({"bound": "par"}, "references must be 1 to 10 values"),
        ({"abstain_std": 0.1}, "ensemble must be mean, min or lower"),
        ({"gate": "stage", "gate_release": 0.6}, r"gate_release must be at most gate_threshold \(0.5\)"),
        ({"credit": "min"}, "shaping must be value with credit=min"),
        ({"mixing": "gdpo"}, "terms must be given with mixing=gdpo"),
        ({"terms": {"effort": "much"}}, "terms must be a mapping"),
        ({"shaping": "none", "success": "none"}, "nothing would be rewarded"),
        ({"wieght": 2.0}, "unknown reward setting 'wieght'; did you mean 'weight'"),
    ],
)
def test_settings_that_cannot_work_say_what_can(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CriticError, match=message):
        RewardConfig.from_dict(settings)


def test_settings_come_from_a_configuration_file() -> None:
    from omegaconf import OmegaConf

    read = OmegaConf.create("{shaping: potential, terms: {effort: 0.1}, references: [0.5], gate_release: -.inf}")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RewardConfig), read))
    assert config == RewardConfig(terms={"effort": 0.1}, references=(0.5,), gate_release=-torch.inf)


def test_transitions_that_do_not_fit_say_why() -> None:
    no, phi = torch.zeros(3, dtype=torch.bool), torch.zeros(3)
    stage = RewardStage(RewardConfig(), GAMMA)
    for wrong, message in (
        (lambda: stage(Transitions(no, no)), "shaping=potential needs a critic's potentials"),
        (lambda: stage(Transitions(no, no, phi, phi)), "success=critic needs success, the critic's done"),
        (lambda: Transitions(no, no, phi), "belong together"),
        (lambda: Transitions(no, no, phi, phi[:2]), r"shape \(3,\) came with next_potential of shape \(2,\)"),
        (lambda: Transitions(no, no, success=phi), "success is bool, got float32; compare a probability"),
        (lambda: RewardStage(RewardConfig(), GAMMA, 4)(Transitions(no, no, phi, phi)), "follows 4 worlds"),
        (lambda: RewardStage(RewardConfig(gamma=0.99), GAMMA), "gamma 0.99, the learner discounts with 0.95"),
    ):
        with pytest.raises(CriticError, match=message):
            wrong()
    missing = RewardConfig(terms={"efort": 1.0})
    with pytest.raises(CriticError, match="unknown reward term 'efort'; did you mean 'effort'"):
        RewardStage(missing, GAMMA)(lived())
    with pytest.raises(CriticError, match="unknown reward gate 'grasp'"):
        RewardStage(RewardConfig(gate="grasp"), GAMMA)(lived())
    with pytest.raises(CriticError, match="cannot be held in rows without order"):
        stage(flat(lived(broken=0.5)))
    with pytest.raises(CriticError, match="gate_release needs steps in order"):
        RewardStage(RewardConfig(gate="stage", gate_release=0.1), GAMMA)(flat(lived()))
