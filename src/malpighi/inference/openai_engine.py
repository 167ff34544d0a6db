"""Generation by a server that speaks the OpenAI chat protocol: vLLM, SGLang, or a hosted model."""

import base64
import io
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import httpx
from PIL import Image

from malpighi.errors import ConfigError, UserError
from malpighi.inference.engine import Completion, Sampling, failed
from malpighi.inference.openai_reply import Answer, Fatal, Reply, Retry, read_reply, wait_before
from malpighi.models.prompt import Prompt

_MOST_BYTES = 64 * 2**20
"""Of one reply: no completion is as long, and an endless one must not fill the memory."""


@dataclass(frozen=True)
class Server:
    """Where the model is served, and how patiently it is asked.

    Attributes:
        base_url: up to and including the version, e.g. `http://localhost:8000/v1`.
        model: the name under which the server offers the model.
        api_key: sent as a bearer token; "" for none. Never shown and never stored.
        concurrency: requests under way at once.
        timeout: seconds after which a request without its whole reply counts as failed.
        attempts: tries per request, the first included.
        backoff: seconds before the second try, at most; doubles with each further one.
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


class Spent(NamedTuple):
    """What a server was asked and says it has used: requests with their retries, and tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class OpenAIEngine:
    """Sends each prompt as one chat request, images as PNG, several requests at once.

    What may pass (a busy or failing server, a reply that is cut off or no completion, no reply in time) is
    tried again with growing waits, at most `attempts` times in all; then it is that prompt's failure. A wrong
    key, an unknown model or a spent quota concerns every prompt and ends the call at once.

    A server resizes images by its own processor settings. Ours already have the sides it wants, so it leaves
    them alone, unless they have fewer pixels than its lower bound (3,136 in Qwen2.5-VL's published settings,
    65,536 in Qwen3-VL's); then it scales them up, which costs tokens and, for Qwen2.5-VL, moves the pixels
    that boxes are counted in. Lower the bound on the server (`size.shortest_edge`) where that matters.

    Args:
        server: whom to ask.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._spent = Spent()
        self._guard = threading.Lock()

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """The certificates that are trusted; reading them takes a tenth of a second, once."""
        return httpx.create_ssl_context()

    @property
    def spent(self) -> Spent:
        """Used since the engine was made, failed tries included."""
        return self._spent

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`.

        Raises:
            UserError: the server cannot be reached, refuses the key, or does not know the model.
        """
        done = dict(self.each(prompts, sampling))
        return [done[index] for index in range(len(prompts))]

    def each(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Every prompt's index with its completion, as they arrive; raises as `generate`."""
        if not prompts:
            return
        headers = {"Authorization": f"Bearer {self._server.api_key}"} if self._server.api_key else {}
        stop = threading.Event()
        pool = ThreadPoolExecutor(min(self._server.concurrency, len(prompts)))
        with httpx.Client(headers=headers, timeout=self._server.timeout, verify=self._trust) as client:
            call = _Call(client, self._server, stop, self._count)
            futures = {
                pool.submit(call.complete, prompt, sampling): index for index, prompt in enumerate(prompts)
            }
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                stop.set()  # nobody waits for another try; what is under way ends with its own timeout
                pool.shutdown(wait=True, cancel_futures=True)

    def _count(self, answer: Answer | Retry | Fatal) -> None:
        with self._guard:
            was = self._spent
            self._spent = Spent(
                was.requests + 1,
                was.prompt_tokens + answer.prompt_tokens,
                was.completion_tokens + answer.completion_tokens,
            )


@dataclass(frozen=True)
class _Call:
    """What the threads of one call share."""

    client: httpx.Client
    server: Server
    stop: threading.Event
    count: Callable[[Answer | Retry | Fatal], None]

    def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The completion of one prompt, after as many tries as it takes and may take."""
        body = {
            "model": self.server.model,
            "messages": messages(prompt),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        attempt = 0
        while not self.stop.is_set():
            attempt += 1
            reply = self._post(body)
            read = read_reply(reply)
            self.count(read)
            if isinstance(read, Answer):
                return read.completion
            if isinstance(read, Fatal):
                where = f"{self.server.base_url} (model '{self.server.model}')"
                raise UserError(f"{where} {read.reason}")
            if attempt == self.server.attempts:
                return self._given_up(reply, read)
            self.stop.wait(wait_before(read, attempt, self.server.backoff))
        return failed("the call was ended before this prompt was answered")

    def _post(self, body: dict[str, Any]) -> Reply | httpx.TransportError:
        """The reply as far as it came within the timeout; httpx alone bounds only the silence in between."""
        url = f"{self.server.base_url.rstrip('/')}/chat/completions"
        clock = _Deadline(self.server.timeout)
        try:
            with self.client.stream("POST", url, json=body) as response:
                data = bytearray()
                for piece in response.iter_bytes():
                    data += piece
                    clock.check(len(data))
            return Reply(response.status_code, response.headers.get("retry-after", ""), bytes(data))
        except httpx.TransportError as error:
            return error
        except httpx.DecodingError as error:  # a compressed body that is damaged
            return httpx.ReadError(str(error))

    def _given_up(self, reply: Reply | httpx.TransportError, read: Retry) -> Completion:
        tries = f"after {self.server.attempts} tries"
        if isinstance(reply, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
            raise UserError(
                f"cannot reach {self.server.base_url} {tries}: {reply}; start the server or mend base_url"
            )
        return failed(f"{read.reason} {tries}{': ' if read.detail else ''}{read.detail}")


class _Deadline:
    """Ends a reply that comes too slowly or never ends."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self, length: int) -> None:
        if time.monotonic() > self._end:
            raise httpx.ReadTimeout(f"the reply was not whole within {self._seconds:g} s")
        if length > _MOST_BYTES:
            raise httpx.ReadError(f"the reply is longer than {_MOST_BYTES // 2**20} MiB")


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
