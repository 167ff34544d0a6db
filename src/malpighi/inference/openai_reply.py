"""What a reply of a chat server means: an answer, worth another try, or the end of the whole call."""

import json
import random
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from malpighi.inference.engine import Completion, Finish, failed

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers of a server that is busy or starting: worth another try."""

_FOR_ALL = frozenset(
    {"invalid_api_key", "incorrect_api_key", "model_not_found", "invalid_model", "insufficient_quota"}
)
"""Codes of errors that every further prompt would meet too, whatever the status."""

_LONGEST_WAIT = 60.0
"""Seconds; also bounds what a server asks for in Retry-After."""

_SHOWN = 200
"""Characters of a reply that a message repeats."""


class Reply(NamedTuple):
    """What came over the wire: status, the header Retry-After ("" for none), the body."""

    status: int
    retry_after: str
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        return self.body[: 4 * _SHOWN].decode(errors="replace")[:_SHOWN]


class Answer(NamedTuple):
    """The server has answered: a completion, which may be a failure that no other try would change."""

    completion: Completion
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Retry(NamedTuple):
    """Another try may go better: why, more about it, and the seconds that the server asks to wait for."""

    reason: str
    detail: str = ""
    wait: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Fatal(NamedTuple):
    """No prompt can be answered."""

    reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_reply(reply: Reply | httpx.TransportError) -> Answer | Retry | Fatal:
    """What a reply, or its absence, means."""
    if not isinstance(reply, Reply):
        return Retry(type(reply).__name__, str(reply))
    body = _json(reply.body)
    fatal = _fatal(reply, body)
    if fatal:
        return Fatal(fatal)
    if reply.status in _PASSING:
        return Retry(f"the server answered {reply.status}", reply.text, _asked_wait(reply.retry_after))
    if not 200 <= reply.status < 300:
        return Answer(failed(f"the server answered {reply.status}: {reply.text}"))
    prompt_tokens, completion_tokens = _usage(body)
    try:
        completion = _completion(body)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"the server's reply is not a chat completion ({type(error).__name__}: {error})"
        return Retry(reason, reply.text, None, prompt_tokens, completion_tokens)
    if isinstance(completion, str):
        return Retry(completion, reply.text, None, prompt_tokens, completion_tokens)
    return Answer(completion, prompt_tokens, completion_tokens)


def wait_before(read: Retry, attempt: int, backoff: float) -> float:
    """Seconds to wait after try number `attempt`.

    At least what the server asks for, else doubling, between the half and the whole of it at random, so that
    many clients of one server do not come back all at once; at most a minute.
    """
    scatter = random.random()
    if read.wait is not None:
        return min(read.wait + scatter * backoff / 2, _LONGEST_WAIT)
    return min(backoff * 2.0 ** (attempt - 1), _LONGEST_WAIT) * (0.5 + scatter / 2)


def _fatal(reply: Reply, body: Any) -> str:
    if reply.status in (401, 403):
        return f"refuses the API key ({reply.status}); check the key"
    if reply.status == 404:
        return (
            f"was not found (404): {reply.text}; check that base_url ends in /v1 and that the server offers "
            "a model of that name"
        )
    error = body.get("error") if isinstance(body, dict) else None
    named = {str(error.get(name)) for name in ("code", "type")} if isinstance(error, dict) else set()
    if named & _FOR_ALL:
        return f"answers '{min(named & _FOR_ALL)}': {reply.text}; mend key, model or account"
    return ""


def _asked_wait(header: str) -> float | None:
    """Seconds from Retry-After: a number, or a date."""
    if header.replace(".", "", 1).isdecimal():
        return float(header)
    try:
        return max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _usage(body: Any) -> tuple[int, int]:
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return 0, 0
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    told = [count if isinstance(count, int) and count > 0 else 0 for count in counts]
    return told[0], told[1]


def _completion(body: Any) -> Completion | str:
    """The completion, or why this is none although it has the form of one."""
    if body is None:
        raise ValueError("the body is not JSON")
    choices = body["choices"]
    if not isinstance(choices, list) or len(choices) != 1:
        raise ValueError("expected a list of one choice")
    choice = choices[0]
    message = choice["message"]
    tokens = int((body.get("usage") or {}).get("completion_tokens") or 0)
    if message.get("refusal"):
        return "the model refused"
    # Servers that parse reasoning hand it over apart from the answer; graders expect it in its tags.
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    text = message.get("content")
    if text is None and not thought:
        return "the completion has no content"
    text = "" if text is None else text
    if not isinstance(text, str):
        raise TypeError(f"content is {type(text).__name__}, not text")
    if thought and "<think>" not in text:
        text = f"<think>{thought}</think>{text}"
    return _finished(text, tokens, choice.get("finish_reason") or "stop")


def _finished(text: str, tokens: int, reason: str) -> Completion:
    finishes: dict[str, Finish] = {"stop": "stop", "length": "length"}
    if reason not in finishes:
        return Completion(text, tokens, "error", f"the server ended the completion with '{reason}'")
    return Completion(text, tokens, finishes[reason])
