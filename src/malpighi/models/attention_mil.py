"""A slide's class from the features of its tiles: attention-based pooling with a gate.

Shape suffixes: B slides, N tiles, D features of a tile, H hidden, A attention, K options.

For the tiles x_1 .. x_N of one slide:

    h_n = relu(W_h (x_n - centre) / spread + b_h)
    e_n = w^T (tanh(V h_n + b_v) * sigmoid(U h_n + b_u))
    a_n = exp(e_n) / sum_m exp(e_m)
    z   = sum_n a_n h_n
    y   = W_y z + b_y                                 one score (logit) per option

Source: Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018, eq. 7 and 9.
Departs: features are standardised by the training set's mean and standard deviation first, because encoders
differ in scale by orders of magnitude; the first layer and the biases stand in the authors' code, not in the
paper.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from malpighi.config import Settings
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError, DataError, FormatVersionError

FORMAT_VERSION = 1
CARD, WEIGHTS = "attention_mil.json", "attention_mil.safetensors"


class AttentionShape(Settings, frozen=True):
    """How wide the network is.

    Attributes:
        features: D, numbers per tile.
        hidden: H, width after the first layer.
        attention: A, width of the two attention branches.
        dropout: share of hidden numbers that are dropped while training.
    """

    features: int
    hidden: int = 128
    attention: int = 64
    dropout: float = 0.25

    def __post_init__(self) -> None:
        """Refuse widths without extent."""
        if min(self.features, self.hidden, self.attention) < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(f"{self}: widths must be at least 1, and dropout from 0 to below 1")


class SlideVerdict(NamedTuple):
    """What the network makes of one slide.

    Attributes:
        probabilities_k: float64, of the options; they add up to 1.
        attention_n: float64, how much each tile counted; they add up to 1.
    """

    probabilities_k: NDArray[np.float64]
    attention_n: NDArray[np.float64]


class AttentionMil(nn.Module):
    """Gated attention over tiles; see the equations above.

    Args:
        shape: widths.
        options: names to choose from, in answer order.
        encoder: what made the features; a slide of another encoder's features is refused by callers.
    """

    centre_d: Tensor
    spread_d: Tensor

    def __init__(self, shape: AttentionShape, options: Sequence[str], encoder: str) -> None:
        super().__init__()
        self.shape, self.options, self.encoder = shape, tuple(options), encoder
        self.register_buffer("centre_d", torch.zeros(shape.features))
        self.register_buffer("spread_d", torch.ones(shape.features))
        self.hidden = nn.Linear(shape.features, shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)
        self.tangent = nn.Linear(shape.hidden, shape.attention)
        self.gate = nn.Linear(shape.hidden, shape.attention)
        self.energy = nn.Linear(shape.attention, 1, bias=False)
        self.head = nn.Linear(shape.hidden, len(self.options))

    def forward(self, features_BND: Tensor, there_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and attention of a batch of slides.

        Args:
            features_BND: float32; padded slides may hold anything finite where no tile is.
            there_BN: bool, where a tile is; at least one per slide.

        Returns:
            logits_BK, and attention_BN, which is 0 where no tile is and adds up to 1 over each slide.
        """
        hidden_BNH = torch.relu(self.hidden((features_BND - self.centre_d) / self.spread_d))
        hidden_BNH = self.dropout(hidden_BNH)
        gated_BNA = torch.tanh(self.tangent(hidden_BNH)) * torch.sigmoid(self.gate(hidden_BNH))
        energy_BN = self.energy(gated_BNA).squeeze(-1).masked_fill(~there_BN, -torch.inf)
        attention_BN = torch.softmax(energy_BN, dim=1)
        pooled_BH = torch.einsum("bn,bnh->bh", attention_BN, hidden_BNH)
        return self.head(pooled_BH), attention_BN

    @torch.inference_mode()
    def examine(self, features_ND: NDArray) -> SlideVerdict:
        """Probabilities and attention of one slide, all its tiles at once.

        Raises:
            DataError: no tile, or features of another width.
        """
        if features_ND.ndim != 2 or len(features_ND) == 0 or features_ND.shape[1] != self.shape.features:
            raise DataError(
                f"features of shape {features_ND.shape}; expected (tiles, {self.shape.features}), "
                f"at least one tile, as '{self.encoder}' makes them"
            )
        was_training = self.training
        self.eval()
        given_1ND = torch.from_numpy(np.asarray(features_ND, np.float32))[None]
        logits_1K, attention_1N = self(given_1ND, torch.ones(given_1ND.shape[:2], dtype=torch.bool))
        self.train(was_training)
        return SlideVerdict(
            torch.softmax(logits_1K[0].double(), dim=0).numpy(), attention_1N[0].double().numpy()
        )


def save_attention_mil(model: AttentionMil, folder: Path) -> None:
    """Write the weights and, last, the card into `folder`; each file whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    card = {
        "format_version": FORMAT_VERSION,
        "shape": {name: getattr(model.shape, name) for name in model.shape.__struct_fields__},
        "options": model.options,
        "encoder": model.encoder,
    }
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as file:
            file.write(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
        with replacing(folder / CARD) as file:
            file.write(json.dumps(card, indent=1).encode())


def load_attention_mil(folder: Path) -> AttentionMil:
    """A saved network, ready to examine.

    Raises:
        DataError: the folder holds none, or its files are damaged or do not fit together.
        FormatVersionError: it was saved in another format.
    """
    path = folder / CARD
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder} holds no {name}; train the slide classifier first")
    try:
        card = json.loads(path.read_bytes())
        if card["format_version"] != FORMAT_VERSION:
            raise FormatVersionError(
                f"{path} is of format {card['format_version']}, expected {FORMAT_VERSION}; train it again"
            )
        model = AttentionMil(AttentionShape(**card["shape"]), card["options"], card["encoder"])
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (ValueError, LookupError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise DataError(f"the slide classifier in {folder} is damaged ({error}); train it again") from error
    model.eval()
    return model
