"""Generation in this process with `transformers`, in batches.

Shapes: B prompts of a batch, L tokens.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessorList

from malpighi.errors import ConfigError, UserError
from malpighi.inference.drawing import GumbelNoise, decoding, seeds_of
from malpighi.inference.engine import Completion, Sampling, failed
from malpighi.inference.option_likelihood import answer_chances
from malpighi.models.encode import Encoded, collate, encode_one
from malpighi.models.experts import each_row_its_own
from malpighi.models.families import PAD_TOKEN, TURN_END, VISION_TOKENS
from malpighi.models.prompt import Prompt
from malpighi.models.vlm import Vlm


class _Row(NamedTuple):
    """A prompt on its way: its tokens, the seed of its random numbers, the adapter that answers it."""

    encoded: Encoded
    seed: int
    adapter: str


class TransformersEngine:
    """Batched generation with left padding.

    Greedy decoding takes the likeliest token. Sampling draws by the Gumbel-max rule with a stream of random
    numbers per prompt, seeded by the sampling's seed, the prompt's digest and how often that prompt has
    occurred in the call; so what a prompt gets does not depend on its neighbours, the batch size or a resumed
    run (up to the rounding of the model's arithmetic). Tokens that announce an image can never be drawn.

    Args:
        vlm: the model.
        batch_size: prompts generated together.
        max_prompt_length: most tokens of a prompt; None for no bound. A longer prompt becomes an error.
        route: names the adapter that answers a prompt, "" for the base, e.g. `Router.adapter_for`; the
            prompts of a batch may have different ones. None: the base answers all.
    """

    def __init__(
        self,
        vlm: Vlm,
        batch_size: int = 16,
        max_prompt_length: int | None = None,
        route: Callable[[Prompt], str] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}; at least 1 is needed")
        self._vlm = vlm
        self._batch_size = batch_size
        self._max_prompt_length = max_prompt_length
        self._route = route

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`.

        Raises:
            ConfigError: `route` names an adapter that the model does not carry.
        """
        done: dict[int, Completion] = {}
        rows: dict[int, _Row] = {}
        seeds = seeds_of(prompts, sampling.seed)
        for index, prompt in enumerate(prompts):
            try:
                encoded = encode_one(prompt, None, self._vlm, max_length=self._max_prompt_length)
            except UserError as error:
                done[index] = failed(error)
            else:
                rows[index] = _Row(encoded, seeds[index], self._route(prompt) if self._route else "")
        # Prompts of like length together: less padding. The order of the results is restored below.
        waiting = sorted(rows, key=lambda index: (len(rows[index].encoded.ids), index))
        for start in range(0, len(waiting), self._batch_size):
            chosen = waiting[start : start + self._batch_size]
            said = self._batch([rows[i] for i in chosen], sampling)
            done.update(zip(chosen, said, strict=True))
        return [done[index] for index in range(len(prompts))]

    def chances(self, prompt: Prompt, answers: Sequence[str]) -> tuple[float, ...]:
        """Probabilities of given answers to a prompt, as if nothing else could be said.

        By the adapter that would answer the prompt; see `option_likelihood.answer_chances`.

        Raises:
            DataError: the prompt or an answer cannot be encoded.
        """
        adapter = self._route(prompt) if self._route else ""
        with each_row_its_own(self._vlm.model, [adapter] * len(answers)):
            found = answer_chances(self._vlm, [prompt], [answers], batch_size=len(answers))
        return tuple(found[0].tolist())

    def _batch(self, rows: Sequence[_Row], sampling: Sampling) -> list[Completion]:
        """The completions of one batch; where it fails, its halves are tried, down to the prompt at fault."""
        try:
            return self._generate(rows, sampling)
        except (RuntimeError, ValueError) as error:  # out of memory, or pixels that the model refuses
            if len(rows) == 1:
                return [failed(f"{type(error).__name__}: {error}")]
        half = len(rows) // 2
        return self._batch(rows[:half], sampling) + self._batch(rows[half:], sampling)

    def _generate(self, rows: Sequence[_Row], sampling: Sampling) -> list[Completion]:
        model = self._vlm.model
        batch = collate([row.encoded for row in rows], self._vlm, padding="left", labels=False)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        seeds = [row.seed for row in rows]
        noise = [] if sampling.temperature == 0 else [GumbelNoise(seeds, sampling.temperature)]
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode(), each_row_its_own(model, [row.adapter for row in rows]):
                ids_bl = model.generate(
                    **batch,
                    generation_config=self._configuration(sampling),
                    logits_processor=LogitsProcessorList(noise),
                )
        finally:
            model.train(was_training)
        said = ids_bl[:, batch["input_ids"].shape[1] :].tolist()
        return [self._completion(ids, row.adapter) for ids, row in zip(said, rows, strict=True)]

    def _configuration(self, sampling: Sampling) -> GenerationConfig:
        never = [self._vlm.token_id(token) for token in VISION_TOKENS]
        return decoding(sampling, never=never, ends=self._ends, filler=self._vlm.token_id(PAD_TOKEN))

    @property
    def _ends(self) -> list[int]:
        return [self._vlm.token_id(TURN_END), self._vlm.token_id(PAD_TOKEN)]

    def _completion(self, ids: list[int], adapter: str) -> Completion:
        length = next((i for i, token in enumerate(ids) if token in self._ends), None)
        said = ids[:length]
        text = self._vlm.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if length is None:
            return Completion(text, len(said), "length", adapter=adapter)
        return Completion(text, len(said) + 1, "stop", adapter=adapter)
