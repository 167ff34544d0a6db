"""Generation by a server that speaks the OpenAI chat protocol: vLLM, SGLang, or a hosted model."""

import base64
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from malpighi.errors import ConfigError, UserError
from malpighi.inference.engine import Completion, Finish, Sampling, failed
from malpighi.models.prompt import Prompt

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers of a server that is busy or starting: worth another try."""

_LONGEST_WAIT = 60.0
"""Seconds; also bounds what a server asks for in Retry-After."""


@dataclass(frozen=True)
class Server:
    """Where the model is served, and how patiently it is asked.

    Attributes:
        base_url: up to and including the version, e.g. `http://localhost:8000/v1`.
        model: the name under which the server offers the model.
        api_key: sent as a bearer token; "" for none. Never shown and never stored.
        concurrency: requests under way at once.
        timeout: seconds without an answer after which a request counts as failed.
        attempts: tries per request, the first included.
        backoff: seconds before the second try; doubles with each further one.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    concurrency: int = 8
    timeout: float = 300.0
    attempts: int = 5
    backoff: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an address or numbers that cannot work."""
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"base_url '{self.base_url}' is no web address; write for example http://localhost:8000/v1"
            )
        if self.concurrency < 1 or self.attempts < 1:
            raise ConfigError(
                f"concurrency={self.concurrency} and attempts={self.attempts} must both be at least 1"
            )
        if self.timeout <= 0 or self.backoff < 0:
            raise ConfigError(
                f"timeout={self.timeout} must be above 0 and backoff={self.backoff} must not be negative"
            )


class OpenAIEngine:
    """Sends each prompt as one chat request, images as PNG, several requests at once.

    A server resizes images by its own processor settings. Ours already have the sides it wants, so it leaves
    them alone, unless they have fewer pixels than its lower bound (3,136 in Qwen2.5-VL's published settings,
    65,536 in Qwen3-VL's); then it scales them up, which costs tokens and, for Qwen2.5-VL, moves the pixels
    that boxes are counted in. Lower the bound on the server (`size.shortest_edge`) where that matters.

    Args:
        server: whom to ask.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`.

        Raises:
            UserError: the server cannot be reached, refuses the key, or does not know the model.
        """
        if not prompts:
            return []
        headers = {"Authorization": f"Bearer {self._server.api_key}"} if self._server.api_key else {}
        workers = min(self._server.concurrency, len(prompts))
        with (
            httpx.Client(headers=headers, timeout=self._server.timeout) as client,
            ThreadPoolExecutor(workers) as pool,
        ):
            futures = [pool.submit(self._one, client, prompt, sampling) for prompt in prompts]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, client: httpx.Client, prompt: Prompt, sampling: Sampling) -> Completion:
        body = {
            "model": self._server.model,
            "messages": messages(prompt),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        for attempt in range(1, self._server.attempts + 1):
            reply = self._post(client, body)
            if isinstance(reply, httpx.Response) and reply.status_code not in _PASSING:
                return self._read(reply)
            if attempt < self._server.attempts:
                time.sleep(self._wait(reply, attempt))
        return self._given_up(reply)

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> httpx.Response | httpx.TransportError:
        url = f"{self._server.base_url.rstrip('/')}/chat/completions"
        try:
            return client.post(url, json=body)
        except httpx.TransportError as error:
            return error

    def _wait(self, reply: httpx.Response | httpx.TransportError, attempt: int) -> float:
        """Seconds before the next try: what the server asks for, else doubling."""
        asked = reply.headers.get("retry-after", "") if isinstance(reply, httpx.Response) else ""
        if asked.isdigit():
            return min(float(asked), _LONGEST_WAIT)
        return min(self._server.backoff * 2.0 ** (attempt - 1), _LONGEST_WAIT)

    def _given_up(self, reply: httpx.Response | httpx.TransportError) -> Completion:
        tries = f"after {self._server.attempts} tries"
        if isinstance(reply, httpx.Response):
            return failed(f"the server answered {reply.status_code} {tries}: {reply.text[:200]}")
        if isinstance(reply, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
            raise UserError(
                f"cannot reach {self._server.base_url} {tries}: {reply}; start the server or mend base_url"
            )
        return failed(f"{type(reply).__name__} {tries}: {reply}")

    def _read(self, reply: httpx.Response) -> Completion:
        where = f"{self._server.base_url} (model '{self._server.model}')"
        if reply.status_code in (401, 403):
            raise UserError(f"{where} refuses the API key ({reply.status_code}); check the key")
        if reply.status_code == 404:
            raise UserError(
                f"{where} was not found (404): {reply.text[:200]}; check that base_url ends in /v1 and that "
                "the server offers a model of that name"
            )
        if not reply.is_success:
            return failed(f"the server answered {reply.status_code}: {reply.text[:200]}")
        try:
            return _completion(reply.json())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            return failed(f"the server's reply is not a chat completion ({reason}): {reply.text[:200]}")


def messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt as chat messages; images stand before the words of their user turn, as in training."""
    sent: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for index, turn in enumerate(prompt.turns):
        shown = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}}
            for image in prompt.images_before(index)
        ]
        content = [*shown, {"type": "text", "text": turn.text}] if shown else turn.text
        sent.append({"role": turn.role, "content": content})
    return sent


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _completion(body: dict[str, Any]) -> Completion:
    choice = body["choices"][0]
    message = choice["message"]
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError(f"content is {type(text).__name__}, not text")
    # Servers that parse reasoning hand it over apart from the answer; graders expect it in its tags.
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    if thought and "<think>" not in text:
        text = f"<think>{thought}</think>{text}"
    reason = choice.get("finish_reason") or "stop"
    tokens = int((body.get("usage") or {}).get("completion_tokens") or 0)
    finishes: dict[str, Finish] = {"stop": "stop", "length": "length"}
    if reason not in finishes:
        return Completion(text, tokens, "error", f"the server ended the completion with '{reason}'")
    return Completion(text, tokens, finishes[reason])
