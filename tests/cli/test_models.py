"""`maediff models`."""

from helpers.cli import maediff


def test_models_are_listed_or_their_absence_is_stated():
    result = maediff("models")
    assert result.returncode == 0
    assert "train one" in result.stdout or "where:" in result.stdout
