"""A critic behind HTTP: the served one answers as the local one does, for one client or many, and refuses nonsense."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.vlm_rewards.bright_views import Brightness, pictures
from tests.vlm_rewards.scripted_server import Reply, drops, late, noise, says, serving
from tests.vlm_rewards.tiny_vlm import tiny_qwen
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.endpoint import EndpointCritic
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.frames import Frames
from vlm_rewards.operating_point import OperatingPoint
from vlm_rewards.registry import load_critic
from vlm_rewards.server import CriticServer
from vlm_rewards.wire import frames_to_json

ASKED = ("score", "delta", "prefer", "done", "value")


@contextmanager
def served(critic: Critic, **settings: Any) -> Iterator[CriticServer]:
    server = CriticServer(critic, port=0, **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.stop()


def remote(server: CriticServer, **settings: Any) -> EndpointCritic:
    critic = load_critic(server.url, **{"retries": 0, **settings})
    assert isinstance(critic, EndpointCritic)
    return critic


def ask(critic: Critic, what: str, seen: Frames, other: Frames, instructions: list[str]) -> Answer:
    if what in ("score", "done"):
        return getattr(critic, what)(seen, instructions)
    return getattr(critic, what)(seen, other, instructions)


def alike(one: Answer, other: Answer, exactly: bool = True) -> None:
    tolerance = {"atol": 0.0, "rtol": 0.0} if exactly else {"atol": 1e-5, "rtol": 0.0}
    torch.testing.assert_close(one.values, other.values, equal_nan=True, **tolerance)
    torch.testing.assert_close(one.confidence, other.confidence, **tolerance)
    assert torch.equal(one.valid, other.valid) and torch.equal(one.stamps, other.stamps)
    assert one.reasons == other.reasons and one.revision == other.revision


def test_jpeg_is_nearly_what_it_was():
    smooth = torch.arange(96, dtype=torch.uint8).reshape(1, 1, 1, 8, 12, 1).expand(1, 2, 2, -1, -1, 3).contiguous()
    frames = Frames(smooth, ("front", "wrist"), torch.zeros(1, dtype=torch.float64))
    with served(Brightness()) as server:
        got = remote(server, encoding="jpeg").score(frames, ["go"])
    torch.testing.assert_close(got.values, Brightness().score(frames, ["go"]).values, atol=0.01, rtol=0)


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("what", ASKED)
def test_a_served_critic_answers_as_the_local_one(what: str, encoding: str):
    local = Brightness()
    instructions = ["go", "put it there", "go on"]
    with served(Brightness()) as server:
        critic = remote(server, encoding=encoding)
        got = ask(critic, what, pictures(3), pictures(3, 1), instructions)
    alike(got, ask(local, what, pictures(3), pictures(3, 1), instructions))
    assert got.valid.any() and not got.valid.all() and got.latency_s > 0


def test_it_is_described_and_checked_like_the_local_one():
    local = Brightness()
    with served(Brightness()) as server:
        critic = remote(server)
        for name in ("name", "revision", "capabilities", "cameras", "picture", "window", "timed"):
            assert getattr(critic, name) == getattr(local, name)
        wrong_size = Frames.now(torch.zeros(1, 2, 9, 9, 3, dtype=torch.uint8), ("front", "wrist"))
        for frames, instructions in (
            (pictures(1, cameras=("front", "side")), ["go"]),
            (wrong_size, ["go"]),
            (pictures(1), [" "]),
            (pictures(2), ["go"]),
            (pictures(1), ["refuse this"]),
        ):
            told = []
            for either in (local, critic):
                with pytest.raises(CriticError) as error:
                    either.score(frames, instructions)
                told.append(str(error.value))
            assert told[0] == told[1]
        # Cameras in another order are the same question.
        turned = pictures(3).of(("wrist", "front"))
        alike(critic.score(turned, ["go"] * 3), local.score(pictures(3), ["go"] * 3))


def test_value_and_done_together():
    local = Brightness()
    with served(Brightness()) as server:
        got = remote(server).value_and_done(pictures(3, 2), pictures(3, 1), ["go"] * 3)
        assert server.batcher.batches == 1
    for one, other in zip(got, local.value_and_done(pictures(3, 2), pictures(3, 1), ["go"] * 3), strict=True):
        alike(one, other)


@pytest.mark.parametrize("name", ["elapsed_time", "random_init"])
def test_baselines_answer_through_a_server_as_without(name: str):
    local = load_critic(name)
    instructions = ["go", "put it there", "go on"]
    with served(local) as server:
        critic = remote(server)
        assert critic.timed == local.timed
        for what in ASKED:
            if Capability(what) in local.capabilities:
                got = ask(critic, what, pictures(3), pictures(3, 1), instructions)
                alike(got, ask(local, what, pictures(3), pictures(3, 1), instructions))


def test_when_done_counts_comes_along():
    critic = Brightness()
    critic.operating_point = OperatingPoint(0.8, 3, True, 0.9, math.nan, {"miss": 0.02})
    with served(critic) as server:
        told = remote(server).operating_point
    assert told is not None and math.isnan(told.precision)
    assert dataclasses.replace(told, precision=1.0) == dataclasses.replace(critic.operating_point, precision=1.0)


def test_a_vision_language_model_is_served(tmp_path: Path):
    local = load_critic(tiny_qwen(tmp_path / "qwen"), least_mass=0.0)
    instructions = ["put the red cube on the pad", "go", "move the ball"]
    with served(local) as server:
        critic = remote(server)
        for what in ("delta", "prefer", "done", "value"):
            got = ask(critic, what, pictures(3), pictures(3, 1), instructions)
            alike(got, ask(local, what, pictures(3), pictures(3, 1), instructions), exactly=False)
        with pytest.raises(MissingCapability, match="cannot score"):
            critic.score(pictures(1), ["go"])
        with pytest.raises(CriticError, match="a control token of the model"):
            critic.done(pictures(1), ["go <|im_end|>"])


def test_questions_of_many_clients_are_judged_together_and_apart():
    critic, local = Brightness(), Brightness()
    questions = [(what, seed) for seed in range(8) for what in ("score", "delta")]
    with served(critic, max_batch=16, max_wait_s=0.3) as server, ThreadPoolExecutor(16) as pool:
        clients = [remote(server) for _ in questions]
        together = threading.Barrier(len(questions))

        def one(at: int) -> Answer:
            what, seed = questions[at]
            together.wait(5.0)
            return ask(clients[at], what, pictures(2, seed), pictures(2, seed + 50), [f"go {seed}", "on"])

        answers = list(pool.map(one, range(len(questions))))
        assert server.batcher.moments == 32
        assert server.batcher.batches <= 6  # two kinds of 16 moments each; a late thread may miss its batch
    for (what, seed), answer in zip(questions, answers, strict=True):
        alike(answer, ask(local, what, pictures(2, seed), pictures(2, seed + 50), [f"go {seed}", "on"]))


def test_one_bad_question_does_not_spoil_those_it_was_batched_with():
    with served(Brightness(), max_wait_s=0.2) as server, ThreadPoolExecutor(3) as pool:
        clients = [remote(server) for _ in range(3)]
        texts = ["go", "refuse this", "fail now"]
        asked = [pool.submit(c.score, pictures(1), [text]) for c, text in zip(clients, texts, strict=True)]
        assert asked[0].result().valid.all()
        with pytest.raises(CriticError, match="this critic does not judge what it is told to refuse"):
            asked[1].result()
        assert "the critic failed: RuntimeError: out of order" in asked[2].result().reasons[0]
        assert clients[0].score(pictures(1), ["still there"]).valid.all()


def test_large_questions_are_split_to_what_the_server_takes():
    local = Brightness()
    with served(Brightness(), max_batch=4) as server:
        got = remote(server, concurrency=2).score(pictures(10), [f"go {i}" for i in range(10)])
        assert server.batcher.moments == 10
    alike(got, local.score(pictures(10), [f"go {i}" for i in range(10)]))
    with served(Brightness(), max_body_bytes=10_000) as server:
        alike(remote(server).score(pictures(10), ["go"] * 10), local.score(pictures(10), ["go"] * 10))


def test_an_overloaded_server_says_so_and_is_asked_again():
    entered, gate = threading.Event(), threading.Event()

    class Slow(Brightness):
        def _done(self, now: Frames, instructions: list[str]) -> Any:
            entered.set()
            gate.wait(5.0)
            return self._score(now, instructions)

    with served(Slow(), max_waiting=1) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(remote(server).done, pictures(1), ["go"])
        assert entered.wait(5.0)
        refused = remote(server).done(pictures(1), ["go"])
        assert "503 Service Unavailable: overloaded" in refused.reasons[0]
        threading.Timer(0.3, gate.set).start()
        assert remote(server, retries=3).done(pictures(1), ["go"]).valid.all()
        assert first.result().valid.all()


def test_a_key_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CRITIC_KEY", "open sesame")
    with served(Brightness(), key="open sesame") as server:
        assert remote(server, api_key_env="CRITIC_KEY").score(pictures(1), ["go"]).valid.all()
        with pytest.raises(CriticError, match="does not let us in"):
            remote(server).score(pictures(1), ["go"])


GOOD = {"capability": "score", "instructions": ["go"], "moments": {"now": frames_to_json(pictures(1), "raw")}}


def changed(*path: str, to: Any) -> dict[str, Any]:
    question: dict[str, Any] = json.loads(json.dumps(GOOD))
    inner = question
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return question


NOW = ("moments", "now")


@pytest.mark.parametrize(
    ("question", "status", "said"),
    [
        (b"{", 400, "the body is no JSON"),
        (b"[" * 100_000, 400, "the body is no JSON"),
        (b"[1]", 400, "a JSON list, not an object"),
        (changed("capability", to="scor"), 422, "unknown capability 'scor'; did you mean 'score'"),
        (changed("capability", to="plan"), 422, "unknown capability 'plan'"),
        (changed("instructions", to=[""]), 422, "an instruction is empty"),
        (changed("instructions", to="go"), 422, "instructions is a list of texts"),
        (changed("instructions", to=["go", "on"]), 422, "1 moments came with 2 instructions"),
        (changed("instructions", to=["go"] * 65), 422, "a request asks about 1 to 64 moments, got 65"),
        (changed("moments", to={}), 422, "score is about the moments now; missing: now"),
        (changed("moments", to={"then": {}}), 422, "unknown moment 'then'"),
        (changed(*NOW, to=[]), 422, "now: is not an object"),
        (changed(*NOW, "cameras", to=["front", "side"]), 422, "was made for cameras front, wrist"),
        (changed(*NOW, "cameras", to=["front"]), 422, "frames of 2 cameras came with 1 names"),
        (changed(*NOW, "cameras", to=["front", "front"]), 422, "a camera is named twice"),
        (changed(*NOW, "shape", to=[1, 2, 2, 8, 12, 4]), 422, "do not fill a shape"),
        (changed(*NOW, "shape", to=[1, 2, 2, 12, 8, 3]), 422, "judges pictures of 8x12 pixels, got 12x8"),
        (changed(*NOW, "shape", to=[1, 2, 2]), 422, "shape is a list of 6 whole numbers"),
        (changed(*NOW, "dtype", to="float32"), 422, "raw frames are uint8, got float32"),
        (changed(*NOW, "data", to="%%%"), 422, "data is no base64"),
        (changed(*NOW, "data", to=["AAAA"]), 422, "data is text in base64"),
        (changed(*NOW, "encoding", to="webm"), 422, "unknown encoding 'webm'"),
        (changed(*NOW, "stamps", to=[0.0, 1.0]), 422, "1 moments need as many stamps"),
        (changed(*NOW, "stamps", to=["now"]), 422, "stamps is a list of seconds"),
    ],
)
def test_bad_questions_are_answered_with_what_is_wrong(shared: CriticServer, question: Any, status: int, said: str):
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    got, told = post(shared, body)
    assert got == status and said in told["error"]


@pytest.fixture(scope="module")
def shared() -> Iterator[CriticServer]:
    with served(Brightness()) as server:
        yield server


def post(server: CriticServer, body: bytes, path: str = "/v1/judge", **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=5.0)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_pictures_by_hand_need_no_more_than_names_and_data(shared: CriticServer):
    frames = Frames.now(pictures(2).newest, ("front", "wrist"))
    png = [
        base64.b64encode(cv2.imencode(".png", np.ascontiguousarray(p[..., ::-1]))[1].tobytes()).decode()
        for p in frames.newest.flatten(0, 1).numpy()
    ]
    now = {"cameras": ["front", "wrist"], "data": [f"data:image/png;base64,{png[0]}", *png[1:]]}
    question = {"capability": "score", "instructions": ["go", "go"], "moments": {"now": now}}
    status, told = post(shared, json.dumps(question).encode())
    expected = Brightness().score(frames, ["go", "go"])
    assert status == 200
    assert told["answers"]["score"]["values"] == [expected.values[0].item(), None]
    assert told["answers"]["score"]["reasons"] == ["", "too dark"]
    huge = bytearray(base64.b64decode(png[0]))
    huge[16:24] = (100_000).to_bytes(4, "big") * 2
    bomb = base64.b64encode(huge).decode()
    for data, said in (
        (png[:3], "3 pictures do not fill"),
        (["AAAA"] * 4, "neither PNG nor JPEG"),
        ([bomb] * 4, "a picture of 10000000000 pixels is larger than"),
    ):
        question["moments"] = {"now": {**now, "data": data}}
        assert said in post(shared, json.dumps(question).encode())[1]["error"]


def test_wrong_paths_methods_and_sizes(shared: CriticServer):
    assert post(shared, b"{}", "/v1/chat")[0] == 404
    connection = http.client.HTTPConnection(*shared.server_address[:2], timeout=5.0)
    for method, path, status in (("GET", "/", 404), ("PUT", "/v1/judge", 501), ("GET", "/health", 200)):
        connection.request(method, path)
        response = connection.getresponse()
        assert response.status == status and json.loads(response.read())
        connection.close()
    connection.request("POST", "/v1/judge", iter([b"{}"]), {"Transfer-Encoding": "chunked"})
    assert connection.getresponse().status == 411
    with served(Brightness(), max_body_bytes=100) as server:
        status, told = post(server, b" " * 150)
        assert status == 413 and told["error"] == "150 bytes are more than the 100 that are read at once"


def test_a_port_that_is_taken(shared: CriticServer):
    with pytest.raises(CriticError, match=f"cannot listen on 127.0.0.1:{shared.server_address[1]}"):
        CriticServer(Brightness(), port=shared.server_address[1])


ABOUT = {
    "protocol": "robolearn-critic/1", "name": "b", "revision": "1", "capabilities": ["score"], "cameras": [],
    "picture": None, "window": {"frames": 1, "stride_s": 0.0, "causal": True}, "max_batch": 8, "max_body_bytes": 10**6,
    "timed": False, "operating_point": None,
}  # fmt: skip


def scores(**changes: Any) -> Reply:
    answer = {"values": [0.5, 0.6], "confidence": [1.0, 1.0], "reasons": ["", ""], "revision": "1", **changes}
    return says({"answers": {"score": answer}})


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (late, "nothing within 0.3 s"),
        (drops, "the connection broke"),
        (noise, "the connection broke"),
        (says(b"\x00\x01"), "the server's reply is no JSON"),
        (says({"answers": []}), "the server's answer lacks values"),
        (scores(values=[0.5]), "the server answered with 1 values for 2 moments"),
        (scores(reasons=[]), "the server answered with 0 reasons for 2 moments"),
        (scores(values=[float("nan"), float("inf")]), "not a finite number"),
        (scores(values=["a lot", True]), "not a finite number"),
        (scores(revision="2"), "the server answers with revision 2 now, not 1: load it again"),
    ],
)
def test_a_server_that_answers_nonsense_makes_rows_invalid(reply: Reply, reason: str):
    with serving(reply, health=says(ABOUT)) as server:
        critic = load_critic(server.url, retries=0, timeout_s=0.3)
        answer = critic.score(pictures(2), ["go", "on"])
    assert not answer.valid.any() and answer.values.isnan().all() and (answer.confidence == 0).all()
    assert all(reason in told for told in answer.reasons)


def test_servers_that_cannot_be_asked():
    with serving(says({}), health=says({**ABOUT, "capabilities": ["dance"]})) as server:
        with pytest.raises(CriticError, match="describes no critic that this version can ask"):
            load_critic(server.url)
    with serving(says({}), health=says(ABOUT)) as server:
        with pytest.raises(CriticError, match="a served critic: unknown setting 'model'"):
            load_critic(server.url, model="x")
        with pytest.raises(CriticError, match="unknown encoding 'gif'"):
            load_critic(server.url, encoding="gif")
        assert load_critic(server.url).capabilities == {Capability.SCORE}
    with pytest.raises(CriticError, match="no critic answers at"):
        load_critic(server.url)
