"""TRL's GRPO trainer with every picture encoded once and every prompt read once for its whole group.

What TRL decides stays TRL's: advantages, losses, clipping, KL, metrics, checkpoints. Replaced are the rollout
(`models/rollout.py`), the scoring of completions under policy, old policy and reference (`models/tree.py`),
and the shuffle, which moves whole groups. TRL's rows carry the id of their question; words and pictures are
encoded by `models/encode.py`, as everywhere else, and kept once per group.

Departs from TRL: groups stay together in the shuffle, so micro-batches hold other rows than TRL's would.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import pad
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from malpighi.models.encode import Batch, Encoded, collate
from malpighi.models.rollout import Drawing, roll_out
from malpighi.models.tree import attend_to_trees, rope_positions, score
from malpighi.models.vlm import Vlm
from malpighi.training.dynamic_sampling import Group, Judge, Resampling, refill
from malpighi.training.vllm_rollout import Drawn, draw_by_vllm

Ask = Callable[[str], Encoded]
"""The encoded prompt of the question with that id."""


@dataclass(frozen=True, eq=False)
class Asked:
    """The prompts of one generation.

    Attributes:
        prompts: one per group, in the order of the rows.
        of_row: for each row of the generation, which of them it answers.
    """

    prompts: list[Encoded]
    of_row: list[int]


class SharedPrefixTrainer(GRPOTrainer):
    """GRPO and its relatives at the cost of one prompt per group.

    Args:
        vlm: the model that is trained.
        ask: encodes the prompt of a question.
        drawing: how tokens are drawn; temperature and length as in `args`.
        resampling: replaces questions whose completions all earn the same; None keeps them.
        images: those of a question, as they are shown; needed where vLLM draws.
        arguments: of TRL's trainer. The dataset's rows hold `id` and a `prompt` whose content is the id.
    """

    _last_loaded_step: int  # TRL's: the step whose weights vLLM has

    def __init__(
        self,
        vlm: Vlm,
        ask: Ask,
        drawing: Drawing,
        resampling: Resampling | None = None,
        images: Callable[[str], Sequence[Image.Image]] = lambda _: (),
        **arguments: Any,
    ) -> None:
        super().__init__(model=vlm.model, processing_class=vlm.processor, **arguments)
        self._vlm = vlm
        self._ask = ask
        self._drawing = drawing
        self._resampling = resampling
        self._images = images
        self._waiting: Drawn | None = None
        self._asked = Asked([], [])
        self._buffered_inputs: list[dict[str, Any]] | None = None
        self._rows: list[int] = []
        # Set here, not given to TRL's constructor, which warns that such functions are experimental.
        self.rollout_func = self._roll_out
        for model in (self.model, self.ref_model):
            if model is not None:
                attend_to_trees(self.accelerator.unwrap_model(model))

    def _roll_out(self, prompts: list[list[dict[str, Any]]], _: Any) -> dict[str, Any]:
        ids = [prompt[0]["content"] for prompt in prompts]
        runs = [(key, len(list(members))) for key, members in groupby(ids)]
        asked = [self._ask(key) for key, _ in runs]
        owners = [k for k, (_, size) in enumerate(runs) for _ in range(size)]
        self._asked, self._rows = Asked(asked, owners), owners
        drawn, self._waiting = self._waiting or self._draw(ids[:: self.num_generations]), None
        return {
            "prompt_ids": [list(asked[owner].ids) for owner in owners],
            "completion_ids": drawn.ids,
            "logprobs": drawn.log_probs,
        }

    def _draw(self, questions: Sequence[str]) -> Drawn:
        """A group of completions for each question."""
        asked, size = [self._ask(question) for question in questions], self.num_generations
        if self.use_vllm:
            if self.state.global_step != self._last_loaded_step:
                self.vllm_generation.sync_weights()
                self._last_loaded_step = self.state.global_step
            images = [self._images(question) for question in questions]
            return draw_by_vllm(self.vllm_generation, [each.ids for each in asked], images, size)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        groups_at_once = max(self._drawing.at_once // size, 1) if self._drawing.at_once else len(asked)
        ids: list[list[int]] = []
        for start in range(0, len(asked), groups_at_once):
            part = asked[start : start + groups_at_once]
            batch = self._collate(part)
            owners = [k for k in range(len(part)) for _ in range(size)]
            with self.accelerator.autocast():
                ids += roll_out(model, batch, rope_positions(_base(model), batch), owners, self._drawing)
        return Drawn(ids, None)

    def _groups(self, questions: list[str], judge: Judge) -> list[Group]:
        """The graded completions of each question."""
        size, step = self.num_generations, self.state.global_step
        drawn = self._draw(questions)
        texts = self.processing_class.batch_decode(drawn.ids, skip_special_tokens=True)
        groups = []
        for k, question in enumerate(questions):
            own = slice(k * size, (k + 1) * size)
            graded = zip(texts[own], drawn.ids[own], strict=True)
            rewards = [judge(question, *each, step) for each in graded]
            groups.append(Group(question, drawn.ids[own], rewards, drawn.log_probs and drawn.log_probs[own]))
        return groups

    def _refilled(self, inputs: list[dict[str, Any]], how: Resampling) -> list[dict[str, Any]]:
        """Rows whose dull groups have made room for others; the completions wait for TRL to ask for them."""
        size = self.num_generations
        questions = [row["id"] for row in inputs[::size]]
        groups, drawn = refill(
            questions,
            lambda asked: self._groups(asked, how.judge),
            how.further(self.state.global_step, questions),
            how.rounds,
        )
        self._log_metric("questions_drawn", drawn / len(questions))
        known = [each for group in groups for each in group.log_probs or ()]
        self._waiting = Drawn([ids for group in groups for ids in group.completions], known or None)
        return [row_of(group.question) for group in groups for _ in range(size)]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self._resampling is not None and self.model.training:
            inputs = self._refilled(inputs, self._resampling)
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        output["question"] = torch.tensor(self._asked.of_row, device=self.accelerator.device)
        return output

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, but for the shuffle: whole groups change places."""
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(_shuffle_groups(batch), steps)
        return self._buffered_inputs[self._step % steps]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._rows = inputs["question"].tolist()
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,  # noqa: FBT001, FBT002 -- TRL's signature
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probabilities and entropies (rows x C) of the completions at the end of `input_ids`."""
        completions, mask = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:]
        log_probs, entropies = [], []
        for part in _parts(self._rows, batch_size or len(self._rows)):
            rows = slice(part[0].start, part[-1].stop)
            batch = self._collate([self._asked.prompts[self._rows[run.start]] for run in part])
            length = max(int(mask[rows].sum(1).max()), 1)
            shape = (len(part), len(part[0]), length)
            with self.accelerator.autocast():
                scores = score(
                    model,
                    batch,
                    completions[rows, :length].reshape(shape),
                    mask[rows, :length].reshape(shape),
                    positions=rope_positions(_base(self.accelerator.unwrap_model(model)), batch),
                )
            missing = (0, logits_to_keep - length)
            log_probs.append(pad(scores.log_probs.flatten(0, 1), missing))
            if compute_entropy and scores.entropy is not None:
                entropies.append(pad(scores.entropy.flatten(0, 1), missing))
        return torch.cat(log_probs), torch.cat(entropies) if entropies else None, None

    def _collate(self, prompts: Sequence[Encoded]) -> Batch:
        batch = collate(prompts, self._vlm, padding="left", labels=False)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}


def row_of(question: str) -> dict[str, Any]:
    """A row as TRL's dataset holds it: it names its question, which the trainer encodes."""
    return {"id": question, "prompt": [{"role": "user", "content": question}]}


def _base(model: Any) -> Any:
    """The model below PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _parts(rows: Sequence[int], most: int) -> list[list[range]]:
    """Runs of rows that answer one question, gathered into forward passes of at most `most` rows.

    The runs of a pass are equally long, so that they make a rectangle; a run longer than `most` is split.

    Example:
        >>> _parts([0, 0, 1, 1, 2], 4)
        [[range(0, 2), range(2, 4)], [range(4, 5)]]
        >>> _parts([0, 0, 0], 2)
        [[range(0, 2)], [range(2, 3)]]
    """
    runs, start = [], 0
    for _, members in groupby(rows):
        stop = start + len(list(members))
        runs += [range(at, min(at + most, stop)) for at in range(start, stop, most)]
        start = stop
    parts: list[list[range]] = []
    for run in runs:
        fits = parts and len(parts[-1][0]) == len(run) and (len(parts[-1]) + 1) * len(run) <= most
        if fits:
            parts[-1].append(run)
        else:
            parts.append([run])
    return parts


def _shuffle_groups(batch: dict[str, Any]) -> dict[str, Any]:
    """The rows of a generation with its groups in random order, each group's rows together."""
    questions = batch["question"]
    order = torch.cat([torch.nonzero(questions == q)[:, 0] for q in torch.randperm(int(questions.max()) + 1)])
    return {
        name: value[order] if isinstance(value, torch.Tensor) and value.ndim else value
        for name, value in batch.items()
    }
