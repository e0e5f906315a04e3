"""Critics behind OpenAI-compatible endpoints, asked over a real connection to a server that says what a test wants."""

from __future__ import annotations

import base64
import math
import threading
import time
from typing import Any

import cv2
import numpy as np
import pytest

from tests.vlm_rewards.bright_views import pictures
from tests.vlm_rewards.scripted_server import (
    Handler,
    Reply,
    ScriptedServer,
    drips,
    drops,
    drops_midway,
    late,
    noise,
    says,
    serving,
)
from vlm_rewards.critic import Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.registry import load_critic

GO = ["put the red cube on the pad"]
MODELS = says({"data": [{"id": "judge"}]})
FAST = {"retries": 0, "backoff_s": 0.01}


def chat(text: str, *tokens: tuple[str, dict[str, float]], usage: tuple[int, int] | None = (100, 2)) -> Reply:
    """A reply of a chat model, with the probabilities of the likeliest tokens at each place where given."""
    content = [
        {
            "token": chosen,
            "logprob": math.log(p[chosen]),
            "top_logprobs": [{"token": t, "logprob": math.log(q)} for t, q in p.items()],
        }
        for chosen, p in tokens
    ]
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "logprobs": None}
    if content:
        choice["logprobs"] = {"content": content}
    counted = {} if usage is None else {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    return says({"choices": [choice], **counted})


HALF = chat("10", ("10", {"10": 1.0}))


def asked(*replies: Reply, models: Reply = MODELS) -> Any:
    return serving(*replies, health=says({}, 404), v1__models=models)


def critic_at(server: ScriptedServer, **settings: Any) -> Critic:
    return load_critic(f"{server.url}/v1", **{**FAST, **settings})


def value(critic: Critic, rows: int = 1) -> Any:
    return critic.value(pictures(rows), pictures(rows, 1), GO * rows)


def test_a_question_carries_the_pictures_and_the_reply_becomes_an_expectation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    reply = chat("12", ("12", {"12": 0.5, "08": 0.25, "20": 0.15, "maybe": 0.1}))
    with asked(reply) as server:
        critic = critic_at(server, api_key_env="JUDGE_KEY")
        now, start = pictures(1), pictures(1, 1)
        answer = critic.value(now, start, GO)
    assert critic.name == "judge"
    assert answer.values[0].item() == pytest.approx((0.5 * 0.6 + 0.25 * 0.4 + 0.15 * 1.0) / 0.9)
    assert answer.confidence[0].item() == pytest.approx(0.9)
    assert answer.revision == critic.revision and answer.stamps.tolist() == [1.0]
    path, headers, body = server.asked[-1]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sk-secret"
    assert body["model"] == "judge" and body["logprobs"] and body["temperature"] == 0
    parts = body["messages"][0]["content"]
    assert GO[0] in parts[0]["text"] and "from 00 to 20" in parts[-1]["text"]
    shown = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    expected = [*start.newest[0], *now.newest[0]]
    assert len(shown) == len(expected)
    for url, picture in zip(shown, expected, strict=True):
        data = np.frombuffer(base64.b64decode(url.removeprefix("data:image/png;base64,")), np.uint8)
        assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], picture.numpy())


def test_digits_that_come_one_by_one_are_followed():
    # 1 then 2: twelve of twenty. Where 0 was not chosen, 00 to 09 share its probability.
    reply = chat("12", ("1", {"1": 0.6, "0": 0.4}), ("2", {"2": 0.7, "3": 0.2, "x": 0.1}))
    with asked(reply) as server:
        answer = value(critic_at(server))
    mass = 0.4 + 0.6 * 0.9
    expected = (0.4 * 4.5 / 20 + 0.6 * 0.7 * 12 / 20 + 0.6 * 0.2 * 13 / 20) / mass
    assert answer.values[0].item() == pytest.approx(expected)
    assert answer.confidence[0].item() == pytest.approx(mass)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 0.6),
        ("<score>15</score>", 0.75),
        ("The score is 15.", 0.75),
        ("<think>3 of 4 steps</think> 75%", 0.75),
        ("15 or 16", None),
        ("about 30", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_where_no_probabilities_come_the_text_is_read(text: str, expected: float | None):
    with asked(chat(text)) as server:
        answer = value(critic_at(server))
    if expected is None:
        assert not answer.valid[0] and "holds no answer from 00 to 20" in answer.reasons[0]
    else:
        assert answer.values[0].item() == pytest.approx(expected) and answer.confidence[0] == 1.0


def test_all_kinds_of_question():
    with asked(chat("+05", ("+", {"+": 0.9, "-": 0.1}), ("0", {"0": 1.0}), ("5", {"5": 1.0}))) as server:
        answer = critic_at(server).delta(pictures(1), pictures(1, 1), GO)
        mean_of_minus = sum(-k / 10 for k in range(11)) / 11
        assert answer.values[0].item() == pytest.approx(0.9 * 0.5 + 0.1 * mean_of_minus)
    with asked(chat("Yes", (" Yes", {" Yes": 0.7, "No": 0.2, "Not": 0.1}))) as server:
        assert critic_at(server).done(pictures(1), GO).values[0].item() == pytest.approx(0.7 / 0.9)
    one, two = chat("2", ("2", {"2": 0.8, "1": 0.2})), chat("2", ("2", {"2": 0.6, "1": 0.4}))
    with asked(one, two) as server:
        answer = critic_at(server, concurrency=1).prefer(pictures(1), pictures(1, 1), GO)
        assert answer.values[0].item() == pytest.approx((0.8 + 0.4) / 2)


def test_a_model_with_a_habit_of_its_own_is_taken_at_its_word():
    # Trained to write percentages, it does so whatever it is asked for.
    tokens = [
        ("<score>", {"<score>": 0.9}),
        ("+", {"+": 0.8, "-": 0.2}),
        ("2", {"2": 0.9, "0": 0.1}),
        ("0%", {"0%": 1.0}),
    ]
    with asked(chat("<score>+20%</score>", *tokens, ("</score>", {"</score>": 1.0}))) as server:
        answer = critic_at(server).delta(pictures(1), pictures(1, 1), GO)
        assert answer.values[0].item() == pytest.approx(0.2) and answer.confidence[0] == 1.0
        percent = critic_at(server, scale="percent").delta(pictures(1), pictures(1, 1), GO)
    minus = sum(-k / 10 for k in range(1, 11)) / 10
    # +2 can only become +20%; "+0" only +0%; the tag is no part of the answer.
    assert percent.values[0].item() == pytest.approx(0.8 * 0.9 * 0.2 + 0.2 * minus)
    assert percent.confidence[0].item() == pytest.approx(1.0)
    with asked(chat("maybe", ("maybe", {"maybe": 0.4, "12": 0.35, "13": 0.25}))) as server:
        answer = value(critic_at(server))
        assert answer.values[0].item() == pytest.approx((0.35 * 0.6 + 0.25 * 0.65) / 0.6)


def test_an_endpoint_that_refuses_probabilities_is_asked_for_text():
    refusal = says({"error": {"message": "logprobs are not supported with this model"}}, 400)
    with asked(refusal, chat("10")) as server:
        critic = critic_at(server, concurrency=1)
        assert value(critic).values.tolist() == [0.5]
        assert value(critic).values.tolist() == [0.5]
        assert ["logprobs" in body for body in server.posts()] == [True, False, False]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (late, "nothing within 0.3 s"),
        (drips, "nothing within 0.3 s"),
        (drops, "the connection broke"),
        (drops_midway, "the connection broke"),
        (noise, "the connection broke"),
        (says(b"<html>502</html>"), "no JSON: b'<html>502</html>'"),
        (says(b"\xff\xfe\x00"), "no JSON"),
        (says([1, 2]), "a JSON list, not an object"),
        (says({"choices": []}), "has no choices"),
        (says({"choices": [{"message": {"content": None}}]}), "has no text"),
        (says({"choices": [{"message": {"content": "5"}, "logprobs": {"content": ["x"]}}]}), ""),
        (says({"error": "the context is too long"}, 400), "the context is too long"),
        (says({"error": {"message": "out of memory"}}, 500), "500 Internal Server Error: out of memory"),
        (says(b"[" * 100_000), "no JSON"),
    ],
)
def test_whatever_goes_wrong_makes_a_row_invalid_with_its_reason(reply: Reply, reason: str):
    with asked(reply) as server:
        critic = critic_at(server, timeout_s=0.3)
        started = time.monotonic()
        answer = value(critic)
        assert time.monotonic() - started < 2.0
    if reason:
        assert not answer.valid[0] and math.isnan(answer.values[0].item())
        assert reason in answer.reasons[0]
    else:  # probabilities that cannot be read leave the text
        assert answer.values.tolist() == [0.25]


@pytest.mark.parametrize("trouble", [drops, noise, says({}, 429), says({}, 503), late])
def test_what_may_pass_is_tried_again(trouble: Reply):
    with asked(trouble, trouble, HALF) as server:
        answer = value(critic_at(server, retries=2, timeout_s=0.3))
        assert answer.values.tolist() == [0.5], answer.reasons
        assert len(server.posts()) == 3
    with asked(trouble) as server:
        answer = value(critic_at(server, retries=2, timeout_s=0.1))
        assert "(3 tries)" in answer.reasons[0] and len(server.posts()) == 3


def test_retry_after_is_honoured_within_reason():
    with asked(says({}, 429, Retry_After="1"), HALF) as server:
        critic = critic_at(server, retries=1, backoff_s=0.0)
        started = time.monotonic()
        assert value(critic).values.tolist() == [0.5]
        assert time.monotonic() - started >= 1.0
    with asked(says({}, 429, Retry_After="3600"), HALF) as server:
        answer = value(critic_at(server, retries=1))
        assert "asks to wait 3600 s, longer than longest_wait_s=60" in answer.reasons[0]


def test_one_failed_row_leaves_the_others():
    refused = says({"error": "picture refused"}, 400)
    with asked(HALF, refused, HALF) as server:
        answer = value(critic_at(server, concurrency=1), rows=3)
    assert answer.valid.tolist() == [True, False, True]
    assert answer.confidence.tolist() == [1.0, 0.0, 1.0] and "picture refused" in answer.reasons[1]


def test_a_server_that_goes_away_makes_answers_invalid():
    with asked(HALF) as server:
        critic = critic_at(server, retries=1)
    answer = value(critic, rows=2)
    assert not answer.valid.any() and "Connection refused" in answer.reasons[0]


def test_requests_run_at_once_up_to_the_limit():
    together = threading.Barrier(3)

    def reply(handler: Handler) -> None:
        together.wait(5.0)  # breaks unless three requests are here at the same time
        HALF(handler)

    with asked(reply) as server:
        answer = value(critic_at(server, concurrency=3), rows=3)
    assert answer.values.tolist() == [0.5, 0.5, 0.5]


def test_requests_are_spaced_to_the_rate():
    with asked(HALF) as server:
        critic = critic_at(server, requests_per_minute=600)
        started = time.monotonic()
        assert value(critic, rows=4).valid.all()
        assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(
    ("budget", "good", "reason"),
    [
        ({"budget_requests": 2}, 2, "2 of 2 requests"),
        ({"budget_tokens": 150}, 2, "204 of 150 tokens"),
        (
            {"budget_dollars": 0.25, "dollars_per_million_in": 1000, "dollars_per_million_out": 1000},
            3,
            "0.306 of 0.25 dollars",
        ),
    ],
)
def test_a_budget_is_kept(budget: dict[str, float], good: int, reason: str):
    with asked(HALF) as server:
        critic = critic_at(server, concurrency=1, **budget)
        answer = value(critic, rows=4)
        assert answer.valid.tolist() == [row < good for row in range(4)]
        assert answer.reasons[-1] == f"the budget is used up: {reason}"
        assert not value(critic).valid[0] and len(server.posts()) == good


def test_a_budget_that_cannot_be_kept_is_an_error():
    with asked(chat("10", usage=None)) as server:
        with pytest.raises(CriticError, match="does not count tokens"):
            value(critic_at(server, budget_tokens=10))


def test_a_wrong_key_or_model_is_an_error_and_stops_everything(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with asked(says({"error": "bad key sk-secret"}, 401), models=says({}, 404)) as server:
        critic = critic_at(server, model="any", api_key_env="JUDGE_KEY", concurrency=1)
        with pytest.raises(CriticError, match=r"does not let us in \(401 Unauthorized\): the key in \$JUDGE_KEY") as e:
            value(critic, rows=20)
        assert "sk-secret" not in str(e.value) and len(server.posts()) < 5
    with asked(says({"error": "no model any"}, 404), models=says({}, 404)) as server:
        with pytest.raises(CriticError, match="no model any"):
            value(critic_at(server, model="any"))
    with asked(HALF, models=says({}, 403)) as server:
        with pytest.raises(CriticError, match="a key is needed|the key is needed"):
            critic_at(server)
    with asked(HALF, models=says({"data": [{"id": "judge-8b"}, {"id": "other"}]})) as server:
        with pytest.raises(CriticError, match="has no model 'judge-b'; did you mean 'judge-8b'"):
            critic_at(server, model="judge-b")
        with pytest.raises(CriticError, match="needs model=..., one of its models: judge-8b, other"):
            critic_at(server)


def test_a_key_that_a_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with asked(says({"error": "do not like sk-secret"}, 400)) as server:
        answer = value(critic_at(server, api_key_env="JUDGE_KEY"))
    assert "do not like ***" in answer.reasons[0]


def test_redirects_are_not_followed():
    with asked(HALF) as other, asked(says({}, 307, Location=f"{other.url}/v1/chat/completions")) as server:
        with pytest.raises(CriticError, match="redirects to"):
            value(critic_at(server))
        assert not other.posts()


@pytest.mark.parametrize(
    ("url", "settings", "told"),
    [
        ("http://127.0.0.1:9", {}, "no critic answers at http://127.0.0.1:9"),
        ("http://127.0.0.1:notaport", {}, "is no address"),
        ("http://", {}, "is no address of a critic"),
        ("http://user:pw@127.0.0.1:9", {}, "holds a password"),
        ("http://127.0.0.1:9", {"protocol": "soap"}, "unknown protocol 'soap'"),
        ("http://127.0.0.1:9", {"requests_per_minute": "many"}, "setting requests_per_minute is float or null"),
        ("http://127.0.0.1:9", {"timeout_s": 0}, "timeout_s must be positive"),
        ("http://127.0.0.1:9", {"retries": -1}, "retries must be 0 or more"),
        ("http://127.0.0.1:9", {"budget_dollars": 1}, "needs dollars_per_million_in"),
        ("http://127.0.0.1:9", {"api_key_env": "NOT_SET_HERE"}, "NOT_SET_HERE .* is not set"),
    ],
)
def test_addresses_and_settings_that_cannot_be(url: str, settings: dict[str, Any], told: str):
    with pytest.raises(CriticError, match=told):
        load_critic(url, **{**FAST, **settings})


def test_settings_of_chat_endpoints_are_checked():
    with asked(HALF) as server:
        for settings, told in (
            ({"modell": "x"}, "unknown setting 'modell'; did you mean 'model'"),
            ({"encoding": "gif"}, "unknown encoding"),
            ({"answer": "x"}, "unknown answer"),
            ({"protocol": "robolearn"}, "is no critic of protocol"),
        ):
            with pytest.raises(CriticError, match=told):
                critic_at(server, **settings)
        first = critic_at(server)
        assert first.revision == critic_at(server, timeout_s=3).revision
        assert first.revision != critic_at(server, granularity=10).revision
