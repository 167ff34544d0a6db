import math
import re
import shutil
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from trl.trainer import grpo_trainer

from malpighi.errors import ConfigError, DataError
from malpighi.grading.conduct import overlong
from malpighi.grading.published import Mode
from malpighi.guidelines.pack import load_pack
from malpighi.models import rollout
from malpighi.models.encode import encode
from malpighi.models.families import FAMILIES, PAD_TOKEN, TURN_END, VISION_TOKENS
from malpighi.models.vlm import load_vlm
from malpighi.records import Grade, Status, TaskKind
from malpighi.training.reinforce import Rewards, train_reinforce
from malpighi.training.rollouts import Rollout, RolloutFile, faults, read_rollouts
from malpighi.training.runtime import StageRuntime
from malpighi.training.settings import Lora, ReinforceConfig
from malpighi.training.shared_prefix import SharedPrefixTrainer

SETTINGS = {
    "steps": 2,
    "prompts": 2,
    "group": 3,
    "micro_batch": 6,
    "max_new_tokens": 10,
    "learning_rate": 3e-3,
    "log_every": 1,
    "save_every": 1,
}


@pytest.fixture
def mini(miniatures):
    return miniatures("qwen2_5_vl")


def config(**changes):
    return ReinforceConfig(**{**SETTINGS, **changes})


def train(mini, folder, settings, *, grade_text=None, vlm=None, samples=None):
    """Train on questions of unequal length about pictures of two sizes."""
    return train_reinforce(
        vlm or mini.load(),
        samples or [*mini.of("category")[:6], *mini.of("nuclei", "tissue", "open")[:6]],
        mini.pictures,
        settings,
        StageRuntime(folder),
        grade_text or mini.grade_text,
        seed=0,
    )


def vowels(sample, text, prompt, reading):
    """A grade that any model can learn to please: the share of e in what it says."""
    share = text.count("e") / max(len(text), 1)
    return Grade(share, Status.OK, parts={"task": share, "format": 0.0})


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture
def seen(monkeypatch):
    """Every call in which TRL scores completions, with what came out."""
    calls = []
    score = SharedPrefixTrainer._get_per_token_logps_and_entropies

    def recorded(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        result = score(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)
        calls.append((input_ids.clone(), attention_mask.clone(), logits_to_keep, result[0].detach().clone()))
        return result

    monkeypatch.setattr(SharedPrefixTrainer, "_get_per_token_logps_and_entropies", recorded)
    return calls


def test_a_completion_without_its_end_is_truncated(mini, tmp_path):
    vlm, told, metrics = mini.load(), [], []
    end, pad = vlm.token_id(TURN_END), vlm.token_id(PAD_TOKEN)

    def grade_text(sample, text, prompt, reading):
        told.append((sample.id, text, prompt.digest, reading.truncated))
        assert reading.length.limit == 10
        return Grade(0.25, Status.OK, parts={"task": 0.25, "format": 1.0})

    samples = mini.of("category")[:2]
    rollouts = RolloutFile(tmp_path / "rollouts.jsonl", 0)
    rewards = Rewards(samples, mini.pictures, grade_text, config(), [end, pad], rollouts)
    values = rewards(
        completions=[[{"role": "assistant", "content": word}] for word in ("a", "b", "c", "d")],
        completion_ids=[[5, end], [5, 6], [], [7, pad]],
        id=[samples[0].id, samples[0].id, samples[1].id, samples[1].id],
        log_metric=lambda *pair: metrics.append(pair),
        prompts=[],
        trainer_state=SimpleNamespace(global_step=7),
    )
    assert values == [1.25] * 4
    digests = [mini.pictures.prompt(sample).digest for sample in samples]
    assert told == [
        (samples[0].id, "a", digests[0], False),
        (samples[0].id, "b", digests[0], True),
        (samples[1].id, "c", digests[1], True),
        (samples[1].id, "d", digests[1], False),
    ]
    assert metrics == [("score/classification", 0.25), ("format", 1.0)] * 4 + [("ungraded", 0.0)]
    kept = read_rollouts(tmp_path / "rollouts.jsonl")
    assert [(row.step, row.sample, row.text, row.length, row.truncated) for row in kept] == [
        (7, samples[0].id, "a", 2, False),
        (7, samples[0].id, "b", 2, True),
        (7, samples[1].id, "c", 0, True),
        (7, samples[1].id, "d", 2, False),
    ]
    assert {row.reward for row in kept} == {1.25}


def test_what_cannot_be_graded_is_left_out_recorded_and_counted(mini, tmp_path):
    """A grader that stumbles over one question, and a reward that is no number, do not end the stage."""
    stumbling, nameless = mini.of("category")[0].id, mini.of("category")[1].id

    def grade_text(sample, text, prompt, reading):
        if sample.id == stumbling:
            raise ZeroDivisionError("a grader's fault")
        value = math.nan if sample.id == nameless else text.count("e") / max(len(text), 1)
        return Grade(value, Status.OK, parts={"task": value, "format": 0.0})

    samples = mini.of("category")[:4]
    rows = train(mini, tmp_path, config(steps=4), grade_text=grade_text, samples=samples)
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in rows)
    assert 0 < mean(rows, "ungraded") < 1
    rollouts = read_rollouts(tmp_path / "rollouts.jsonl")
    assert len(rollouts) == 4 * 2 * 3
    for row in rollouts:
        assert (row.reward is None) == bool(row.fault) == (row.sample in (stumbling, nameless))
    failures = {f.id: f.reason for f in faults(tmp_path / "rollouts.jsonl", "reinforce")}
    assert failures.keys() == {stumbling, nameless}
    assert "ZeroDivisionError: a grader's fault" in failures[stumbling]
    assert "the reward is nan" in failures[nameless]


def test_a_group_that_earns_the_same_teaches_nothing_and_is_counted(mini, tmp_path):
    def grade_text(sample, text, prompt, reading):
        return Grade(0.5, Status.OK, parts={"task": 0.5, "format": 1.0})

    rows = train(mini, tmp_path, config(beta=0.0), grade_text=grade_text)
    assert all(row["frac_reward_zero_std"] == 1 and row["grad_norm"] == 0 for row in rows)


def test_rollouts_go_on_where_the_checkpoint_left_off(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    drawn = [
        Rollout(step=k, sample=f"s{k}", text="é", length=3, truncated=False, reward=0.1) for k in range(4)
    ]
    RolloutFile(path, 0).add(drawn)
    with path.open("ab") as file:
        file.write(b'{"step":4,"sample":"cut sh')
    assert read_rollouts(path) == drawn
    again = RolloutFile(path, 2)
    again.add(drawn[2:])
    assert read_rollouts(path) == drawn
    assert read_rollouts(tmp_path / "none.jsonl") == []


def test_the_graders_are_told_the_truth_about_what_was_sampled(mini, tmp_path, seen):
    """The truncated flag agrees with the mask that TRL takes its loss over."""
    told = []

    def grade_text(sample, text, prompt, reading):
        told.append((text, reading.truncated))
        return Grade(0.0, Status.OK, parts={"task": 0.0, "format": 0.0})

    vlm = mini.load()
    # A model that ends about every tenth token: some completions end, some do not.
    favour(vlm, TURN_END, 3.8)
    train(mini, tmp_path, config(steps=1, prompts=4, micro_batch=12), grade_text=grade_text, vlm=vlm)
    assert {truncated for _, truncated in told} == {True, False}
    ids, mask, keep, _ = seen[0]
    ended = [
        vlm.token_id(TURN_END) in row[-keep:][on[-keep:] == 1] for row, on in zip(ids, mask, strict=True)
    ]
    assert sum(not truncated for _, truncated in told) == sum(map(bool, ended))
    assert not any(TURN_END in text for text, _ in told)


def favour(vlm, token, amount):
    """Add to one token's logit at every position."""
    bias = torch.zeros(vlm.model.lm_head.out_features)
    bias[vlm.token_id(token)] = amount
    vlm.model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)


@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_the_curve_tells_reward_length_and_entropy(mini, tmp_path, beta):
    rows = train(mini, tmp_path, config(beta=beta))
    expected = {"loss", "reward", "reward_std", "length", "entropy", "format", "step", "learning_rate"}
    assert [row["step"] for row in rows] == [1, 2]
    assert all(expected <= row.keys() for row in rows)
    assert all(("kl" in row) == (beta > 0) for row in rows)
    assert all(any(name.startswith("score/") for name in row) for row in rows)
    assert all(0 < row["length"] <= 10 for row in rows)


def test_a_stage_shorter_than_its_logging_still_has_a_curve(mini, tmp_path):
    assert [row["step"] for row in train(mini, tmp_path, config(log_every=5))] == [1]


def test_the_seed_alone_decides(mini, tmp_path):
    settings = config(lora=Lora(rank=4, alpha=8))
    torch.manual_seed(11)
    one = train(mini, tmp_path / "one", settings, grade_text=vowels)
    torch.manual_seed(12)
    assert train(mini, tmp_path / "two", settings, grade_text=vowels) == one


@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_what_is_rewarded_is_said_more_often(mini, tmp_path, loss):
    settings = config(
        steps=12, prompts=2, group=8, micro_batch=16, learning_rate=2e-2, loss=loss, save_every=100, beta=0.0
    )
    rows = train(mini, tmp_path, settings, grade_text=vowels, samples=mini.of("category"))
    first, last = rows[:3], rows[-3:]
    assert mean(last, "reward") > 2 * mean(first, "reward")
    assert mean(last, "entropy") < mean(first, "entropy")


def mean(rows, name):
    return sum(row[name] for row in rows) / len(rows)


@pytest.mark.parametrize(
    ("family", "lora"),
    [pytest.param("qwen2_5_vl", 0), ("qwen3_vl", 0), ("qwen2_5_vl", 4)],
)
def test_a_resumed_stage_ends_as_a_straight_one_bit_for_bit(miniatures, tmp_path, family, lora):
    mini = miniatures(family)
    settings = config(steps=4, save_every=2, beta=0.01, lora=Lora(rank=lora, alpha=8))
    straight = train(mini, tmp_path / "straight", settings, grade_text=vowels)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "straight" / "checkpoints", again / "checkpoints")
    shutil.rmtree(again / "checkpoints" / "checkpoint-4")
    shutil.copy(tmp_path / "straight" / "rollouts.jsonl", again)
    resumed = train(mini, again, settings, grade_text=vowels)
    assert resumed == straight
    assert (again / "rollouts.jsonl").read_bytes() == (tmp_path / "straight" / "rollouts.jsonl").read_bytes()
    one, other = weights(again), weights(tmp_path / "straight")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_trl_sees_the_probabilities_that_encode_gives(miniatures, tmp_path, seen, family):
    """Prompts of unequal length in one batch: padding must move neither image tokens nor positions."""
    mini = miniatures(family)
    samples = [mini.of("category")[0], mini.of("open")[0], mini.of("nuclei")[0], mini.of("NE", "NM", "NC")[0]]
    prompts = {tuple(encoded_prompt(mini, s)): mini.pictures.prompt(s) for s in samples}
    assert len({len(ids) for ids in prompts}) > 1
    train(
        mini, tmp_path, config(steps=1, prompts=4, group=2, micro_batch=8, learning_rate=0.0), samples=samples
    )
    vlm = mini.load()
    input_ids, mask, keep, found = seen[0]
    compared = 0
    for ids_l, mask_l, found_k in zip(input_ids, mask, found, strict=True):
        prompt_ids = tuple(ids_l[:-keep][mask_l[:-keep] == 1].tolist())
        said = ids_l[-keep:][mask_l[-keep:] == 1].tolist()
        batch = encode([prompts[prompt_ids]], [said], vlm)
        labels = batch.pop("labels")
        with torch.inference_mode():
            logits = vlm.model(**batch).logits[0].log_softmax(-1)
        expected = logits[-len(said) - 1 : -1].gather(1, labels[0, -len(said) :, None])[:, 0]
        torch.testing.assert_close(found_k[: len(said)], expected, atol=1e-4, rtol=1e-4)
        compared += 1
    assert compared == 8


def encoded_prompt(mini, sample):
    return encode([mini.pictures.prompt(sample)], None, mini.load())["input_ids"][0].tolist()


def test_tokens_that_announce_an_image_are_never_sampled(mini, tmp_path, seen):
    vlm = mini.load()
    for token in VISION_TOKENS:
        favour(vlm, token, 50.0)
    train(mini, tmp_path, config(steps=1), vlm=vlm)
    ids, _, keep, _ = seen[0]
    forbidden = torch.tensor([vlm.token_id(token) for token in VISION_TOKENS])
    assert not torch.isin(ids[:, -keep:], forbidden).any()


def test_the_trained_model_is_saved_whole(mini, tmp_path):
    train(mini, tmp_path, config(), grade_text=vowels)
    before = load_file(mini.folder / "model.safetensors")
    after = weights(tmp_path)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_vlm(tmp_path / "model").family.name == "qwen2_5_vl"


def test_too_few_questions_are_refused(mini, tmp_path):
    with pytest.raises(ConfigError, match="1 samples are fewer than the 2 prompts of one step"):
        train(mini, tmp_path, config(), samples=mini.samples[:1])


def test_groups_that_do_not_split_evenly_are_refused(mini, tmp_path):
    with pytest.raises(ConfigError, match="micro_batch 4 does not divide 2 x 3"):
        train(mini, tmp_path, config(micro_batch=4))


def test_what_we_rely_on_in_trl(mini, tmp_path, monkeypatch):
    """The behaviours of TRL 1.16 that the stage is built on; look here first when TRL is raised."""
    assert re.match(r"1\.16\.", version("trl"))
    calls = []
    reward = Rewards.__call__

    def recorded(self, **given):
        calls.append(given)
        return reward(self, **given)

    monkeypatch.setattr(Rewards, "__call__", recorded)
    rows = train(mini, tmp_path, config(steps=1))
    (given,) = calls
    assert {"prompts", "completions", "completion_ids", "id", "log_metric"} <= given.keys()
    assert len(given["completions"]) == len(given["completion_ids"]) == len(given["id"]) == 2 * 3
    assert [given["id"].count(key) for key in dict.fromkeys(given["id"])] == [3, 3]
    assert all(message[-1]["role"] == "assistant" for message in given["completions"])
    assert {"rewards/grade/mean", "completions/clipped_ratio", "frac_reward_zero_std"} <= rows[0].keys()
    assert [prompt[0]["content"] for prompt in given["prompts"]] == given["id"]


def test_the_length_in_tokens_is_rewarded(mini, tmp_path):
    """DAPO's reward of Patho-R1: the part `overlong` weighed -1 over the buffer before the limit."""
    weights = {task: {"task": 1.0, "overlong": -1.0} for task in TaskKind}
    settings = config(steps=1, prompts=4, micro_batch=12, overlong_buffer=4, rewards=weights)
    vlm = mini.load()
    favour(vlm, TURN_END, 3.8)
    train(mini, tmp_path, settings, grade_text=zero_but_long, vlm=vlm)
    rows = read_rollouts(tmp_path / "rollouts.jsonl")
    assert {row.length for row in rows} > {10}
    for row in rows:
        assert row.reward == -min(max(row.length - 6, 0) / 4, 1.0)


def zero_but_long(sample, text, prompt, reading):
    return Grade(0.0, Status.OK, parts={"task": 0.0, "overlong": overlong(reading.length)})


def test_the_mode_and_the_guideline_reach_the_grader(mini, tmp_path):
    told = set()

    def grade_text(sample, text, prompt, reading):
        told.add((reading.mode, reading.pack))
        return vowels(sample, text, prompt, reading)

    train(mini, tmp_path, config(steps=1, mode=Mode.PAPER, guideline="tbs"), grade_text=grade_text)
    assert told == {(Mode.PAPER, load_pack("tbs"))}


def test_questions_that_teach_nothing_make_room(mini, tmp_path):
    """Half of the questions give every completion the same: with rounds enough, none is learned from."""
    samples = mini.of("category")[:8]
    dull = {sample.id for sample in samples[::2]}

    def grade_text(sample, text, prompt, reading):
        if sample.id in dull:
            return Grade(0.5, Status.OK, parts={"task": 0.5, "format": 1.0})
        return vowels(sample, text, prompt, reading)

    rows = train(mini, tmp_path / "kept", config(steps=3), grade_text=grade_text, samples=samples)
    assert mean(rows, "frac_reward_zero_std") > 0
    rows = train(mini, tmp_path / "new", config(steps=3, resample=4), grade_text=grade_text, samples=samples)
    rollouts = read_rollouts(tmp_path / "new" / "rollouts.jsonl")
    assert mean(rows, "frac_reward_zero_std") == 0
    assert mean(rows, "questions_drawn") > 1
    kept, dropped = ([row for row in rollouts if row.dropped is whether] for whether in (False, True))
    assert len(kept) == 3 * 2 * 3
    assert len(rollouts) == round(sum(row["questions_drawn"] for row in rows) * 2) * 3
    assert not {row.sample for row in kept} & dull
    assert {row.sample for row in dropped} & dull


@pytest.mark.parametrize("at_once", [1, 2, 3, 8])
def test_a_rollout_decoded_in_parts_is_the_same(mini, tmp_path, monkeypatch, at_once):
    """Parts of a group, one group, two of four groups: the same is said, so the same is learned."""
    settings = {"prompts": 4, "micro_batch": 6, "resample": 1}
    whole = train(mini, tmp_path / "whole", config(**settings), grade_text=vowels)
    sizes = []
    decode = rollout._decode

    def counted(model, begun, luck, drawing):
        sizes.append(len(luck))
        return decode(model, begun, luck, drawing)

    monkeypatch.setattr(rollout, "_decode", counted)
    parts = train(mini, tmp_path / "parts", config(**settings, rollout_batch=at_once), grade_text=vowels)
    assert max(sizes) == {1: 1, 2: 2, 3: 3, 8: 6}[at_once]
    assert parts == whole
    files = [tmp_path / name / "rollouts.jsonl" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_rollout_of_less_than_nothing_is_refused():
    with pytest.raises(ConfigError, match="rollout_batch -1 is below 0"):
        config(rollout_batch=-1)


def test_the_rounds_of_resampling_are_bounded(mini, tmp_path):
    def grade_text(sample, text, prompt, reading):
        return Grade(0.5, Status.OK, parts={"task": 0.5, "format": 1.0})

    rows = train(mini, tmp_path, config(steps=1, resample=2, beta=0.0), grade_text=grade_text)
    assert rows[0]["questions_drawn"] == 3
    assert rows[0]["frac_reward_zero_std"] == 1
    assert rows[0]["grad_norm"] == 0


def test_a_resumed_stage_draws_the_same_questions_again(mini, tmp_path):
    settings = config(steps=4, save_every=2, resample=2)
    samples = mini.of("category", "NE", "NM")[:12]

    def grade_text(sample, text, prompt, reading):
        share = float(len(text) > 20 and len(sample.id) % 2)
        return Grade(share, Status.OK, parts={"task": share, "format": 0.0})

    straight = train(mini, tmp_path / "straight", settings, grade_text=grade_text, samples=samples)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "straight" / "checkpoints", again / "checkpoints")
    shutil.rmtree(again / "checkpoints" / "checkpoint-4")
    shutil.copy(tmp_path / "straight" / "rollouts.jsonl", again)
    assert train(mini, again, settings, grade_text=grade_text, samples=samples) == straight
    assert (again / "rollouts.jsonl").read_bytes() == (tmp_path / "straight" / "rollouts.jsonl").read_bytes()


def test_gradient_checkpointing_changes_nothing(mini, tmp_path):
    straight = train(mini, tmp_path / "straight", config(), grade_text=vowels)
    assert train(mini, tmp_path / "saved", config(gradient_checkpointing=True), grade_text=vowels) == straight


def test_bf16_computes_in_bf16(mini, tmp_path, seen):
    """The same completions score nearly the same, and not the same: the products are rounded to 8 bits."""
    vlm, settings = mini.load(), config(steps=1, learning_rate=0.0)
    train(mini, tmp_path / "rough", config(steps=1, learning_rate=0.0, precision="bf16"), vlm=vlm)
    ids, mask, keep, rough = seen[0]
    assert all(weight.dtype == torch.float32 for weight in vlm.model.parameters())
    seen.clear()
    train(mini, tmp_path / "exact", settings)
    same = [row for row, other in enumerate(seen[0][0]) if torch.equal(other, ids[row])]
    exact = seen[0][3]
    assert same
    on = mask[:, -keep:].bool()
    for row in same:
        gap = (rough[row] - exact[row])[on[row]].abs()
        assert 0 < gap.max() < 0.1


def test_several_updates_of_one_rollout_are_off_policy_and_clipped(mini, tmp_path):
    """Under `updates` the ratio leaves 1 after the first step; a resumed run goes on between rollouts."""
    settings = config(steps=4, updates=2, save_every=2, learning_rate=3e-2, epsilon=0.01, epsilon_high=0.01)
    rows = train(mini, tmp_path / "straight", settings, grade_text=vowels)
    region = [row["clip_ratio/region_mean"] for row in rows]
    assert region[0] == region[2] == 0
    assert region[1] > 0
    drawn = read_rollouts(tmp_path / "straight" / "rollouts.jsonl")
    assert [row.step for row in drawn] == [0] * 12 + [2] * 12
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "straight" / "checkpoints", again / "checkpoints")
    shutil.rmtree(again / "checkpoints" / "checkpoint-4")
    shutil.copy(tmp_path / "straight" / "rollouts.jsonl", again)
    assert train(mini, again, settings, grade_text=vowels) == rows


def test_a_checkpoint_within_a_rollout_is_refused(mini, tmp_path):
    with pytest.raises(ConfigError, match="save_every 1 is no multiple of updates 2"):
        train(mini, tmp_path, config(updates=2))


def test_a_grader_that_always_fails_stops_the_stage(mini, tmp_path):
    def grade_text(sample, text, prompt, reading):
        raise ZeroDivisionError("a grader's fault")

    with pytest.raises(DataError, match="no completion could be graded"):
        train(mini, tmp_path, config(steps=9, patience=3), grade_text=grade_text)


@pytest.mark.parametrize(
    ("grade", "words"),
    [(0.5, "no question had two completions of different reward"), (None, "ran into the length limit")],
)
def test_a_collapsed_policy_stops_the_stage_with_the_reason(mini, tmp_path, grade, words):
    def grade_text(sample, text, prompt, reading):
        value = text.count("e") / max(len(text), 1) if grade is None else grade
        return Grade(value, Status.OK, parts={"task": value, "format": 0.0})

    vlm = mini.load()
    favour(vlm, TURN_END, -50.0 if grade is None else 3.8)
    favour(vlm, PAD_TOKEN, -50.0)  # it ends a completion too
    with pytest.raises(DataError, match=rf"collapsed: over the last 3 steps \(to 3\) .*{words}"):
        train(mini, tmp_path, config(steps=9, patience=3), grade_text=grade_text, vlm=vlm)
    assert len({row.step for row in read_rollouts(tmp_path / "rollouts.jsonl")}) == 3


def test_curves_are_written_for_tensorboard(mini, tmp_path):
    train(mini, tmp_path, config())
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    told = events.read_bytes()
    assert b"train/reward" in told
    assert b"train/kl" in told


class Killed(BaseException):
    """What no handler of errors catches, as a kill is caught by none."""


@pytest.mark.parametrize(
    "inside", ["_draw", "_compute_loss", "_get_per_token_logps_and_entropies", "_calculate_rewards"]
)
def test_a_stage_killed_inside_a_step_ends_as_a_straight_one(mini, tmp_path, monkeypatch, inside):
    """In the rollout, between two micro-batches, while scoring, while grading."""
    settings = config(steps=4, prompts=4, micro_batch=6, save_every=1, beta=0.01, resample=1)
    straight = train(mini, tmp_path / "straight", settings, grade_text=vowels)
    works = getattr(SharedPrefixTrainer, inside)

    def killed_in_the_third_step(self, *args, **kwargs):
        result = works(self, *args, **kwargs)
        if self.state.global_step == 2:
            raise Killed
        return result

    with monkeypatch.context() as patched:
        patched.setattr(SharedPrefixTrainer, inside, killed_in_the_third_step)
        with pytest.raises(Killed):
            train(mini, tmp_path / "killed", settings, grade_text=vowels)
    assert train(mini, tmp_path / "killed", settings, grade_text=vowels) == straight
    files = [tmp_path / name / "rollouts.jsonl" for name in ("killed", "straight")]
    assert files[0].read_bytes() == files[1].read_bytes()


class FakeVllm:
    """TRL's holder of vLLM, without vLLM: answers by rule, and remembers what it was asked."""

    def __init__(self, *, mode, generation_kwargs, **rest):
        self.mode = mode
        self.sampling = generation_kwargs
        self.temperature = rest["temperature"]
        self.calls, self.synced = [], 0
        FakeVllm.made = self

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations):
        self.calls.append((prompts, images, num_generations))
        asked = prompts[::num_generations] if self.mode == "server" else prompts
        count = num_generations if self.mode == "server" else self.sampling["n"]
        said = [[40 + k, 60 + len(ids) % 7] for ids in asked for k in range(count)]
        return asked, said, [[[-2.0], [None]] for _ in said], None


@pytest.mark.parametrize(("mode", "vllm"), [("colocate", "colocate"), ("server", "http://localhost:1")])
@pytest.mark.parametrize("resample", [0, 1])
def test_vllm_is_asked_once_per_question(mini, tmp_path, monkeypatch, mode, vllm, resample):
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", FakeVllm)
    if mode == "server":
        monkeypatch.setattr(
            FakeVllm, "vllm_client", SimpleNamespace(get_server_info=server_info), raising=False
        )
    rows = train(mini, tmp_path, config(vllm=vllm, resample=resample), grade_text=vowels)
    made = FakeVllm.made
    assert made.mode == mode
    assert made.synced == 2
    times = 3 if mode == "server" else 1
    for prompts, images, group in made.calls:
        assert group == 3
        assert len(prompts) == len(images)
        assert len(prompts) % times == 0
    assert len(made.calls[0][0]) == 2 * times
    vlm = mini.load()
    assert made.sampling["logit_bias"].keys() == {vlm.token_id(token) for token in VISION_TOKENS}
    shown = {sample.id: mini.pictures.prompt(sample).images for sample in mini.samples}
    sizes = {tuple(image.size for image in images) for images in shown.values()}
    assert all(tuple(i.size for i in each) in sizes for _, images, _ in made.calls for each in images)
    assert all("sampling/importance_sampling_ratio/mean" in row for row in rows)
    kept = [row for row in read_rollouts(tmp_path / "rollouts.jsonl") if not row.dropped]
    assert [row.length for row in kept] == [2] * 2 * 2 * 3


def server_info():
    return {"model_config": {"logprobs_mode": "processed_logprobs"}}
