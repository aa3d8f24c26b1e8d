"""Files that the .bidsignore of a BIDS dataset excludes; its patterns are those of .gitignore.

    *_T2w.nii.gz      in any folder          sub-01/       a folder, with everything in it
    /sub-02/anat/*    from the root only     !sub-01_*     included again; the last match counts

See https://bids-specification.readthedocs.io and https://git-scm.com/docs/gitignore.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maediff.core.errors import InputError


@dataclass(frozen=True)
class _Pattern:
    regex: re.Pattern[str]
    folders_only: bool
    includes: bool


def read_bidsignore(root: Path) -> Callable[[Path], bool]:
    """Return a function that checks whether a file of the dataset is excluded.

    Args:
        root: folder of the dataset. Without a .bidsignore in it, no file is excluded.

    Raises:
        InputError: the .bidsignore cannot be read.
    """
    path = root / ".bidsignore"
    if not path.is_file():
        return lambda _: False
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); correct it") from None
    texts = [line.strip() for line in lines]
    patterns = [_parse(text) for text in texts if text.strip("/!") and text[0] != "#"]
    return lambda file: _is_excluded(file.relative_to(root), patterns)


def _parse(line: str) -> _Pattern:
    includes = line.startswith("!")
    line = line.removeprefix("!")
    is_anchored = "/" in line.rstrip("/")
    text = _to_regex(line.strip("/"))
    try:
        regex = re.compile(text if is_anchored else f"(?:.*/)?{text}")
    except re.error:  # a range such as [z-a] matches nothing
        regex = re.compile(r"(?!)")
    return _Pattern(
        regex=regex,
        folders_only=line.endswith("/"),
        includes=includes,
    )


def _to_regex(pattern: str) -> str:
    """Translate `/**/`, `**/`, `/**`, `*`, `?` and `[...]`; other characters are themselves."""
    regex = ""
    for part in re.findall(r"/\*\*/|\*\*/|/\*\*|\*+|\?|\[[^\]/]+\]|\\?.", pattern):
        if part == "/**/":
            regex += "/(?:.*/)?"
        elif part == "**/":
            regex += "(?:.*/)?"
        elif part == "/**":
            regex += "/.*"
        elif part[0] == "*":
            regex += "[^/]*"
        elif part == "?":
            regex += "[^/]"
        elif part[0] == "[" and len(part) > 1:
            body = part[1:-1].replace("\\", "\\\\")
            regex += f"[^{body[1:]}]" if body[0] in "!^" else f"[{body}]"
        else:
            regex += re.escape(part[-1])
    return regex


def _is_excluded(file: Path, patterns: list[_Pattern]) -> bool:
    """Check a file and the folders above it; an excluded folder excludes all that is in it."""
    parts = file.parts
    for depth in range(1, len(parts) + 1):
        path, is_folder, excluded = "/".join(parts[:depth]), depth < len(parts), False
        for pattern in patterns:
            if (is_folder or not pattern.folders_only) and pattern.regex.fullmatch(path):
                excluded = not pattern.includes
        if excluded:
            return True
    return False
