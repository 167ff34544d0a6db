import msgspec
import pytest

from malpighi.likeness.sources import Source, hidden, sources_of
from malpighi.records import ImageRef, Provenance, Sample, Scale, TaskKind, Text, Turn

SAMPLE = Sample(
    id="x/1",
    dataset="x",
    exam="x/vqa",
    task=TaskKind.VQA,
    scale=Scale.ROI,
    images=(ImageRef("0" * 64, (4, 4)),),
    turns=(Turn("user", "What is seen?"),),
    answer=Text("nothing"),
    group="",
    licence="",
    provenance=Provenance("test"),
)


def sources(**changes):
    return set(sources_of(msgspec.structs.replace(SAMPLE, **changes)))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"id": "a/blk-TCGA-a6-2672-01Z-00-DX1.svs_10"}, Source("patient", "TCGA-A6-2672")),
        ({"id": "a/TCGA-A6-2672-01Z-00-DX1.uuid"}, Source("slide", "TCGA-A6-2672-01Z-00-DX1")),
        ({"group": "C3L-00081"}, Source("patient", "C3L-00081")),
        ({"id": "q/pmc1234567_fig2"}, Source("figure", "PMC1234567 figure 2")),
        ({"id": "q/PMC1234567_Fig02_HTML.jpg"}, Source("article", "PMC1234567")),
        ({"facts": {"pmcid": 1234567}}, Source("article", "PMC1234567")),
        (
            {"facts": {"DOI": "https://doi.org/10.1038/S41591-023-02504-3."}},
            Source("article", "10.1038/s41591-023-02504-3"),
        ),
        ({"facts": {"patient": 17}}, Source("patient", "x/17")),
        ({"group": "Patient  17"}, Source("group", "x/patient 17")),
        (
            {"images": (ImageRef("0" * 64, (4, 4), slide="/d/GTEX-1117F-0126.svs"),)},
            Source("patient", "GTEX-1117F"),
        ),
    ],
)
def test_the_names_of_the_field_are_read(changes, wanted):
    assert wanted in sources(**changes)


def test_what_only_looks_like_a_name_is_none():
    assert sources(id="xTCGA-A6-267/PMC12/10.5/a") == set()
    assert sources(facts={"patient": "", "area": 12, "doi": True}) == set()


def test_a_data_sets_own_numbers_are_its_own():
    assert not sources(group="17") & sources(group="17", dataset="y")
    assert sources(id="1/TCGA-A6-2672") & sources(id="2/TCGA-A6-2672", dataset="y")


def test_hidden_names_compare_and_cannot_be_read():
    clear = Source("patient", "TCGA-A6-2672")
    assert "TCGA" not in hidden(clear).name
    assert hidden(clear) == hidden(hidden(clear)) == hidden(Source("patient", "TCGA-A6-2672"))
    assert hidden(clear) != hidden(Source("patient", "TCGA-A6-2673"))
    assert hidden(clear).kind == "patient"
