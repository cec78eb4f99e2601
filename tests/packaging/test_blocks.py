from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.packaging.blocks import Block, count_rows, join, kind
from modeldeploy.packaging.containers import builder
from modeldeploy.packaging.manifest import Column

MATRIX = np.arange(6.0).reshape(3, 2)
NAMES = ("b", "a")


def as_dict(block: Block) -> dict[str, np.ndarray]:
    return dict(block.items())


def test_a_block_is_a_mapping_of_its_columns():
    block = Block(NAMES, MATRIX, whole=False)
    assert (list(block), len(block), count_rows(block)) == (["b", "a"], 2, 3)
    assert block["a"].tolist() == [1.0, 3.0, 5.0]
    assert block["a"].flags.c_contiguous
    with pytest.raises(KeyError):
        block["c"]


def test_a_whole_block_is_its_one_field():
    block = Block(("x",), MATRIX, whole=True)
    assert block["x"] is MATRIX
    assert count_rows(block) == 3


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=5), st.booleans())
def test_tables_are_joined_alike_whether_they_are_blocks_or_not(parts, whole):
    names = ("x",) if whole else NAMES
    blocks = [Block(names, np.full((rows, 2), float(at)), whole=whole) for at, (rows, _) in enumerate(parts)]
    tables = [block if kept else as_dict(block) for block, (_rows, kept) in zip(blocks, parts, strict=True)]
    assert len({kind(each) for each in tables}) == 1
    joined, expected = join(tables), join([as_dict(each) for each in blocks])
    assert list(joined) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(joined[name], expected[name])
    assert isinstance(joined, Block) == all(kept for _rows, kept in parts)


def test_tables_of_another_width_or_type_are_of_another_kind():
    block = Block(NAMES, MATRIX, whole=False)
    others = [
        Block(NAMES, MATRIX.astype("float32"), whole=False),
        Block(("x",), MATRIX, whole=True),
        {"b": MATRIX[:, 0]},
        {"b": MATRIX[:, 0].astype(int), "a": MATRIX[:, 1]},
    ]
    assert all(kind(other) != kind(block) for other in others)


@pytest.mark.parametrize("container", ["matrix", "pandas", "columns", "records", "polars", "arrow"])
def test_a_container_made_of_a_block_is_that_of_its_columns(container):
    block = Block(("a", "b"), MATRIX, whole=False)
    looks = (Column("a", "a", "float64"), Column("b", "b", "float64"))
    build = builder(container, looks, ("a", "b"))
    made, expected = build(block), build(as_dict(block))
    assert type(made) is type(expected)
    np.testing.assert_array_equal(_values(made), _values(expected))


def test_columns_in_another_order_are_put_in_that_of_the_model():
    build = builder("matrix", (), ("a", "b"))
    assert build(Block(NAMES, MATRIX, whole=False)).tolist() == MATRIX[:, ::-1].tolist()


def test_a_whole_block_is_given_as_it_is_unless_the_model_could_not_write_into_it():
    build = builder("array", (), ("x",))
    assert build(Block(("x",), MATRIX, whole=True)) is MATRIX
    frozen = MATRIX.copy()
    frozen.flags.writeable = False
    assert build(Block(("x",), frozen, whole=True)).flags.writeable


def _values(made: object) -> object:
    if isinstance(made, dict):
        return np.stack(list(made.values()), axis=1)
    if isinstance(made, list):
        return np.array([list(row.values()) for row in made])
    return np.asarray(made.to_pandas() if hasattr(made, "to_pandas") else made)
