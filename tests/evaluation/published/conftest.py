"""Papers cut down to a few rows: a clean table, and the same table with one figure changed."""

from dataclasses import replace

import pytest

from malpighi.evaluation.published.rows import Paper, paper


@pytest.fixture
def smartpath() -> Paper:
    return paper("smartpath-r1")


@pytest.fixture
def patho() -> Paper:
    return paper("patho-r1")


@pytest.fixture
def singpath() -> Paper:
    return paper("singpath-vl")


@pytest.fixture
def part():
    """The rows of some tables: `part(paper, tables, **wanted)`."""

    def cut(whole: Paper, tables, **wanted) -> Paper:
        rows = tuple(row for row in whole.find(**wanted) if row.table in tables)
        assert rows
        return replace(whole, rows=rows)

    return cut


@pytest.fixture
def changed():
    """A paper with new values in the rows that match: `changed(paper, {"method": "x"}, value=0.5)`."""

    def change(whole: Paper, match, **new) -> Paper:
        hit = whole.find(**match)
        assert hit, match
        return replace(whole, rows=tuple(row._replace(**new) if row in hit else row for row in whole.rows))

    return change
