"""Reading the chosen option: our parser beside the published rules of two evaluation kits, as numbers.

The rules are written anew from their published descriptions (no code of theirs): VLMEvalKit's exact matching
without its judge, and PathMMU's (which is MMMU's) without its random draw. Where these would ask a judge or
draw an option, "no answer" is counted.

Prints a table and, as last line, one JSON object of ratios. Usage: python benchmarks/parsing.py [--quick]
"""

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path

from malpighi.grading.choice import read_choice
from malpighi.grading.tags import read_reply
from malpighi.grading.trial_replies import trial_replies
from malpighi.records import option_label

REPLIES = Path(__file__).parents[1] / "tests/grading/replies.json"


def staged(text, options):
    """Ours."""
    answer = read_reply(text).answer
    return read_choice(answer, options).option if answer else None


def vlmevalkit(text, options):
    """A sentence `answer is X` (A to D), else the only letter, near the end; else the only option named.

    Letters are words after punctuation (not tags) was blanked; a lone A in a longer text is an article.
    """
    labels = [option_label(i) for i in range(len(options))]
    verbose = re.search(r"answer is:?\s*\(?([A-D])\b", text, re.IGNORECASE)
    if verbose and verbose[1].upper() in labels:
        return labels.index(verbose[1].upper())
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
    found = [label for label in labels if label in words]
    if len(found) == 1 and not (found == ["A"] and len(words) > 3 and "A" not in words[-5:]):
        return labels.index(found[0]) if found[0] in words[-5:] or len(words) <= 5 else None
    named = [i for i, option in enumerate(options) if option.lower() in text.lower()]
    return named[0] if len(named) == 1 and not found else None


def pathmmu(text, options):
    """`(X)`, else X between spaces, else (in more than five words) an option's text; the last counts."""
    text = f" {text.strip(',.!?;: ' + chr(39))} "
    labels = [option_label(i) for i in range(len(options))]
    places = {i: text.rfind(f"({label})") for i, label in enumerate(labels)}
    if max(places.values()) < 0:
        places = {i: text.rfind(f" {label} ") for i, label in enumerate(labels)}
    if max(places.values()) < 0 and len(text.split()) > 5:
        places = {i: text.lower().rfind(option.lower()) for i, option in enumerate(options)}
    best = max(places, key=places.__getitem__)
    return best if places[best] >= 0 else None


PARSERS = {"ours": staged, "VLMEvalKit": vlmevalkit, "PathMMU": pathmmu}


def fixtures():
    """(reply, options, truth) of the lettered hand-written replies; truth None where no option is stated."""
    data = json.loads(REPLIES.read_text(encoding="utf-8"))
    sets = data["option_sets"]
    return [
        (case["reply"], tuple(sets[case["options"]]), case.get("option"))
        for case in data["cases"]
        if case["options"] != "closed"
    ]


def judge(parser, cases):
    """Counts of right, no answer and wrong, and the slowest reply, ms."""
    counts, slowest = Counter(), 0.0
    for text, options, truth in cases:
        started = time.perf_counter()
        found = parser(text, options)
        slowest = max(slowest, time.perf_counter() - started)
        if found == truth:
            counts["right"] += 1
        else:
            counts["no answer" if found is None else "wrong"] += 1
    return counts, 1000 * slowest


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true")
    count = 2_000 if arguments.parse_args().quick else 20_000
    sets = {
        "fixtures": fixtures(),
        "fuzzed": [(reply.text, reply.options, reply.truth) for reply in trial_replies(count, seed=11)],
    }
    print(
        f"{'set':10s} {'parser':12s} {'n':>6s} {'right':>7s} {'none':>7s} {'wrong':>7s} {'slowest ms':>11s}"
    )
    shares = {}
    for name, cases in sets.items():
        for parser, read in PARSERS.items():
            counts, slowest = judge(read, cases)
            values = [counts[outcome] for outcome in ("right", "no answer", "wrong")]
            print(f"{name:10s} {parser:12s} {len(cases):6d} " + " ".join(f"{v:7d}" for v in values), end="")
            print(f" {slowest:11.1f}")
            shares[name, parser] = [value / len(cases) for value in values]
    ratios = {
        f"{name}_{parser.lower()}_{outcome}": round(share, 4)
        for (name, parser), values in shares.items()
        for outcome, share in zip(("right", "none", "wrong"), values, strict=True)
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
