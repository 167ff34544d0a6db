import json

OPTIONS = {"A": "Lipoma", "B": "Nevus", "C": "Melanoma", "D": "Scar", "E": "Wart"}


def question(number, images, label="E", **more):
    return {
        "id": f"MM-{number}",
        "question": "A man has a lesion. What is it?\nAnswer Choices: (A) Lipoma (B) Nevus (C) Melanoma "
        "(D) Scar (E) Wart",
        "options": OPTIONS,
        "label": label,
        "images": images,
        "medical_task": "Diagnosis",
        "body_system": "Integumentary",
        "question_type": "Reasoning",
        **more,
    }


def build(put):
    def write(folder):
        for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "d.jpg")):
            put(folder / "images" / name, number, "JPEG")
        (folder / "MM").mkdir()
        listed = [{"letter": letter, "content": text} for letter, text in reversed(OPTIONS.items())]
        lines = [
            json.dumps(question(0, ["a.jpg", "b.jpg"])),
            json.dumps(question(1, ["images/b.jpg"], label=["A"], options=listed)),
            json.dumps(question(2, ["c.jpg", "b.jpg"], question="Plain?")),
            json.dumps(question(3, ["d.jpg"], label="F")),
            json.dumps(question(4, ["gone.jpg"])),
            json.dumps(question(5, [])),
            '{"id": "MM-6", ',
        ]
        (folder / "MM/test.jsonl").write_text("\n".join(lines))
        (folder / "MM/dev.jsonl").write_text(json.dumps(question(7, ["d.jpg"])) + "\n")

    return write


def test_the_published_layout_with_its_traps(contract, put):
    samples = contract(
        "medxpertqa_mm",
        build(put),
        dict.fromkeys(("MM-0", "MM-1", "MM-2", "MM-7"), "question"),
        {
            "MM-3": "expected one of A, B, C, D, E",
            "MM-4": "no image images/gone.jpg",
            "MM-5": "one or more",
            "test.jsonl#7": "not readable JSON",
        },
        needed=("images", "MM/test.jsonl"),
    )
    assert len(samples["MM-0"].images) == 2
    assert samples["MM-0"].images[1] == samples["MM-1"].images[0]
    assert samples["MM-0"].answer.index == 4
    assert samples["MM-1"].answer.index == 0
    assert samples["MM-1"].options == tuple(OPTIONS.values())
    assert samples["MM-0"].question == "A man has a lesion. What is it?"
    assert samples["MM-2"].question == "Plain?"
    assert samples["MM-0"].facts["body_system"] == "Integumentary"
    # One image ties the first two together, and the third to them.
    assert len({samples[i].group for i in ("MM-0", "MM-1", "MM-2")}) == 1
    assert str(samples["MM-7"].split) == "validation"
