"""`maediff demo`: the report in the web browser."""

import webbrowser

import pytest
from typer.testing import CliRunner

from maediff import demo as module
from maediff.cli import app


@pytest.mark.parametrize("has_browser", [True, False])
def test_open_shows_the_report(tmp_path, monkeypatch, has_browser):
    opened = []
    monkeypatch.setattr(module, "demo", lambda out, **_: out / "report.html")
    monkeypatch.setattr(webbrowser, "open", lambda uri: opened.append(uri) or has_browser)
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--open"])
    assert result.exit_code == 0
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert ("no web browser was found" in result.output) != has_browser


def test_without_open_no_browser_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "demo", lambda out, **_: out / "report.html")
    monkeypatch.setattr(webbrowser, "open", lambda _: pytest.fail("opened"))
    assert CliRunner().invoke(app, ["demo", "-o", str(tmp_path)]).exit_code == 0
