"""BERTScore: two texts compared word piece by word piece, by the vectors that a language model gives them.

Runs from a model folder on this machine; nothing is downloaded. The name of the layer belongs to the figure.

Shapes: L word pieces of one text, H length of a vector.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from malpighi.errors import ConfigError, DataError

_ROBERTA_GAP = 2  # positions that models of the RoBERTa kind keep for themselves


class Match(NamedTuple):
    """How well a text matches another.

    Attributes:
        precision: mean over the candidate's pieces of the best cosine in the reference.
        recall: mean over the reference's pieces of the best cosine in the candidate.
        f1: their harmonic mean, what is called BERTScore.
    """

    precision: float
    recall: float
    f1: float


class ContextualMatcher:
    """Greedy cosine matching of contextual vectors.

    Source: Zhang et al., BERTScore: Evaluating Text Generation with BERT, ICLR 2020, section 3, without
    weights by inverse document frequency. As in the authors' code the marks of begin and end may be matched,
    but do not count themselves.
    Departs: a text longer than the model's window is embedded window by window (the authors' code cuts it
    off); an empty text scores 0 against words and 1 against an empty one.

    Attributes:
        name: what the figure is called, e.g. `BERTScore (my-model, layer 9, rescaled)`.
    """

    def __init__(
        self,
        folder: Path,
        layer: int,
        *,
        baseline: Path | None = None,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        """Load the model.

        Args:
            folder: of the model and its tokenizer, as transformers saves them.
            layer: whose vectors are compared, from 1; e.g. 9 for BERT base, 17 for RoBERTa large.
            baseline: CSV of the authors with the columns LAYER, P, R, F, by which figures are stretched so
                that unrelated texts score about 0; None for plain cosines.
            batch_size: windows embedded at once.
            device: where the model runs.

        Raises:
            ConfigError: no model in the folder, or no such layer in the model or in the baseline.
        """
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; BERTScore needs a model on this machine")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder}: no model that transformers can load: {error}") from error
        layers = int(model.config.num_hidden_layers)
        if not 1 <= layer <= layers:
            raise ConfigError(f"layer {layer} of {folder.name}; it has layers 1 to {layers}")
        self._model: Any = model.to(device).eval()
        self._layer = layer
        self._batch_size = batch_size
        self._baseline = _read_baseline(baseline, layer) if baseline else None
        self._window = _window(self._model.config, self._tokenizer)
        self.name = f"BERTScore ({folder.name}, layer {layer}{', rescaled' if baseline else ''})"

    def match(self, candidates: Sequence[str], references: Sequence[str]) -> list[Match]:
        """The match of each candidate with its reference.

        Raises:
            DataError: not as many candidates as references.
        """
        if len(candidates) != len(references):
            raise DataError(f"{len(candidates)} candidates for {len(references)} references")
        texts = list(dict.fromkeys(text.strip() for text in (*candidates, *references)))
        vectors = dict(zip(texts, self._embed(texts), strict=True))
        return [
            self._rescaled(_greedy(vectors[candidate.strip()], vectors[reference.strip()]))
            for candidate, reference in zip(candidates, references, strict=True)
        ]

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> list["_Vectors"]:
        windows = [(owner, ids) for owner, text in enumerate(texts) for ids in self._windows(text)]
        # Windows of one length run together without padding, so no vector depends on its neighbours.
        by_length: dict[int, list[int]] = {}
        for place, (_, ids) in enumerate(windows):
            by_length.setdefault(len(ids), []).append(place)
        found: dict[int, Tensor] = {}
        for places in by_length.values():
            for start in range(0, len(places), self._batch_size):
                batch = places[start : start + self._batch_size]
                ids_BL = torch.tensor([windows[place][1] for place in batch], device=self._model.device)
                mask_BL = torch.ones_like(ids_BL)
                states = self._model(ids_BL, attention_mask=mask_BL, output_hidden_states=True).hidden_states
                vectors_BLH = torch.nn.functional.normalize(states[self._layer].double(), dim=-1).cpu()
                found.update(zip(batch, vectors_BLH, strict=True))
        special = set(self._tokenizer.all_special_ids)
        pieces: list[list[Tensor]] = [[] for _ in texts]
        counted: list[list[bool]] = [[] for _ in texts]
        for place, (owner, ids) in enumerate(windows):
            pieces[owner].append(found[place])
            # An unknown word is a special piece too, but it stands for a word.
            counted[owner] += [i not in special or i == self._tokenizer.unk_token_id for i in ids]
        return [
            _Vectors(torch.cat(parts), torch.tensor(words))
            for parts, words in zip(pieces, counted, strict=True)
        ]

    def _windows(self, text: str) -> list[list[int]]:
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        pieces = [ids[start : start + self._window] for start in range(0, max(len(ids), 1), self._window)]
        return [self._framed(piece) for piece in pieces]

    def _framed(self, ids: list[int]) -> list[int]:
        tokenizer = self._tokenizer
        first = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        last = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        return [i for i in (first, *ids, last) if i is not None]

    def _rescaled(self, match: Match) -> Match:
        if self._baseline is None:
            return match
        pairs = zip(match, self._baseline, strict=True)
        return Match(*((value - floor) / (1 - floor) for value, floor in pairs))


class _Vectors(NamedTuple):
    """Unit vectors_LH of a text, and which of them stand for words (L,)."""

    vectors: Tensor
    words: Tensor


def _greedy(candidate: _Vectors, reference: _Vectors) -> Match:
    if not candidate.words.any() or not reference.words.any():
        agreed = float(candidate.words.any() == reference.words.any())
        return Match(agreed, agreed, agreed)
    cosines = candidate.vectors @ reference.vectors.T
    precision = float(cosines.max(dim=1).values[candidate.words].mean())
    recall = float(cosines.max(dim=0).values[reference.words].mean())
    total = precision + recall
    return Match(precision, recall, 2 * precision * recall / total if total else 0.0)


def _window(config: Any, tokenizer: Any) -> int:
    """Word pieces of a text that fit between the marks of begin and end."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= _ROBERTA_GAP
    return max(1, min(positions, int(tokenizer.model_max_length), 512) - 2)


def _read_baseline(path: Path, layer: int) -> Match:
    """The authors' table; its floors of precision, recall and F1 for one layer."""
    try:
        with path.open(newline="") as file:
            rows = {int(row["LAYER"]): row for row in csv.DictReader(file)}
        row = rows[layer]
        return Match(float(row["P"]), float(row["R"]), float(row["F"]))
    except OSError as error:
        raise ConfigError(f"{path}: the baseline cannot be read: {error}") from error
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: no baseline of layer {layer} in columns LAYER, P, R, F") from error
