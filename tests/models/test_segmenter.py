import json

import pytest
import torch
from safetensors.torch import save_file

from malpighi.errors import ConfigError
from malpighi.models import classical_segmenter, segmenter
from malpighi.models.classical_segmenter import ClassicalSegmenter
from malpighi.models.segmenter import fingerprint, load_segmenter


def test_a_segmenter_is_loaded_once():
    assert load_segmenter("boxes") is None
    assert isinstance(load_segmenter("classical"), ClassicalSegmenter)
    assert load_segmenter("classical") is load_segmenter("classical")


def test_a_name_that_is_none_says_what_to_set(tmp_path):
    for name in ("clasical", str(tmp_path)):
        for use in (load_segmenter, fingerprint):
            with pytest.raises(
                ConfigError, match="set segmenter to classical, boxes, or the folder of a SAM"
            ):
                use(name)


def test_the_fingerprint_changes_with_what_masks_depend_on(tmp_path, monkeypatch):
    weights = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    save_file({"mask": torch.zeros(4)}, weights)
    found = [fingerprint(name) for name in ("boxes", "classical", str(tmp_path))]
    monkeypatch.setattr(segmenter, "VERSION", classical_segmenter.VERSION + 1)
    save_file({"mask": torch.ones(4)}, weights)  # a file of the same size
    again = [fingerprint(name) for name in ("boxes", "classical", str(tmp_path))]
    assert [one == other for one, other in zip(found, again, strict=True)] == [True, False, False]
    assert len({*found, *again}) == 5


def test_weights_of_another_format_are_told_apart_by_size(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"1")
    before = fingerprint(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"12")
    assert fingerprint(str(tmp_path)) != before
