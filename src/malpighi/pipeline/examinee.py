"""Who is examined: weights in a folder, a model at a server, or a script that says so."""

import os
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from malpighi.config import digest
from malpighi.errors import ConfigError, DataError, UserError
from malpighi.evaluation.majority import MODEL as MAJORITY
from malpighi.inference.chat_engine import ChatEngine
from malpighi.inference.chat_model import chat_family_in, load_chat, model_type_in
from malpighi.inference.engine import Completion, Engine, Sampling, Streaming
from malpighi.inference.openai_engine import OpenAIEngine, Server, Spent
from malpighi.inference.option_chances import WithChances
from malpighi.inference.request_cache import Cached, CacheReport
from malpighi.inference.scripted_engine import ScriptedEngine
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.families import ANY, FAMILIES
from malpighi.models.prompt import Prompt, PromptStyle
from malpighi.models.vlm import load_vlm, weights_hash
from malpighi.pipeline.exam_settings import ExamSettings
from malpighi.pipeline.folder import RunFolder

SCRIPTED = "scripted:"
ECHO = "ECHO"
_WEB = ("http://", "https://")


@dataclass(frozen=True, eq=False)
class Examinee:
    """A model before it is asked anything; weights are loaded with the first question.

    Attributes:
        name: in rows and tables.
        what: in words, for reports.
        kind: `trained` (a family that is trained here), `chat`, `endpoint`, `plug-in` or `scripted`.
        fingerprint: hash of weights, processor and dtype, or address and name at a server, or the script.
        style: how samples are put to it.
        batch_size: samples handed over at once.
        make: the engine itself.
    """

    name: str
    what: str
    kind: str
    fingerprint: str
    style: PromptStyle
    batch_size: int
    make: Callable[[], Engine]


class Asking:
    """The engine of an examination: loaded late, with chances where wanted, behind the cache.

    Args:
        examinee: who is asked.
        with_chances: whether probabilities of options are told.
        cache: the file that answers are kept in; None for none.

    Raises:
        ConfigError: chances are wanted of a model that tells none.
    """

    def __init__(self, examinee: Examinee, cache: Path | None, *, with_chances: bool = False) -> None:
        if with_chances and examinee.kind not in ("trained", "chat"):
            raise ConfigError(
                f"{examinee.what} tells no option chances; leave with_chances out, or examine weights here"
            )
        self._examinee = examinee
        self._with_chances = with_chances
        self._cache = cache

    @property
    def spent(self) -> Spent:
        """What a server has been asked; nothing where none was."""
        inner = self.__dict__.get("_inner")
        return inner.spent if isinstance(inner, OpenAIEngine) else Spent()

    @property
    def cached(self) -> CacheReport | None:
        """What the cache did; None without one."""
        engine = self.__dict__.get("_engine")
        return engine.report() if isinstance(engine, Cached) else None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`."""
        return self._engine.generate(prompts, sampling)

    def uncached(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """As `generate`, asking everything anew, to see how long it takes."""
        return self._inner.generate(prompts, sampling)

    @cached_property
    def _engine(self) -> Engine:
        if self._cache is None:
            return _Late(lambda: self._inner)
        return Cached(_Late(lambda: self._inner), self._cache, self._examinee.fingerprint)

    @cached_property
    def _inner(self) -> Engine:
        engine = self._examinee.make()
        if self._with_chances and isinstance(engine, TransformersEngine | ChatEngine):
            return WithChances(engine, engine.chances)
        return engine


class _Late:
    """An engine that is made when it is first asked."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """The answers, in the order of the prompts."""
        return self._make().generate(prompts, sampling)

    def each(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """The answers as they arrive, where the engine hands them over one by one."""
        engine = self._make()
        if isinstance(engine, Streaming):
            yield from engine.each(prompts, sampling)
        else:
            yield from enumerate(engine.generate(prompts, sampling))


def open_examinee(model: str, settings: ExamSettings) -> Examinee:
    """The model that a name means.

    Args:
        model: a folder of weights; `https://host/v1#model-name`; `package.module:function`, a function
            without arguments that returns an engine of your own; `scripted:WORDS`, which always answers these
            words, or `scripted:ECHO`, which repeats the question.
        settings: prompt, name, batch size, and how a server is asked.

    Raises:
        UserError: no such folder, a model of an unknown family, or an address without a model.
    """
    if model.startswith(SCRIPTED):
        return _scripted(model.removeprefix(SCRIPTED), settings)
    if model.startswith(_WEB):
        return _served(model, settings)
    if not Path(model).exists() and model.partition(":")[2].isidentifier():
        return _plugged_in(model, settings)
    return _weights(Path(model), settings)


def _weights(folder: Path, settings: ExamSettings) -> Examinee:
    if not folder.is_dir():
        raise DataError(
            f"no model folder {folder}; give a folder of weights, an address such as "
            f"http://localhost:8000/v1#model, or {SCRIPTED}{ECHO}"
        )
    family = chat_family_in(folder).facts
    kind = "trained" if model_type_in(folder) in FAMILIES else "chat"
    size = settings.batch_size or 8

    def make() -> Engine:
        if kind == "trained":
            vlm = load_vlm(folder, dtype=settings.dtype, device=settings.device)
            return TransformersEngine(vlm, batch_size=size)
        return ChatEngine(load_chat(folder, dtype=settings.dtype, device=settings.device), batch_size=size)

    style = settings.prompt or _trained_style(folder) or _own_style(family.name)
    if style.facts.frame is not family.frame:
        raise ConfigError(
            f"{folder} is a {family.name} model, whose boxes are in frame '{family.frame}'; prompt.family "
            f"is {style.family}; set prompt.family={family.name}"
        )
    name = folder.resolve().parent.name if folder.resolve().name == "model" else folder.resolve().name
    what = f"{family.name} weights in {folder}"
    mark = digest(weights_hash(folder), settings.dtype)
    return Examinee(_named(settings, name), what, kind, mark, style, size, make)


def _served(address: str, settings: ExamSettings) -> Examinee:
    base_url, _, model = address.partition("#")
    if not model:
        raise ConfigError(
            f"{address} names no model; write {base_url}#NAME, as the server's /models lists it"
        )
    asked = settings.endpoint
    server = Server(
        base_url,
        model,
        api_key=os.environ.get(asked.key_from, ""),
        concurrency=asked.concurrency,
        timeout=asked.timeout,
        attempts=asked.attempts,
    )
    style = settings.prompt or _own_style(asked.family)
    size = settings.batch_size or 64
    what = f"{model} at {base_url}"
    return Examinee(
        _named(settings, model.rpartition("/")[2]), what, "endpoint", f"{base_url}#{model}", style, size,
        lambda: OpenAIEngine(server),
    )  # fmt: skip


def _plugged_in(where: str, settings: ExamSettings) -> Examinee:
    """An engine that comes with a package of its own, e.g. of a model whose licence or code is not ours."""
    function = _resolved(where)

    def make() -> Engine:
        engine: Engine = function()
        if not callable(getattr(engine, "generate", None)):
            raise ConfigError(f"{where} returned a {type(engine).__name__}, which has no `generate`")
        return engine

    style = settings.prompt or _own_style(settings.endpoint.family)
    mark = f"{where} {getattr(function, 'fingerprint', '')}"
    name = _named(settings, where.partition(":")[0])
    return Examinee(name, f"the plug-in {where}", "plug-in", mark, style, settings.batch_size or 8, make)


def _resolved(where: str) -> Any:
    try:
        return pkgutil.resolve_name(where)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: package {error.name} is not installed") from error
    except AttributeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _scripted(words: str, settings: ExamSettings) -> Examinee:
    def say(prompt: Prompt) -> str:
        return prompt.turns[-1].text if words == ECHO else f"<answer>{words}</answer>"

    what = "a script that repeats the question" if words == ECHO else f"a script that always says '{words}'"
    style = settings.prompt or _own_style(ANY)
    return Examinee(
        _named(settings, f"scripted-{words}"), f"{what}; no model", "scripted", f"{SCRIPTED}{words}", style,
        settings.batch_size or 8, lambda: ScriptedEngine(say),
    )  # fmt: skip


def _own_style(family: str) -> PromptStyle:
    """Plain words that state the unit of boxes, for models that were not trained on ours."""
    return PromptStyle(family=family, system="patho_r1")


def _trained_style(folder: Path) -> PromptStyle | None:
    """How the run asked that has trained the model of its folder `stages/<name>/model`; None for another."""
    here = folder.resolve()
    if here.name != "model" or len(here.parents) < 3 or here.parents[1].name != "stages":
        return None
    try:
        return RunFolder(here.parents[2]).recipe().prompt
    except UserError:
        return None


def _named(settings: ExamSettings, name: str) -> str:
    """A name that can be a file's, and that neither a control nor the majority answer bears."""
    found = re.sub(r"[^\w.+-]+", "-", settings.name or name).strip("-") or "model"
    if found == MAJORITY:
        raise ConfigError(
            f"'{MAJORITY}' is the name of the constant answer in every table; set another `name`"
        )
    return found
