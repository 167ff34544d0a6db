import json

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Item, TaskKind

INDEX = "Singpath-CytoText.json"
WHOLE = {
    "核大小": "增大",
    "核染色质": "不均匀\uff0c颗粒粗",
    "核数量": "单核",
    "核质比": "增高",
    "核膜": "不规则",
    "核仁": "未见",
    "胞质状态": "胞浆量少",
    "异常病理指征": "细胞核异型性\uff1a存在",
    "细胞空间构型": "未见聚集成团",
}


def record(name, label="ASC-H", caption="一个细胞", description=WHOLE):
    return {
        "image_name": name,
        "structured description": description,
        "caption": caption,
        "label": label,
    }


RECORDS = [
    record("slideA_1_2_3_4.jpg"),
    record("slideA_5_6_7_8.jpg", label="NILM"),
    record("slideB_1_2.jpg", label="阴性", caption=" ", description={"核大小": "巨大"}),
    record("slideB_3_4.jpg", description="增大"),
    record("gone_1.jpg"),
]
PARTS = ("class", "caption", "description")


def build_with(write, records=RECORDS):
    def build(folder):
        for number, entry in enumerate(records[:4]):
            write(folder, f"images/part{number % 2}/{entry['image_name']}")
        write(folder, "images/part0/slideC_1.jpg")
        write(folder, INDEX, json.dumps(records, ensure_ascii=False))

    return build


def test_category_caption_and_description(contract, write):
    samples = contract(
        "singpath_cytotext",
        build_with(write),
        {
            **{f"slideA_1_2_3_4:{part}": part for part in PARTS},
            **{f"slideA_5_6_7_8:{part}": part for part in PARTS},
            "slideB_3_4:class": "class",
            "slideB_3_4:caption": "caption",
        },
        {
            "slideB_1_2:class": "label '阴性'",
            "slideB_1_2:caption": "caption is empty",
            "slideB_1_2:description": "no '巨大' under 核大小",
            "slideB_3_4:description": "expected an object",
            "gone_1": "0 images",
            "slideC_1": f"not in {INDEX}",
        },
        needed=(INDEX,),
    )
    assert samples["slideA_1_2_3_4:class"].answer == Choice(3)
    assert samples["slideA_1_2_3_4:class"].options == ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "AGC")
    assert samples["slideA_1_2_3_4:caption"].answer.value == "一个细胞"
    description = samples["slideA_1_2_3_4:description"]
    assert description.task == TaskKind.CAPTION
    assert description.answer.value.splitlines() == [
        "nuclear size: enlarged",
        "chromatin: uneven, coarsely granular",
        "nuclear count: one nucleus",
        "nuclear-to-cytoplasmic ratio: raised",
        "nuclear membrane: irregular",
        "nucleolus: not seen",
        "cytoplasm: scant cytoplasm",
        "abnormal signs: nuclear atypia: present",
        "spatial arrangement: not clustered",
    ]
    assert samples["slideA_1_2_3_4:class"].group == samples["slideA_5_6_7_8:class"].group == "slideA"


def test_a_lexicon_beside_the_list_takes_the_place_of_the_shipped_one(tmp_path, write):
    build_with(write)(tmp_path)
    text = "format_version: 1\nterms: [{zh: 核大小, en: size, published: {巨大: huge}}]\n"
    write(tmp_path, "lexicon.yaml", text)
    found = {
        r.sample.id: r.sample
        for r in adapter_named("singpath_cytotext").read(tmp_path)
        if isinstance(r, Item)
    }
    assert found["singpath_cytotext/slideB_1_2:description"].answer.value == "size: huge"
    assert "singpath_cytotext/slideA_1_2_3_4:description" not in found


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_a_list_that_is_none_is_named(tmp_path, write, text):
    write(tmp_path, INDEX, text)
    with pytest.raises(DataError, match=INDEX):
        list(adapter_named("singpath_cytotext").read(tmp_path))
