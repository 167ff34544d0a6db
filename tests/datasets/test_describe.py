import json

import pytest

from malpighi.datasets.catalogue import ADAPTERS
from malpighi.datasets.describe import describe, papers_of, pieces, rows
from malpighi.datasets.download import sources


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_data_set_is_described_whole(name):
    adapter = ADAPTERS[name]
    found = describe(adapter)
    assert json.loads(json.dumps(found)) == found
    assert bool(found["fetch"]) == (name in sources())
    assert found["expected"] == sum(adapter.counts.values())
    text = "\n".join(row["what is known"] for row in rows(found))
    for part in (
        adapter.title,
        adapter.licence,
        adapter.access,
        adapter.source,
        adapter.split_rule,
        *adapter.traps,
    ):
        assert part in text
    assert all(piece in adapter.layout for piece in found["layout"])
    assert ("malpighi data get" in text) == (name in sources())


def test_the_papers_of_a_data_set_and_their_tables():
    assert papers_of("pathmmu").keys() == {"patho-r1", "smartpath-r1"}
    assert papers_of("bccd") == {}
    assert "Table 1" in papers_of("arch")["patho-r1"]


def test_brackets_hold_their_commas():
    assert pieces("a/{b,c}, and d (e, f); or g") == ["a/{b,c}", "d (e, f)", "or g"]
