"""A process critic from a vision-language model behind an OpenAI-compatible chat endpoint: vLLM and others."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from robolearn.errors import did_you_mean, unknown
from vlm_rewards.client import Client
from vlm_rewards.critic import Judged
from vlm_rewards.errors import CriticError
from vlm_rewards.limits import Limits, RequestFailed, WrongAddress
from vlm_rewards.prompted import Asking, PromptedCritic
from vlm_rewards.prompts import Prompt
from vlm_rewards.replies import Choice, read_choices, read_text, unread
from vlm_rewards.score_tokens import Labels
from vlm_rewards.wire import encoded

_log = logging.getLogger(__name__)

ANSWERS = ("expectation", "text")
_MOST_ALTERNATIVES = 20
_MODELS_SHOWN = 8


@dataclass
class Options(Asking, Limits):
    """Settings of a chat endpoint."""

    model: str | None = None
    """Name of the model; may be left out where the server has only one."""
    answer: str = "expectation"
    """How replies are read: the expectation over the tokens' probabilities, where they come along, or the text."""
    encoding: str = "png"
    """Of pictures on their way: png, which is exact, or jpeg."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More fields of each request, such as {"chat_template_kwargs": {"enable_thinking": false}}."""


class ChatCritic(PromptedCritic):
    """Asks a model behind an endpoint, one request for each prompt, several at once.

    A request that fails makes its row invalid, with the reason. Where the endpoint tells no probabilities, the text of
    the reply is read, and the confidence, which nobody knows then, is 1.

    Args:
        client: of the server's address; ``/chat/completions`` is asked below it.
        options: settings.
        model: name of the model.
    """

    def __init__(self, client: Client, options: Options, model: str) -> None:
        super().__init__(options)
        if options.answer not in ANSWERS:
            raise CriticError(unknown("answer", options.answer, ANSWERS))
        if options.encoding not in ("png", "jpeg"):
            raise CriticError(unknown("encoding", options.encoding, ("png", "jpeg")))
        self.name = model
        self._client = client
        self._encoding = options.encoding
        self._probabilities = options.answer == "expectation"
        self._body = {"model": model, "temperature": 0.0, "max_tokens": options.max_new_tokens, **options.extra}
        self.revision = self._fingerprint(client.url, sorted(self._body.items()), options.answer, options.encoding)

    def put(self, prompts: Sequence[Prompt], labels: Labels) -> Judged:
        """Ask for each prompt; the worth of each reply, the labels' share of probability, and what went wrong."""

        def one(prompt: Prompt) -> tuple[float, float, str]:
            try:
                return self._read(self._reply(prompt), labels)
            except RequestFailed as error:
                return math.nan, 0.0, str(error)

        pool = ThreadPoolExecutor(self._client.limits.concurrency)
        try:
            told = list(pool.map(one, prompts))
        finally:
            pool.shutdown(cancel_futures=True)  # a wrong key or model: do not go on asking
        values, mass, reasons = zip(*told, strict=True) if told else ((), (), ())
        return Judged(torch.tensor(values), torch.tensor(mass), list(reasons))

    def _reply(self, prompt: Prompt) -> Mapping[str, Any]:
        """The first choice of the server's reply."""
        body = {**self._body, "messages": [{"role": "user", "content": [self._part(part) for part in prompt]}]}
        with_p = {"logprobs": True, "top_logprobs": _MOST_ALTERNATIVES}
        probabilities = self._probabilities
        try:
            reply = self._client.post("/chat/completions", {**body, **with_p} if probabilities else body)
        except RequestFailed as error:
            if not probabilities or "logprobs" not in str(error):
                raise
            self._only_text(f"refuses to tell probabilities ({error})")
            reply = self._client.post("/chat/completions", body)
        choices = reply.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            raise RequestFailed("the server's reply has no choices")
        return choices[0]

    def _part(self, part: str | torch.Tensor) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        data = encoded(part.cpu().numpy(), self._encoding)
        return {"type": "image_url", "image_url": {"url": f"data:image/{self._encoding};base64,{data}"}}

    def _read(self, choice: Mapping[str, Any], labels: Labels) -> tuple[float, float, str]:
        """Worth, share of probability, and reason if there is none."""
        message = choice.get("message")
        text = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(text, str):
            raise RequestFailed("the server's reply has no text")
        tokens = _tokens(choice.get("logprobs")) if self._probabilities else None
        found = None if tokens is None else read_choices(tokens, labels)
        if tokens is None:
            self._only_text("tells no probabilities")
        if found is not None and found.chosen:
            return found.value, found.share, ""
        # A model with a habit of its own, such as +12% where +01 was asked for, is taken at its word.
        value = read_text(text, labels)
        if value is not None:
            return value, 1.0, ""
        return (math.nan, 0.0, unread(text, labels)) if found is None else (found.value, found.share, "")

    def _only_text(self, why: str) -> None:
        if self._probabilities:
            self._probabilities = False
            _log.warning("%s %s: scores are read from the text, without confidence", self._client.url, why)


def connect(client: Client, options: Options) -> ChatCritic:
    """The critic at ``client``'s address, once the server's list of models has been looked at.

    Raises:
        CriticError: nobody answers, the key or the model's name is wrong, or the model must be named.
    """
    if not client.url.rpartition("://")[2].count("/"):
        client = client.at(f"{client.url}/v1")
    listed = _listed(client)
    model = options.model
    if model is None:
        if listed is None or len(listed) != 1:
            there = ", ".join(listed[:_MODELS_SHOWN]) if listed else "it does not list them"
            raise CriticError(f"{client.url} needs model=..., one of its models: {there}")
        model = listed[0]
    elif listed and model not in listed:
        near = did_you_mean(model, listed)
        raise CriticError(f"{client.url} has no model {model!r}; {near}models: {', '.join(listed[:_MODELS_SHOWN])}")
    return ChatCritic(client, options, model)


def _listed(client: Client) -> list[str] | None:
    """Names of the server's models, or None where it does not tell."""
    try:
        data = client.get("/models").get("data")
    except (RequestFailed, WrongAddress):
        return None
    if not isinstance(data, list):
        return None
    return [str(item["id"]) for item in data if isinstance(item, Mapping) and "id" in item]


def _tokens(told: Any) -> list[Choice] | None:
    """The tokens of a reply with their alternatives, or None where they are not there or not understood."""
    content = told.get("content") if isinstance(told, Mapping) else None
    if not isinstance(content, list) or not content:
        return None
    try:
        return [_choice(token) for token in content]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _choice(token: Any) -> Choice:
    alternatives = [*(token.get("top_logprobs") or ()), token]
    return Choice(str(token["token"]), {str(t["token"]): math.exp(min(0.0, float(t["logprob"]))) for t in alternatives})
