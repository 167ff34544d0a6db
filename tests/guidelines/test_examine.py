import importlib.resources

from malpighi.guidelines.definition import read_definition
from malpighi.guidelines.examine import Fall, examine
from malpighi.guidelines.pack import Pack

TEXT = (importlib.resources.files("malpighi.guidelines") / "packs" / "tbs.yaml").read_text(encoding="utf-8")


def altered(old, new):
    assert TEXT.count(old) == 1
    return examine(Pack(read_definition(TEXT.replace(old, new), "altered.yaml"), "altered.yaml"))


def test_a_rule_that_punishes_an_abnormal_finding_is_found():
    found = altered(
        "when: class in (squamous_mature, squamous_immature) and KO\n",
        "when: class in (squamous_mature, squamous_immature) and KO and not NCR\n",
    )
    assert {(fall.present, fall.added, fall.before, fall.after) for fall in found.falls} == {
        (("KO",), "NCR", "ASC-US", "NILM"),
        (("KO", "NU"), "NCR", "ASC-US", "NILM"),
    }
    found = altered(
        "and count(NA, NH, CT, NM, NCR) >= 2\n", "and count(NA, NH, CT, NM, NCR) >= 2 and not NC\n"
    )
    assert Fall("squamous_mature", ("NA", "NH"), "NC", "ASC-US", "NILM") in found.falls
    assert all(fall.added == "NC" for fall in found.falls)


def test_a_nucleolus_called_abnormal_is_found():
    found = altered("    abnormal: false\n", "    abnormal: true\n")
    assert found.falls
    assert {(fall.added, fall.before, fall.after) for fall in found.falls} == {("NU", "ASC-US", "NILM")}


def test_what_cannot_be_reached_is_found():
    found = altered("when: class in (squamous_immature) and NCR\n", "when: KO and not KO\n")
    assert found.unreachable_rules == ("AU-4",)
    found = altered("    when: class in (glandular) and NE and", "    when: not true and")
    assert found.unreachable_rules == ("AG-1",)
    found = altered("when: NE and NU and not", "when: not true and not")
    assert found.idle_observations == ("NU",)
    assert found.unreachable_rules == ("N-2",)


def test_an_unreachable_category_is_found():
    extra = "  - id: SCC\n    name: carcinoma\n    severity: 5\n    branch: squamous\n    text: invasive\n"
    found = altered("\ncategories:\n", f"\ncategories:\n{extra}")
    assert found.unreachable_categories == ("SCC",)
