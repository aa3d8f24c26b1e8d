r"""Text from outside (file names, headers, cells), made safe to show, log and store in tables.

A name "scan\x1b[31m.nii" is shown with the escape sequence spelled out, so it sends no command to
the terminal and forges no line of a log. A cell "=1+1" is stored as "'=1+1": text, no formula.
"""

import hashlib
import re
import unicodedata

# Line and paragraph separators, unassigned surrogates (undecodable bytes of file names), controls
# and format characters (direction marks, invisible characters).
UNSAFE_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
# A line that continues a message is indented, so that no name can forge a line of its own.
CONTINUATION = re.compile(r"(\n(?=  ))")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
# An absolute path with its folders: /a/b c/, C:\a\. A URL does not match, because of its colon.
# A folder may be named O'Brien or "Smith, John". Elsewhere, a quote ends a path, and so does a
# comma after the suffix of a file.
_COMMA = r"(?<!\.\w\w)(?<!\.\w\w\w)(?<!\.\w\w\w\w),(?= ?\w)"
_INSIDE = rf"(?:[^/\\:;,'\"\n]|(?<=\w)'(?=\w)|{_COMMA})"
_PART = rf"[^\s/\\:;,'\"](?:{_INSIDE}*[^\s/\\:;,'\"])?"
FOLDERS = re.compile(rf"(?<![\w.:/~])(?:~|[A-Za-z]:)?[/\\](?:{_PART}[/\\])+")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?|[+-]?(inf|nan)", re.IGNORECASE)


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal digits.

    Names of files may hold bytes that are no UTF-8, which Python keeps as surrogates.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def escape_controls(text: str) -> str:
    r"""Return the text with control and format characters in the notation of Python (`\x1b`).

    Example:
        >>> escape_controls("scan\x1b[31m.nii")
        'scan\\x1b[31m.nii'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(character) in UNSAFE_CATEGORIES
        else character
        for character in text
    )


def hide_folders(text: str) -> str:
    """Return the text with absolute paths reduced to their last part.

    Folder names may identify a person or a machine, and reports are given to other people.

    Example:
        >>> hide_folders("/home/ann/MR scans/a.nii.gz: 2 dimensions")
        'a.nii.gz: 2 dimensions'
    """
    return FOLDERS.sub("", text)


def escape_message(text: str) -> str:
    """Return a message with control characters escaped, and its indented further lines kept."""
    return "".join(
        part if part == "\n" else escape_controls(part) for part in CONTINUATION.split(text)
    )


def escape_lines(text: str) -> str:
    """Return a text of several lines, such as a table, with control characters escaped in each."""
    return "\n".join(map(escape_controls, text.split("\n")))


def escape_cell(text: str) -> str:
    """Return the text as a cell of a table that a spreadsheet does not run as a formula.

    Numbers stay as they are. `plain_cell` undoes the mark of a formula.
    """
    text = escape_controls(text)
    if text.startswith(FORMULA_STARTS) and len(text) > 1 and not NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def plain_cell(text: str) -> str:
    """Return the text of a cell without the mark that `escape_cell` put before a formula."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text
