"""A group scored as a tree against each completion scored in a row of its own."""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from malpighi.models import rollout, tree
from malpighi.models.encode import collate, encode_one
from malpighi.models.families import FAMILIES, PAD_TOKEN, TURN_END, VISION_TOKENS
from malpighi.models.rollout import Drawing, roll_out
from malpighi.models.tree import attend_to_trees, rope_positions, score

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


class Case(NamedTuple):
    """What is varied."""

    family: str = "qwen2_5_vl"
    group: int = 4
    images: int = 1
    unequal: bool = True
    lora: bool = False
    checkpointing: bool = False

    @property
    def name(self):
        words = [self.family, f"G{self.group}", f"{self.images}img"]
        return "-".join(words + [n for n in ("unequal", "lora", "checkpointing") if getattr(self, n)])


CASES = [
    Case(),
    Case(family="qwen3_vl", group=8, images=2),
    Case(group=16, unequal=False, images=2, checkpointing=True),
    Case(family="qwen3_vl", lora=True, checkpointing=True),
    Case(lora=True, images=2),
]
ALL = [
    Case(*values)
    for values in product(sorted(FAMILIES), (4, 8, 16), (1, 2), (True, False), (False, True), (False, True))
]


class Group(NamedTuple):
    """Prompts of unequal length, and completions of them."""

    vlm: object
    model: object
    asked: list
    completions: torch.Tensor
    mask: torch.Tensor


def group_of(miniatures, case):
    """Three questions; the weights are scaled up so that probabilities are far from equal."""
    mini = miniatures(case.family)
    vlm = mini.load()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in vlm.model.model.language_model.parameters():
            parameter.mul_(5 if parameter.ndim == 2 else 1)
        vlm.model.lm_head.weight.mul_(2)
    prompts = [mini.pictures.prompt(s) for s in (mini.of("category")[0], *mini.of("open", "nuclei")[:2])]
    if case.images == 2:
        prompts = [
            replace(p, images=(*p.images, q.images[0]), views=(*p.views, q.views[0]))
            for p, q in zip(prompts, [*prompts[1:], prompts[0]], strict=True)
        ]
    add_fused_lm_head(vlm.model, outputs=("log_probs", "entropy"))
    attend_to_trees(vlm.model)
    model = vlm.model
    if case.lora:
        model = get_peft_model(
            model,
            LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*\.(q_proj|v_proj|up_proj)"),
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    if case.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    length = 9
    pad = vlm.token_id(PAD_TOKEN)
    completions = torch.randint(20, 300, (3, case.group, length))
    lengths = torch.randint(1, length + 1, (3, case.group)) if case.unequal else torch.tensor(length)
    mask = (torch.arange(length) < lengths[..., None]).expand(3, case.group, length).long()
    return Group(
        vlm,
        model,
        [encode_one(p, None, vlm) for p in prompts],
        completions.masked_fill(mask == 0, pad),
        mask,
    )


def as_tree(group, shift=0, asked=None):
    prompts = collate(asked or group.asked, group.vlm, padding="left", labels=False)
    positions = rope_positions(group.vlm.model, prompts)
    positions[:, :, -1] += shift
    return score(group.model, prompts, group.completions, group.mask, positions=positions)


def alone(group):
    """Each completion in a row of its own, through the model's ordinary forward pass."""
    log_probs = torch.zeros(group.mask.shape)
    entropy = torch.zeros(group.mask.shape)
    for b, g in product(*map(range, group.mask.shape[:2])):
        said = group.completions[b, g][group.mask[b, g] == 1].tolist()
        asked = group.asked[b]
        batch = collate([replace(asked, ids=(*asked.ids, *said))], group.vlm, labels=False)
        logits = group.model(**batch, use_cache=False).logits[0].log_softmax(-1)
        here = logits[-len(said) - 1 : -1]
        log_probs[b, g, : len(said)] = here.gather(1, torch.tensor(said)[:, None])[:, 0]
        entropy[b, g, : len(said)] = -(here.exp() * here).sum(-1)
    return log_probs, entropy


def gradient(group, log_probs):
    """The gradient of a sum that weighs every token differently."""
    torch.manual_seed(1)
    group.model.zero_grad()
    (log_probs * torch.randn(group.mask.shape) * group.mask).sum().backward()
    found = {n: p.grad.clone() for n, p in group.model.named_parameters() if p.grad is not None}
    return found.keys(), torch.cat([g.flatten() for g in found.values()])


def assert_equal_to_rows(group):
    scores = as_tree(group)
    names, ours = gradient(group, scores.log_probs)
    log_probs, entropy = alone(group)
    names_alone, theirs = gradient(group, log_probs)
    assert log_probs[group.mask == 1].std() > 0.5
    torch.testing.assert_close(scores.log_probs, log_probs, atol=2e-5, rtol=0)
    torch.testing.assert_close(scores.entropy, entropy, atol=5e-5, rtol=0)
    assert names == names_alone
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_group_scored_as_a_tree_is_each_completion_scored_alone(miniatures, case):
    assert_equal_to_rows(group_of(miniatures, case))


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_combination_is_exact(miniatures, case):
    assert_equal_to_rows(group_of(miniatures, case))


def test_key_heads_may_be_shared_or_copied(miniatures, monkeypatch):
    """A CPU lets the query heads share a key head; elsewhere each has its copy."""
    group = group_of(miniatures, Case())
    shared = as_tree(group)
    _, gradient_shared = gradient(group, shared.log_probs)
    monkeypatch.setattr(tree, "shares_heads", lambda device: False)
    copied = as_tree(group)
    _, gradient_copied = gradient(group, copied.log_probs)
    torch.testing.assert_close(copied.log_probs, shared.log_probs, atol=1e-5, rtol=0)
    assert (gradient_copied - gradient_shared).norm() < 1e-5 * gradient_shared.norm()


def test_a_position_too_far_shows(miniatures):
    group = group_of(miniatures, Case())
    right, wrong = as_tree(group).log_probs, as_tree(group, shift=1).log_probs
    assert (right - wrong).abs().max() > 1e-3


def test_the_picture_of_another_question_shows(miniatures):
    group = group_of(miniatures, Case())
    other = [replace(a, pixels_nf=a.pixels_nf.roll(7, 0)) for a in group.asked]
    right, wrong = as_tree(group).log_probs, as_tree(group, asked=other).log_probs
    assert (right - wrong).abs().max() > 1e-3


def test_a_trunk_without_gradient_shows_in_the_gradient_alone(miniatures, monkeypatch):
    """The fault that equal log-probabilities hide: keys and values of the prompt cut off from learning."""
    group = group_of(miniatures, Case())
    scores = as_tree(group)
    _, right = gradient(group, scores.log_probs)
    attend = tree.scaled_dot_product_attention

    def cut(q, k, v, **options):
        trunk = k.shape[2] - q.shape[2]
        if trunk:
            k = torch.cat([k[:, :, :trunk].detach(), k[:, :, trunk:]], dim=2)
            v = torch.cat([v[:, :, :trunk].detach(), v[:, :, trunk:]], dim=2)
        return attend(q, k, v, **options)

    monkeypatch.setattr(tree, "scaled_dot_product_attention", cut)
    faulty = as_tree(group)
    _, wrong = gradient(group, faulty.log_probs)
    assert torch.equal(faulty.log_probs, scores.log_probs)
    assert (wrong - right).norm() > 0.05 * right.norm()
    seeing = [p.grad.abs().max() for n, p in group.model.named_parameters() if "visual" in n]
    assert max(seeing) == 0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_rollouts_are_those_of_generate_token_by_token(miniatures, family):
    group = group_of(miniatures, Case(family=family))
    vlm = group.vlm
    prompts = collate(group.asked, vlm, padding="left", labels=False)
    end, pad = vlm.token_id(TURN_END), vlm.token_id(PAD_TOKEN)
    drawing = Drawing(24, 0.0, (end, pad), tuple(vlm.token_id(t) for t in VISION_TOKENS))
    owners = [0, 0, 1, 2, 2, 2]
    said = roll_out(group.model, prompts, rope_positions(vlm.model, prompts), owners, drawing)
    group.model.eval()
    whole = group.model.generate(
        **prompts, max_new_tokens=24, do_sample=False, eos_token_id=[end, pad], pad_token_id=pad,
        suppress_tokens=list(drawing.suppressed), repetition_penalty=1.0,
    )[:, prompts["input_ids"].shape[1] :]  # fmt: skip
    expected = [until_end(row, (end, pad)) for row in whole.tolist()]
    assert said == [expected[owner] for owner in owners]
    assert len({tuple(row) for row in said}) > 1


def until_end(row, ends):
    stop = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
    return row[: stop + 1]


def test_draws_follow_the_probabilities_of_the_model(miniatures):
    """First tokens of many completions against softmax(logits / temperature)."""
    group = group_of(miniatures, Case())
    vlm = group.vlm
    prompts = collate(group.asked[:1], vlm, padding="left", labels=False)
    drawing = Drawing(1, 0.7, (vlm.token_id(TURN_END),), tuple(vlm.token_id(t) for t in VISION_TOKENS))
    torch.manual_seed(3)
    said = roll_out(group.model, prompts, rope_positions(vlm.model, prompts), [0] * 4000, drawing)
    with torch.no_grad():
        logits = group.model(**prompts).logits[0, -1]
    logits[list(drawing.suppressed)] = float("-inf")
    chances = (logits / 0.7).softmax(-1)
    counts = torch.bincount(torch.tensor(said)[:, 0], minlength=len(chances)) / 4000
    assert (counts - chances).abs().max() < 4 * (chances.max() / 4000).sqrt()


def test_a_row_that_ended_does_not_change_the_others(miniatures):
    group = group_of(miniatures, Case())
    vlm = group.vlm
    prompts = collate(group.asked, vlm, padding="left", labels=False)
    positions = rope_positions(vlm.model, prompts)
    free = Drawing(16, 0.0, (), tuple(vlm.token_id(t) for t in VISION_TOKENS))
    whole = roll_out(group.model, prompts, positions, [0, 1, 2], free)
    assert all(len(row) == 16 for row in whole)
    end = whole[0][5]
    ended = roll_out(group.model, prompts, positions, [0, 1, 2], replace(free, ends=(end,)))
    assert ended == [until_end(row, (end,)) for row in whole]
    assert group.model.training


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_what_is_said_does_not_depend_on_what_is_decoded_beside_it(miniatures, monkeypatch, temperature):
    """The numbers that decide a draw belong to the completion: parts of a group say what the whole says."""
    mini = miniatures("qwen2_5_vl")
    vlm = mini.load()
    samples = mini.of("category")[0], mini.of("open")[0]
    asked = [encode_one(mini.pictures.prompt(sample), None, vlm) for sample in samples]
    prompts = collate(asked, vlm, padding="left", labels=False)
    positions = rope_positions(vlm.model, prompts)
    sizes = []
    decode = rollout._decode

    def counted(model, begun, luck, drawing):
        sizes.append(len(luck))
        return decode(model, begun, luck, drawing)

    monkeypatch.setattr(rollout, "_decode", counted)
    said = {}
    for at_once in (0, 1, 2, 5, 8, 9):
        drawing = Drawing(12, temperature, (vlm.token_id(TURN_END), 40), (), at_once)
        torch.manual_seed(5)
        said[at_once] = roll_out(vlm.model, prompts, positions, [0] * 4 + [1] * 4, drawing)
    assert sizes == [8] + [1] * 8 + [2] * 4 + [5, 3] + [8] + [8]
    assert all(rows == said[0] for rows in said.values())
    assert len({tuple(row) for row in said[0]}) == 8 or temperature == 0
    torch.manual_seed(5)
    calls = [roll_out(vlm.model, prompts, positions, [owner] * 4, drawing) for owner in (0, 1)]
    assert calls[0] + calls[1] == said[0]


def test_the_least_and_the_greatest_random_number_draw_what_can_be_drawn():
    drawing = Drawing(1, 1.0, (), (0, 4))
    luck = torch.tensor([0.0, 1 - 2**-53, 0.5], dtype=torch.float64)
    logits = torch.tensor([9.0, 0.0, 0.0, 0.0, 9.0]).repeat(3, 1)
    assert rollout._draw(logits, luck, drawing).tolist() == [1, 3, 2]
