"""Does reinforcement pay? The miniature of `mini`, with the controls that papers leave out.

    malpighi run controls                       on the phantom
    malpighi run controls --data FOLDER         on real data sets

One supervised model goes five ways: routed experts; one adapter of as many parameters; experts on the
published reward; experts by DAPO; and no reinforcement at all, but supervised training for as long. Each is
compared with where it started, and the experts with each.
"""

from msgspec.structs import replace

from malpighi.grading.published import Mode
from malpighi.grading.reward import DEFAULT_WEIGHTS
from malpighi.pipeline.recipe import Evaluate, Experts, Recipe, Reinforce, Report, Supervised
from malpighi.recipes.mini import REWARDS, SOURCES, mini
from malpighi.training.settings import Lora

SUPERVISED_STEPS = 3
"""Supervised steps in the time of one of reinforcement, about; measured on the demo."""

OVERLONG = {task: parts | {"overlong": -1.0} for task, parts in REWARDS.items()}


def controls(size: str = "", family: str = "qwen2_5_vl", data: str = "", seed: int = 0) -> Recipe:
    """The recipe; for its arguments and errors see `mini`."""
    base = mini(size, family, data, seed)
    supervise, experts, evaluate, report = (
        base.stages[name] for name in ("supervise", "reinforce", "evaluate", "report")
    )
    assert isinstance(supervise, Supervised)
    assert isinstance(experts, Experts)
    assert isinstance(evaluate, Evaluate)
    assert isinstance(report, Report)
    train, both = experts.train, 2 * experts.train.steps
    arms = {
        "continued": replace(
            supervise,
            start="supervise",
            train=replace(supervise.train, steps=SUPERVISED_STEPS * both, learning_rate=1e-3),
        ),
        "experts": experts,
        "one_adapter": Reinforce(
            start="supervise",
            tasks=experts.tasks,
            train=replace(train, steps=both, lora=Lora(rank=2 * train.lora.rank, alpha=2 * train.lora.alpha)),
        ),
        "paper_reward": replace(
            experts, train=replace(train, mode=Mode.PAPER, rewards=dict(DEFAULT_WEIGHTS))
        ),
        "dapo": replace(
            experts,
            train=replace(
                train, loss="dapo", epsilon_high=0.28, beta=0.0, resample=3, rewards=OVERLONG,
                overlong_buffer=train.max_new_tokens // 4,
            ),
        ),
    }  # fmt: skip
    start = {name: base.stages[name] for name in ("data", "build", "align", "supervise")}
    return replace(
        base,
        name="controls",
        title="Controls of reinforcement " + ("on real data" if data else "on the phantom"),
        stages=start
        | arms
        | {
            "evaluate": replace(
                evaluate,
                models={"supervised": "supervise"} | {name: name for name in arms},
                classifier="",
            ),
            "report": replace(
                report,
                pairs=(
                    *(("supervised", name) for name in arms),
                    *((name, "experts") for name in arms if name != "experts"),
                ),
            ),
        },
        sources=CONTROL_SOURCES,
    )


_EXPERTS = {
    name.removeprefix("stages.reinforce"): source
    for name, source in SOURCES.items()
    if name.startswith("stages.reinforce")
}
_DAPO = "paper: DAPO 4.1, which Patho-R1 3.4 names without a number"

CONTROL_SOURCES: dict[str, str] = (
    {
        name: source
        for name, source in SOURCES.items()
        if not name.startswith(("stages.reinforce", "stages.classify"))
    }
    | {
        f"stages.{arm}{rest}": source
        for arm in ("experts", "one_adapter", "paper_reward", "dapo")
        for rest, source in _EXPERTS.items()
        if (arm, rest) != ("one_adapter", ".router")
    }
    | {
        "stages.continued": "our choice: as `supervise`, at half its rate, for as long as the others",
        "stages.one_adapter.train.lora": "our choice: as many parameters as the two experts together",
        "stages.paper_reward.train.mode": "paper: SmartPath-R1 eq. 6-8, holes included",
        "stages.paper_reward.train.rewards": "paper: SmartPath-R1 eq. 5, lambda = 1",
        "stages.dapo.train.loss": _DAPO,
        "stages.dapo.train.epsilon_high": _DAPO,
        "stages.dapo.train.beta": f"{_DAPO}: no KL",
        "stages.dapo.train.resample": "our choice: rounds; DAPO's script draws up to ten batches",
        "stages.dapo.train.overlong_buffer": "our choice: a quarter of the length (DAPO: a fifth)",
        "stages.dapo.train.rewards": "paper: Patho-R1 3.4: a penalty of length; its weight is our reading",
    }
)
