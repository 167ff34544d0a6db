"""A chat model of any family, loaded from a folder, and its prompts in tensors.

Shapes: B prompts, L tokens.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from malpighi.errors import DataError
from malpighi.inference.chat_families import CHAT_FAMILIES, ChatFamily
from malpighi.models.families import SPECIAL_TOKENS
from malpighi.models.prompt import Prompt
from malpighi.models.vlm import load_parts

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class ChatModel:
    """A model with what belongs to it.

    Attributes:
        model: the `transformers` model, in evaluation mode.
        processor: its processor: tokenizer, chat template, image processor.
        family: the facts of its family.
        folder: where it was loaded from.
    """

    model: Any
    processor: Any
    family: ChatFamily
    folder: Path

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @cached_property
    def stops(self) -> list[int]:
        """Ids of the tokens that end a turn: the checkpoint's, the tokenizer's and the family's."""
        told = self.model.generation_config.eos_token_id
        told = told if isinstance(told, list) else [told]
        ids = {*told, self.tokenizer.eos_token_id, *self._ids(self.family.stops)}
        return sorted(id for id in ids if id is not None)

    @cached_property
    def marks(self) -> list[int]:
        """Ids of the tokens that announce an image and that the model could say."""
        said = self.model.get_output_embeddings().weight.shape[0]  # Llama-Vision cannot say its own
        return [id for id in self._ids(self.family.marks) if id < said]

    @property
    def end(self) -> int:
        """Id of the token that the family itself ends a turn with."""
        own = self._ids(self.family.stops)
        return own[0] if own else int(self.tokenizer.eos_token_id)

    @cached_property
    def filler(self) -> int:
        """Id of the token that pads."""
        pad = self.tokenizer.pad_token_id
        return int(self.stops[0] if pad is None else pad)

    def text(self, prompt: Prompt) -> str:
        """The prompt in the words of the family's chat template.

        Raises:
            DataError: words that hold a special token, no image where the family needs one, or several where
                it takes one.
        """
        self._check(prompt)
        system, turns = self._spoken(prompt)
        if not self.family.template:
            return self.family.marks[0] * len(prompt.images) + "\n".join(words for _, words in turns)
        messages: list[dict[str, Any]] = []
        if system:
            messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
        for index, (role, words) in enumerate(turns):
            images: list[dict[str, Any]] = [{"type": "image"} for _ in prompt.images_before(index)]
            messages.append({"role": role, "content": [*images, {"type": "text", "text": words}]})
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # Templates of "thinking" checkpoints open the thought themselves; a completion would lack that tag.
        return str(text).removesuffix("<think>\n")

    def tiles(self, prompt: Prompt) -> int:
        """Tiles that an image of a prompt may be cut into; prompts of one batch have the same number."""
        if not self.family.tiles or not prompt.images:
            return 1
        side = int(self.processor.image_processor.size["height"])
        return max(1, min(image.width * image.height // side**2 for image in prompt.images))

    def encode(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Batch:
        """A batch, padded on the left, on the model's device.

        Args:
            prompts: with the same number of images and of tiles.
            texts: what `text` gave for each.
        """
        options: dict[str, Any] = dict(self.family.processing)
        images = [[self._shown(image) for image in prompt.images] for prompt in prompts]
        if self.family.tiles and images[0]:
            tiles = self.tiles(prompts[0])
            options |= {"crop_to_patches": tiles > 1, "min_patches": 1, "max_patches": tiles}
        bos = self.tokenizer.bos_token
        with warnings.catch_warnings():
            # PaliGemma's processor makes arrays of tensors in a way that numpy will give up.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            batch = self.processor(
                text=list(texts),
                images=images if images[0] else None,
                padding=True,
                padding_side="left",
                return_tensors="pt",
                # A template that writes the first token itself must not get a second one.
                add_special_tokens=not (self.family.template and bos and texts[0].startswith(bos)),
                **(options if images[0] else {}),
            )
        dtype = self.model.dtype
        return {
            name: tensor.to(self.model.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.items()
            if name != "labels"
        }

    def _spoken(self, prompt: Prompt) -> tuple[str, list[tuple[str, str]]]:
        turns = [(turn.role, turn.text) for turn in prompt.turns]
        if self.family.system == "own" or not prompt.system:
            return prompt.system, turns
        first = next((i for i, (role, _) in enumerate(turns) if role == "user"), 0)
        turns[first] = (turns[first][0], f"{prompt.system}\n\n{turns[first][1]}")
        return "", turns

    def _shown(self, image: Image.Image) -> Image.Image:
        if not self.family.square:
            return image
        side = self.processor.image_processor.crop_size
        return image.resize((side["width"], side["height"]), Image.Resampling.BICUBIC)

    def _check(self, prompt: Prompt) -> None:
        known = {*SPECIAL_TOKENS, *self.family.marks, *self.family.stops, *self.tokenizer.all_special_tokens}
        for text in (prompt.system, *(turn.text for turn in prompt.turns)):
            for token in known:
                if token and token in text:
                    raise DataError(f"the prompt contains the special token {token}; remove it")
        name = self.family.facts.name
        if any(min(image.size) < 1 for image in prompt.images):
            raise DataError("an image of the prompt has no pixels")
        if len(prompt.images) > 1 and not self.family.many:
            raise DataError(f"{name} takes one image; this prompt has {len(prompt.images)}")
        if not prompt.images and not self.family.template:
            raise DataError(f"{name} needs an image; this prompt has none")

    def _ids(self, tokens: Sequence[str]) -> list[int]:
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[token] for token in tokens if token in vocabulary]


def model_type_in(folder: Path) -> str:
    """The `model_type` of the checkpoint in a folder.

    Raises:
        DataError: no such folder, or no readable configuration.
    """
    path = folder / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type"))
    except OSError as error:
        raise DataError(f"{folder} holds no config.json, so it is no saved model") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a model configuration in JSON: {error}") from error


def chat_family_in(folder: Path) -> ChatFamily:
    """The family of the checkpoint in a folder, from its `config.json`.

    Raises:
        DataError: as `model_type_in`, or a model of an unknown family.
    """
    found = model_type_in(folder)
    if found not in CHAT_FAMILIES:
        raise DataError(
            f"{folder} describes a model of type '{found}', whose boxes, system prompt and pixels are not "
            f"declared; known types: {', '.join(CHAT_FAMILIES)}. Serve it (vLLM) and examine the server"
        )
    return CHAT_FAMILIES[found]


def load_chat(folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> ChatModel:
    """The chat model in a folder; nothing is ever downloaded.

    Args:
        folder: a checkpoint as `transformers` saves it.
        dtype: `float32`, `bfloat16` or `float16`.
        device: where the weights go, e.g. `cpu`, `cuda`.

    Raises:
        ConfigError: unknown dtype, or a device that is not there.
        DataError: the folder, its configuration, processor files or weights are missing or do not fit.
    """
    folder = Path(folder)
    family = chat_family_in(folder)
    model, processor = load_parts(folder, dtype, device)
    if family.template and not getattr(processor, "chat_template", None):
        raise DataError(f"the processor in {folder} has no chat template, so it is no chat model")
    return ChatModel(model, processor, family, folder)
