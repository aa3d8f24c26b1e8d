"""README of the tools."""

from helpers.scripts import ROOT


def test_every_script_has_a_row():
    listed = (ROOT / "tools" / "README.md").read_text(encoding="utf-8")
    scripts = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
    assert scripts and [name for name in scripts if f"[{name}]({name})" not in listed] == []
