"""A synthetic T1w brain and its tissues."""

import pytest

from helpers.tissues import SPACING, made_t1
from maediff.synthetic.tissues import segment


@pytest.fixture(scope="package")
def head():
    return made_t1(bias=0.2)


@pytest.fixture(scope="package")
def tissues(head):
    return segment(head[0], head[1], SPACING)
