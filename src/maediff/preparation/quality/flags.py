"""Flags of quality control: a code, a sentence, and advice for each code.

    Flag("noise", "noise is 21 % of the contrast in the brain")
      .code      for programs: `qc.flag_codes` of summary.json, column `flag_codes` of tables
      str(flag)  for people: `qc.flags`, the terminal line, the report
      .advice    what to do: `qc.flag_advice`, the report

A flag does not stop a scan. A flag is a str, so that tables and JSON files hold its sentence.
docs/reference/flags.md lists the codes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

LOOK_AT_OUTLINE = "look at the brain outline; give a brain mask if it is wrong"
LOOK_AT_SCAN = "look at the scan; repeat it, or leave it out"
ADVICE: Mapping[str, str] = {
    "aligned-badly": LOOK_AT_OUTLINE,
    "beyond-grid": LOOK_AT_OUTLINE,
    "brain-outline": LOOK_AT_OUTLINE,
    "brain-pieces": "look for lost slices and at the brain outline; export the scan again",
    "brain-scaled": "compare its regions with other scans by their share of the brain only",
    "brain-volume": LOOK_AT_OUTLINE,
    "contrast-agent": "check the name and the DICOM header; use the T1w without contrast agent",
    "contrast-unstated": "check the contrast; then state it in the file name",
    "cut-off": "look at the field of view; regions outside it are unknown",
    "empty-slices": "look for lost slices; export or convert the scan again",
    "empty-voxels": LOOK_AT_SCAN,
    "ghosting": LOOK_AT_SCAN,
    "lesion-outside": "check that the lesion mask and the brain mask belong to this scan",
    "mask-differs": LOOK_AT_OUTLINE,
    "model-untrained": "train the model longer, or use a shipped model",
    "no-t1": "look at the brain outline; check that the T1w belongs to this session",
    "noise": LOOK_AT_SCAN,
    "not-a-brain": "check that the scan shows a head, and look at the brain outline",
    "residual": "look at the scan and its healthy reference; do not use the regions before",
    "saturated": "check that the scan was exported without clipped intensities",
    "skull": "strip the scan with another tool, or give a brain mask",
    "turned": "check the orientation in the header of the scan",
    "wrong-contrast": "check the contrast; use the model for the scan's true contrast",
}
"""Advice by code."""


class Flag(str):
    """A reason to look at a scan before its results are used.

    Args:
        code: a key of `ADVICE`.
        sentence: the finding with its numbers, without a full stop.

    Raises:
        KeyError: unknown code.

    Example:
        >>> flag = Flag("cut-off", "the scan holds 60 % of the atlas's brain")
        >>> flag.code, flag.advice
        ('cut-off', 'look at the field of view; regions outside it are unknown')
    """

    code: str

    def __new__(cls, code: str, sentence: str) -> "Flag":
        flag = super().__new__(cls, sentence)
        flag.code = code
        _ = ADVICE[code]
        return flag

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """Return the arguments that pickle rebuilds the flag from."""
        return self.code, str(self)

    @property
    def advice(self) -> str:
        """Advice: the next step of a person who sees the flag."""
        return ADVICE[self.code]


def record_flags(flags: Sequence[Flag]) -> dict[str, Any]:
    """Return the entries of a record: parallel lists of sentences, codes and advice.

    A repeated flag is recorded once.

    Returns:
        `flags`, `flag_codes` and `flag_advice`.
    """
    unique = list(dict.fromkeys(flags))
    return {
        "flags": [str(flag) for flag in unique],
        "flag_codes": [flag.code for flag in unique],
        "flag_advice": [flag.advice for flag in unique],
    }


def add_flags(record: dict[str, Any], flags: Sequence[Flag]) -> None:
    """Append flags to the entries of `record_flags` in a record."""
    for key, values in record_flags(flags).items():
        record[key] = [*record.get(key, []), *values]


def describe_flags(record: Mapping[str, Any]) -> list[str]:
    """Return a line for each flag of a record: "CODE: SENTENCE; ADVICE".

    Records of older versions have sentences only.

    Args:
        record: entry `qc` of summary.json, or the record of a prepared scan.
    """
    flags = [str(flag) for flag in record.get("flags") or []]
    codes, advice = (list(record.get(key) or []) for key in ("flag_codes", "flag_advice"))
    if not len(flags) == len(codes) == len(advice):
        return flags
    return [f"{code}: {flag}; {do}" for flag, code, do in zip(flags, codes, advice, strict=True)]
