"""What the shared-prefix trainer takes over from TRL: raise TRL only after reading these functions again.

A method that we override must still be what we replaced, and one that we hook into what we hook into.
"""

import hashlib
import inspect
from importlib.metadata import version

import pytest
from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

from malpighi.training.shared_prefix import SharedPrefixTrainer

OVERRIDDEN = {
    "_generate_and_score_completions": "1fa48922792dcd5c",
    "_prepare_inputs": "f824e7fb07147956",
    "_compute_loss": "80295546bbdbf6f7",
    "_get_per_token_logps_and_entropies": "ea73c3909275851d",
}
RELIED_ON = {
    "_generate": "2a27fdf8f5e6f356",
    "_calculate_rewards": "736ae29b083840b5",
    "_get_train_sampler": "36497afb4d311dc9",
    "_log_metric": "bcd19b9ca1016e3a",
}


def fingerprint(method):
    return hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "known"), (OVERRIDDEN | RELIED_ON).items())
def test_trl_is_as_it_was_when_we_read_it(name, known):
    found = fingerprint(getattr(GRPOTrainer, name))
    assert found == known, (
        f"GRPOTrainer.{name} of TRL {version('trl')} has changed: compare it with shared_prefix.py, run "
        f"tests/training/test_same_learning.py, then write {found} here"
    )


def test_how_trl_asks_vllm_is_as_it_was():
    """We rely on: n of `generation_kwargs` wins in this process, and every n-th prompt goes to a server."""
    assert fingerprint(VLLMGeneration.generate) == "2d2ac2be5b1309c4"


def test_all_that_we_override_is_listed():
    ours = {
        name
        for name, member in vars(SharedPrefixTrainer).items()
        if inspect.isfunction(member) and hasattr(GRPOTrainer, name) and not name.startswith("__")
    }
    assert ours == set(OVERRIDDEN)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_our_methods_take_what_trl_gives(name):
    """Every argument that TRL's method takes is taken by ours, by name or among the rest."""
    ours = inspect.signature(getattr(SharedPrefixTrainer, name)).parameters
    theirs = inspect.signature(getattr(GRPOTrainer, name)).parameters
    rest = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in ours.values())
    positional = [p for p in theirs.values() if p.default is inspect.Parameter.empty]
    assert list(ours)[: len(positional)] == [p.name for p in positional]
    assert rest or theirs.keys() <= ours.keys()
