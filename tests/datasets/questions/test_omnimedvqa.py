def question(number, image, answer="Mitosis", modality="modality_type", kind="Microscopy Images", **more):
    options = more.pop("options", ("Mitosis", "Apoptosis", "Necrosis", "Nothing"))
    return {
        "dataset": "Blood Cell",
        "question_id": f"q-{number}",
        "question_type": "Anatomy",
        "question": f"Question {number}?",
        "gt_answer": answer,
        "image_path": image,
        modality: kind,
        **{f"option_{letter}": text for letter, text in zip("ABCD", options, strict=False)},
        **more,
    }


def build(put, put_json):
    def write(folder):
        root = folder / "OmniMedVQA"
        put(root / "Images/Blood Cell/a.png", 1)
        put(root / "Images/Blood Cell/b.png", 2)
        put_json(
            root / "QA_information/Open-access/Blood Cell.json",
            [
                question(1, "Images/Blood Cell/a.png"),
                question(2, "Images/Blood Cell/a.png", options=("Lymphocyte", "Mitosis", "")),
                question(3, "Images/Blood Cell/b.png", answer="Fat"),
                question(4, "Images/Blood Cell/gone.png"),
                question(5, "Images/Blood Cell/b.png", kind="CT(Computed Tomography)"),
                question(6, "Images/Blood Cell/b.png", options=("Mitosis",)),
            ],
        )
        put_json(
            root / "QA_information/Restricted-access/Chest CT Scan.json",
            [question(7, "Images/Blood Cell/b.png", answer="necrosis", modality="modality")],
        )
        (root / "QA_information/Open-access/damaged.json").write_text("[{")
        (root / "QA_information/Open-access/._Blood Cell.json").write_bytes(b"\x00\x05")

    return write


def test_the_published_layout_with_its_traps(contract, put, put_json):
    samples = contract(
        "omnimedvqa",
        build(put, put_json),
        dict.fromkeys(("q-1", "q-2", "q-7"), "microscopy"),
        {
            "q-3": "none of the options",
            "q-4": "no image",
            "q-6": "two or more",
            "damaged": "not readable JSON",
        },
        needed=("OmniMedVQA/QA_information", "OmniMedVQA/Images"),
    )
    assert samples["q-2"].options == ("Lymphocyte", "Mitosis")
    assert [samples[i].answer.index for i in ("q-1", "q-2", "q-7")] == [0, 1, 2]
    assert samples["q-1"].group == samples["q-2"].group
    assert samples["q-1"].facts == {"dataset": "Blood Cell", "question_type": "Anatomy"}
