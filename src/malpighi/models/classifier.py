"""A convolutional classifier with one backbone and one head per exam."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision

from malpighi.errors import DataError

FORMAT_VERSION = 1


class ExamClassifier(nn.Module):
    """EfficientNet (or any timm backbone) whose features feed one linear head per exam.

    Args:
        architecture: timm model name.
        exams: exam name -> its options, in answer order.
        image_size: side of the square input, px.
    """

    def __init__(self, architecture: str, exams: Mapping[str, Sequence[str]], image_size: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.exams = {name: tuple(options) for name, options in exams.items()}
        self.image_size = image_size
        self.exam_index = {name: index for index, name in enumerate(self.exams)}
        self.backbone = timm.create_model(architecture, pretrained=False, num_classes=0)
        self.heads = nn.ModuleList(nn.Linear(self.backbone.num_features, len(o)) for o in self.exams.values())

    def tensor(self, images: Sequence[Image.Image]) -> Tensor:
        """Images as float tensors (B, 3, side, side) in -1..1, stretched to the square input."""
        side = [self.image_size, self.image_size]
        stack = [vision.resize(vision.pil_to_tensor(image.convert("RGB")), side) for image in images]
        return torch.stack(stack).float() / 127.5 - 1.0

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (B, D) of images (B, 3, side, side)."""
        return self.backbone(images)

    @torch.inference_mode()
    def choose(self, images: Sequence[Image.Image], exams: Sequence[str]) -> list[int]:
        """Index of the chosen option for each image under its exam."""
        self.eval()
        features = self.features(self.tensor(images))
        heads = [self.heads[self.exam_index[exam]] for exam in exams]
        return [int(head(feature).argmax()) for head, feature in zip(heads, features, strict=True)]


def build_classifier(
    architecture: str, exams: Mapping[str, Sequence[str]], image_size: int
) -> ExamClassifier:
    """A classifier with random weights (seed torch first).

    Raises:
        DataError: no exam has options to choose from.
    """
    if not exams:
        raise DataError("no exam with options to choose from; the classifier needs at least one")
    return ExamClassifier(architecture, exams, image_size)


def save_classifier(model: ExamClassifier, folder: Path) -> None:
    """Write `model.safetensors` and, last, `classifier.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    card = {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "exams": model.exams,
        "image_size": model.image_size,
    }
    (folder / "classifier.json").write_text(json.dumps(card, indent=1))


def load_classifier(folder: Path) -> ExamClassifier:
    """A saved classifier.

    Raises:
        DataError: the folder holds none, or one of another format version.
    """
    path = folder / "classifier.json"
    if not path.is_file():
        raise DataError(f"{folder} holds no classifier.json; train the classifier stage first")
    card = json.loads(path.read_text())
    if card.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path} is of format {card.get('format_version')}, expected {FORMAT_VERSION}; train it again"
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise DataError(f"{folder} holds no {weights.name}; train the classifier stage again")
    model = ExamClassifier(card["architecture"], card["exams"], card["image_size"])
    model.load_state_dict(load_file(weights))
    return model
