"""`maediff models`."""

from helpers.cli import maediff


def test_shipped_models_are_listed_with_their_contrast():
    result = maediff("models")
    assert result.returncode == 0
    for name, contrast in {"t1": "T1w", "t2": "T2w", "flair": "FLAIR"}.items():
        lines = result.stdout.partition(f"{name}: ")[2].splitlines()
        assert lines[1].strip().startswith(f"{contrast}, maediff")
