"""Contrast of a scan, from the words of its file name or of its DICOM description.

    file name     p1_T1_post.nii   the last word in `CONTRAST_WORDS` decides
    description   AX T2 FLAIR      a match of `OTHER_PATTERNS` means "other"; else the match of
                                   `CONTRAST_PATTERNS` decides, if there is only one

The two differ because file names hold names of people and time points, which look like words of
sequences. A contrast agent (`AGENT`) means "other" in both. Nothing here opens a file.
"""

import re

# Words of file names. "other": not a plain T1w, T2w or FLAIR (contrast agent, proton density).
# `post`, `ce` and `gd` count like the other words, by the last word of the name: in `post_T1`,
# `post` may be a time point, but `T1_post` was acquired with contrast agent.
_WORDS = {
    "T1w": "t1 t1w sagt1 axt1 cort1 3dt1 t1n",
    "T2w": "t2 t2w sagt2 axt2 cort2 3dt2",
    "FLAIR": "flair t2f 3dflair darkfluid",
    "other": "t1ce t1c t1post t1gd post ce gd gado km enh pd mra tof dti dwi adc swi bold",
}
CONTRAST_WORDS = {word: contrast for contrast, words in _WORDS.items() for word in words.split()}
# Expressions of file names in lower case, with spaces between the words.
NAMED_OTHER = re.compile(r"\bt[12]w? ?(\*|(star|map|rho|perf|perfusion)\b)")
NAMED_FLAIR = re.compile(r"\bdark fluid\b")

# Patterns of free text in lower case, with spaces for underscores.
CONTRAST_PATTERNS = {
    "FLAIR": re.compile(r"flair|dark[ _-]?fluid"),
    "T1w": re.compile(r"(?<![a-z0-9])[se]?t1(?!\d)|mp2?rage|\b(bravo|fspgr|spgr)\b"),
    "T2w": re.compile(r"(?<![a-z0-9])[se]?t2(?!\d)"),
}
OTHER_PATTERNS = re.compile(
    r"t1rho|t[12][ _-]?map|t2 ?\*|t2[ _-]?star|"
    r"\b(swi|dwi|dti|adc|trace|bold|fmri|asl|tof|mra|angio|mag|pha|phase|flow|perf|perfusion|"
    r"pd|pdw|proton|spectro|mip|post(?!erior)\w*|gd|gad|ce|t1c|km|enh|enhanced|epi|ep2d|"
    r"field ?map|scout|localizer|survey|sub(?![-_ ]?\d)|subtraction)\b|"
    # Gradient echoes of T2 are T2*-weighted; a T1w may be one.
    r"(?<![a-z0-9])[se]?t2w?\b.*\b(gre|ffe|merge|medic|hemo|fl[23]d|me[23]d)\b|t[12][ _-]?images"
)

# Contrast agents, at any position: no name of a person or time point looks like these.
AGENT = re.compile(
    r"\bt1w? ?(gd|gad|gado\w*|km|ce|post(?!erior)\w*)\b|\bgado|\bpost ?(con|gd|gad|km)|"
    r"\b[ck]ontrast|\bc ?\+|\+ ?(c|gd|km)\b|"
    r"\b(gadavist|dotarem|dotagraf|clariscan|magnevist|magnograf|prohance|multihance|omniscan|"
    r"optimark|vasovist|primovist|eovist|ablavar|elucirem|vueway|artirem|cyclolux)\b"
)
DENIED_AGENT = re.compile(
    r"\b(w(ith)?\W*o(ut)?|no|non|pre|ohne|kein)"
    r"(\W*(i\W?v|gad\w*|gd|km|enh\w*|[ck]ontrast\w*|agent|medium|media))+\b"  # "w/o iv contrast"
)
WITH = re.compile(r"\b(w|with|mit)\b(?!\W*(o|out|no)\b)")


def contrast_from_text(text: str) -> str | None:
    """Return the contrast that a free text states without doubt.

    Args:
        text: a DICOM series description or protocol name, in any case.

    Returns:
        "T1w", "T2w", "FLAIR", "other" for another sequence or a contrast agent, or None if the
        text names no contrast or several.
    """
    text = remove_denied_agents(text.lower().replace("_", " "))
    if OTHER_PATTERNS.search(text) or AGENT.search(text):
        return "other"
    contrasts = {name for name, pattern in CONTRAST_PATTERNS.items() if pattern.search(text)}
    if contrasts == {"FLAIR", "T2w"}:  # FLAIR is a T2-weighted sequence; T1 FLAIR is another one
        return "FLAIR"
    return contrasts.pop() if len(contrasts) == 1 else None


def remove_denied_agents(text: str) -> str:
    """Remove phrases that rule out a contrast agent ("no contrast", "pre-contrast").

    Text that also says "with" is returned unchanged: "brain w wo contrast" names a whole study and
    does not state which of its scans have contrast agent.

    Args:
        text: lower case, with spaces for underscores.
    """
    return text if WITH.search(text) else DENIED_AGENT.sub(" ", text)
