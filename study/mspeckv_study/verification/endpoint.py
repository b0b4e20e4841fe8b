"""An OpenAI-compatible server on a given address, asked for completions, and nothing else.

Prompts go as token ids. Of an answer we read, in this order, ``token_ids`` (vLLM's, asked for by
``return_token_ids``), the ids in ``logprobs.content`` (llama.cpp's), the pieces in
``logprobs.tokens``, and the text's characters; what is not an id stands as a number made of it,
which is enough to compare two servers.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from mspeckv.settings import Sampling
from mspeckv_study.verification.engine import Engine, Said

SECONDS = 120.0
"""That an answer may take."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Nothing is sent to another address than the given one."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint(Engine):
    """A server.

    Args:
        address: with or without ``/v1``; ``#MODEL`` at its end names the model.

    Attributes:
        needs_ids: an answer without token ids is refused.
    """

    ignores_unknown = True

    def __init__(self, address: str) -> None:
        self.name, self.needs_ids = address, False
        address, _, self.model = address.partition("#")
        self._url = address.rstrip("/").removesuffix("/v1") + "/v1/completions"
        # no proxy of the environment either
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirect()
        ).open

    def greet(self) -> None:
        """Ask for one token."""
        self.say([1], Sampling(temperature=0), 1)

    def say(self, prompt: list[int], sampling: Sampling, n: int, logprobs: bool = False) -> Said:
        """As of `Engine`; `ValueError` where it is not there, or answers wrongly."""
        (said,) = self._ask(prompt, sampling, n, logprobs)
        return said

    def rows(self, prompt: list[int], sampling: Sampling, n: int, count: int) -> list[Said]:
        """As of `Engine`."""
        return self._ask([prompt] * count, sampling, n, False, count)

    def _ask(
        self, prompt: Any, sampling: Sampling, n: int, logprobs: bool, count: int = 1
    ) -> list[Said]:
        asked: dict[str, Any] = {
            "prompt": prompt, "max_tokens": n, "temperature": sampling.temperature,
            "top_p": sampling.top_p, "seed": sampling.seed, "logprobs": 1,
            "return_token_ids": True, "ignore_eos": not sampling.stop_at_eos,
            # said also where they are off: a server's own defaults may be others
            "top_k": sampling.top_k, "min_p": sampling.min_p,
        }  # fmt: skip
        if self.model:
            asked["model"] = self.model
        if sampling.stop_strings:
            asked["stop"] = list(sampling.stop_strings)
        if sampling.stop_tokens:
            asked["stop_token_ids"] = list(sampling.stop_tokens)
        if sampling.repetition_penalty != 1:
            asked["repetition_penalty"] = sampling.repetition_penalty
        choices = self._post(asked).get("choices")
        if not isinstance(choices, list) or len(choices) != count:
            raise ValueError(f"{self.name}: the answer has no list of {count} choices")
        try:
            return [self._said(one, n, logprobs) for one in choices]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.name}: the answer is no completion ({error})") from None

    def _said(self, choice: dict[str, Any], n: int, logprobs: bool) -> Said:
        told: dict[str, Any] = choice.get("logprobs") or {}
        content: list[dict[str, Any]] = told.get("content") or []
        ids = choice.get("token_ids") or [one["id"] for one in content]
        if len(ids) > n:
            raise ValueError(f"{len(ids)} tokens, where {n} were asked for")
        text = told.get("tokens") or choice["text"]
        if not ids and text and self.needs_ids:
            raise ValueError("it tells no token ids; use --against with another server")
        held: Any = told.get("token_logprobs") or [one["logprob"] for one in content]
        return Said(
            tuple(int(one) for one in ids) or tuple(_number(piece) for piece in text),
            logprobs=tuple(float(one) for one in held) if logprobs else (),
        )

    def _post(self, asked: dict[str, Any]) -> dict[str, Any]:
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url, json.dumps(asked).encode(), kind)
        try:
            with self._open(request, timeout=SECONDS) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(f"{self.name}: it answers {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ValueError(f"{self.name}: nobody answers there ({reason})") from None
        except ValueError:
            raise ValueError(f"{self.name}: the answer is not JSON") from None
        if not isinstance(found, dict):
            raise ValueError(f"{self.name}: the answer is no JSON object")
        return found


def _number(piece: str) -> int:
    """A whole number that stands for a piece of text, the same in every run."""
    return int.from_bytes(hashlib.sha256(piece.encode()).digest()[:6])
