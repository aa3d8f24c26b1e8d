"""Options that most functions share."""

import pytest

from maediff.core.errors import InputError
from maediff.core.options import RunOptions


@pytest.mark.parametrize(
    ("name", "value", "least"), [("seed", -1, 0), ("batch_size", 0, 1), ("workers", 0, 1)]
)
def test_numbers_below_the_least_are_refused(name, value, least):
    with pytest.raises(InputError, match=f"`{name}={value}`: give {least} or more"):
        RunOptions(**{name: value})
    assert getattr(RunOptions(**{name: least}), name) == least
