"""The router on requests it has never seen, and batches whose rows use different adapters.

Part one: a router is trained on the wordings that ship and asked 600 requests of `router_prompts.yaml`, whose
wordings and names it has not seen, and further ones that try to be routed. Part two: prompts for four
adapters and the base, in one mixed batch, in one batch per adapter, one by one, and mixed by PEFT's own
`adapter_names`; the texts must be the same. Times are CPU seconds of this process, ratios of one run.

Prints tables and, as last line, one JSON object of ratios. Usage: python benchmarks/router.py [--quick]
"""

import argparse
import json
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from malpighi.geometry import View
from malpighi.inference import transformers_engine
from malpighi.inference.engine import Sampling
from malpighi.inference.transformers_engine import TransformersEngine
from malpighi.models.adapters import save_adapter
from malpighi.models.experts import each_row_its_own, load_experts
from malpighi.models.phrasings import OTHER, Grammar, draw, load_grammar
from malpighi.models.prompt import Prompt
from malpighi.models.router_settings import RouterSettings
from malpighi.models.router_training import train_router
from malpighi.models.sizes import TinySize
from malpighi.models.tiny import build_tiny
from malpighi.models.vlm import load_vlm
from malpighi.records import Turn

PROMPTS = Path(__file__).with_name("router_prompts.yaml")
KINDS = ("template", "paraphrase", "chinese", "clinical", "none")
PER_KIND = 120
LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
GROUPS = ("classification", "detection", "segmentation", "vqa")


def requests_of(kind):
    """The first requests of a kind, drawn by a fixed seed."""
    grammar = load_grammar(PROMPTS)
    families = [family for family in grammar.families if family.kind == kind]
    return draw(Grammar(grammar.format_version, grammar.names, families), 2 * PER_KIND, seed=0)[:PER_KIND]


def examine(router, phrases):
    """Counts over requests: asked, answered by the right weights, routed, routed right, served by a group."""
    routes = [router.route(phrase.text) for phrase in phrases]
    pairs = list(zip(phrases, routes, strict=True))
    return {
        "asked": len(pairs),
        "right": sum((route.adapter or OTHER) == phrase.group for phrase, route in pairs),
        "routed": sum(bool(route.adapter) for route in routes),
        "routed_right": sum(route.adapter == phrase.group for phrase, route in pairs if route.adapter),
        "served": sum(phrase.group != OTHER for phrase in phrases),
        "served_routed": sum(bool(route.adapter) for phrase, route in pairs if phrase.group != OTHER),
    }


def share(part, whole):
    return round(part / whole, 3) if whole else None


def route_all(quick):
    start = time.process_time()
    router = train_router(settings=RouterSettings(phrasings=2000, folds=2) if quick else RouterSettings())
    trained = time.process_time() - start
    kinds = {kind: requests_of(kind) for kind in (*KINDS, "adversarial")}
    start = time.process_time()
    counts = {kind: examine(router, phrases) for kind, phrases in kinds.items()}
    each = (time.process_time() - start) / sum(len(phrases) for phrases in kinds.values())
    print(f"trained in {trained:.1f} s: {router.data.trained_on}")
    limits = router.data.limits
    print(f"limits: probability {limits.confidence.value}, known words {limits.known.value}")
    print(f"one decision: {1000 * each:.2f} ms")
    print(f"{'kind':12s} {'asked':>6s} {'right':>6s} {'routed':>7s} {'of these right':>15s} {'coverage':>9s}")
    for kind, count in counts.items():
        print(
            f"{kind:12s} {count['asked']:6d} {share(count['right'], count['asked']):6.3f} "
            f"{count['routed']:7d} "
            f"{share(count['routed_right'], count['routed']) or '':>15} "
            f"{share(count['served_routed'], count['served']) or '':>9}"
        )
    total = {key: sum(counts[kind][key] for kind in KINDS) for key in counts["template"]}
    others = total["asked"] - total["served"]
    tries = counts["adversarial"]
    return {
        "requests": total["asked"],
        "right": share(total["right"], total["asked"]),
        "routed_right": share(total["routed_right"], total["routed"]),
        "coverage": share(total["served_routed"], total["served"]),
        "fallback": share(total["asked"] - total["routed"], total["asked"]),
        "others_fallback": share(others - (total["routed"] - total["served_routed"]), others),
        "adversarial_requests": tries["asked"],
        "adversarial_fallback": share(tries["asked"] - tries["routed"], tries["asked"]),
    }


def make_experts(work, size):
    """A base with four random adapters of the paper's rank and scaling, through the files of a real one."""
    base = build_tiny("qwen2_5_vl", work / "base", ["Detect nuclei in pathology tissue. one two"], size=size)
    for seed, group in enumerate(GROUPS):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            config = LoraConfig(r=32, lora_alpha=128, target_modules=LANGUAGE, task_type="CAUSAL_LM")
            model = get_peft_model(load_vlm(base).model, config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        save_adapter(model, work / "experts", group, base)
    return load_experts(load_vlm(base), work / "experts")


def make_prompts(vlm, count):
    side = 4 * vlm.family.pixels_per_token
    rng = np.random.default_rng(0)
    prompts = []
    for index in range(count):
        image = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        turn = Turn("user", "Detect nuclei in pathology tissue. " * (1 + index % 3))
        prompts.append(Prompt("Think.", (turn,), (image,), (View(image.size, image.size),), str(index)))
    return prompts


@contextmanager
def by_peft(model, adapters):
    """What `adapter_names` does inside PEFT's `generate`."""
    with model.base_model._enable_peft_forward_hooks(adapter_names=[name or "__base__" for name in adapters]):
        yield


def mix(quick):
    size = TinySize() if quick else TinySize(hidden=512, layers=6, heads=8, kv_heads=2, feed_forward=1536)
    each, new_tokens, repeats = (2, 8, 2) if quick else (4, 32, 3)
    names = (*GROUPS, "")
    with tempfile.TemporaryDirectory() as work:
        vlm = make_experts(Path(work), size)
    prompts = make_prompts(vlm, each * len(names))
    adapter = {prompt.digest: names[index % len(names)] for index, prompt in enumerate(prompts)}
    sampling = Sampling(max_new_tokens=new_tokens)
    together = TransformersEngine(vlm, len(prompts), route=lambda prompt: adapter[prompt.digest])
    alone = TransformersEngine(vlm, 1, route=lambda prompt: adapter[prompt.digest])

    def peft():
        transformers_engine.each_row_its_own = by_peft
        try:
            return together.generate(prompts, sampling)
        finally:
            transformers_engine.each_row_its_own = each_row_its_own

    def grouped():
        said = {}
        for name in names:
            members = [prompt for prompt in prompts if adapter[prompt.digest] == name]
            said |= zip(members, together.generate(members, sampling), strict=True)
        return [said[prompt] for prompt in prompts]

    ways = {
        "mixed": lambda: together.generate(prompts, sampling),
        "peft_mixed": peft,
        "grouped": grouped,
        "one_by_one": lambda: alone.generate(prompts, sampling),
    }
    texts = {name: [completion.text for completion in way()] for name, way in ways.items()}
    same = all(said == texts["one_by_one"] for said in texts.values())
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    best = {name: min(seconds) for name, seconds in times.items()}
    print(f"\n{len(prompts)} prompts, {len(GROUPS)} adapters and the base, {new_tokens} tokens each")
    print(f"texts the same in all ways: {same}; different texts: {len(set(texts['mixed']))}")
    for name, seconds in best.items():
        print(f"{name:12s} {seconds:8.3f} s {seconds / best['mixed']:6.2f} x mixed")
    if not same:
        raise SystemExit("the ways of mixing disagree")
    return {f"{name}_over_mixed": round(best[name] / best["mixed"], 2) for name in ways if name != "mixed"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer wordings learned, a smaller model")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(json.dumps(route_all(quick) | mix(quick)))


if __name__ == "__main__":
    main()
