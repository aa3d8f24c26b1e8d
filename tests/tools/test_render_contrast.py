"""tools/render_contrast.py: arguments and exit codes; the rendering itself has other tests."""

import pytest

from helpers.scripts import load_script

render_contrast = load_script("tools/render_contrast.py")


@pytest.fixture
def calls(monkeypatch):
    """Return the calls of `render_scans`, which reports one failed scan if `n` is 13."""
    recorded = []

    def record(*args, **options):
        recorded.append((*map(str, args), options))
        return ["sub-01: no brain"] if options["n"] == 13 else []

    monkeypatch.setattr(render_contrast, "render_scans", record)
    return recorded


def test_arguments_reach_the_renderer(calls, capsys):
    assert render_contrast.main(["scans", "out", "T2w", "--n", "2", "--seed", "5"]) == 0
    assert calls == [("scans", "out", "T2w", {"n": 2, "seed": 5, "overwrite": False})]
    assert capsys.readouterr().out.split() == ["out/manifest.csv"]


def test_failed_scans_give_exit_code_1(calls, capsys):
    assert render_contrast.main(["scans", "out", "FLAIR", "--n", "13", "--overwrite"]) == 1
    assert capsys.readouterr().err == "failed: sub-01: no brain\n"


def test_bad_input_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        render_contrast.main([str(tmp_path / "absent"), str(tmp_path / "out"), "FLAIR"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "absent" in line
