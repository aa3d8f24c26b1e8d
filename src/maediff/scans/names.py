"""What the name of a scan's file tells: its kind, contrast, subject and session. Nothing here opens a file."""

import logging
import re
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES

logger = logging.getLogger(__name__)
NOT_SCANS = re.compile(
    "mask|seg(?!u)|consensus|gt(?![12])", re.IGNORECASE
)  # but sagT1 and Segura may be scans
# Words in file names that tell the contrast. "other": never taken for one of ours (contrast agent, proton density).
# `post`, `ce`, `gd` count as the others do, by the last word: `post_T1` may be a time point, `T1_post` is not plain.
CONTRAST_WORDS = {
    "t1": "T1w",
    "t1w": "T1w",
    "sagt1": "T1w",
    "axt1": "T1w",
    "cort1": "T1w",
    "3dt1": "T1w",
    "t1n": "T1w",
    "t2": "T2w",
    "t2w": "T2w",
    "sagt2": "T2w",
    "axt2": "T2w",
    "cort2": "T2w",
    "3dt2": "T2w",
    "flair": "FLAIR",
    "t2f": "FLAIR",
    "3dflair": "FLAIR",
    "t1ce": "other",
    "t1c": "other",
    "t1post": "other",
    "t1gd": "other",
    "post": "other",
    "ce": "other",
    "gd": "other",
    "gado": "other",
    "pd": "other",
    "mra": "other",
    "tof": "other",
    "dti": "other",
    "dwi": "other",
    "adc": "other",
    "swi": "other",
    "bold": "other",
}
# A contrast agent, wherever the words stand (lower case, spaces for _ - and full stops): no name of a time point or a
# person is like them.
OTHER_BY_NAME = "with contrast agent or of other kinds by their names"
AGENT = re.compile(
    r"\bt1w? ?(gd|gad|gado\w*|km|ce|post(?!erior)\w*)\b|\bgado|\bpost ?(con|gd|gad|km)|\b[ck]ontrast|\bc ?\+|"
    r"\+ ?(c|gd|km)\b|"
    r"\b(gadavist|dotarem|dotagraf|clariscan|magnevist|magnograf|prohance|multihance|omniscan|optimark|vasovist|"
    r"primovist|eovist|ablavar|elucirem|vueway|artirem|cyclolux)\b"
)
NO_AGENT = re.compile(
    r"\b(w(ith)?\W*o(ut)?|no|non|pre|ohne)(\W*(i\W?v|gad\w*|gd|km|enh\w*|[ck]ontrast\w*))+\b"  # w/o iv contrast
)
WITH = re.compile(r"\b(w|with|mit)\b(?!\W*(o|out|no)\b)")


def is_nifti(path: Path) -> bool:
    """Whether the name says NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def contrast_of(path: Path) -> str | None:
    """T1w, T2w, FLAIR or "other" as the last word of the file's name that tells it, else None.

    A contrast agent (of a BIDS name: `ce-`, or in `acq-`) and a phase, real or imaginary part (`part-`) are "other".
    """
    bids = bids_name(path)
    if bids:
        labels = dict(entity.split("-", 1) for entity in bids[1].split("_") if entity)
        if (
            "ce" in labels
            or labels.get("part", "mag") != "mag"
            or AGENT.search(f"t1{labels.get('acq', '')}".lower())
        ):
            return "other"
        return CONTRAST_WORDS.get(_words(path)[-1])
    text = affirmed(re.sub(r"[_.-]", " ", stem(path).lower()))
    if AGENT.search(text):
        return "other"
    words = re.split(r"[^a-z0-9]+", text)
    return next((CONTRAST_WORDS[word] for word in reversed(words) if word in CONTRAST_WORDS), None)


def affirmed(text: str) -> str:
    """`text` without the contrast agent that it denies (`pre contrast`), all of it where it says `with` as well.

    Args:
        text: lower case, no `_`; "brain w wo contrast" is a study's name and leaves open which of both it is.
    """
    return text if WITH.search(text) else NO_AGENT.sub(" ", text)


def session_of(path: Path) -> tuple[str, ...]:
    """What the scans of one session in a folder share: BIDS subject and session, else all words but the contrast's."""
    bids = bids_name(path)
    if bids:
        return bids[0], *(part for part in bids[1].split("_") if part.startswith("ses-"))
    return tuple(word for word in _words(path) if CONTRAST_WORDS.get(word) not in MODALITIES)


def bids_name(path: Path) -> tuple[str, str] | None:
    """`sub-01_ses-2_run-1_T1w.nii.gz` -> ("sub-01", "ses-2_run-1"); None if the name is not of that kind."""
    *entities, suffix = stem(path).split("_")
    if not entities or not re.fullmatch(r"sub-[^-_]+", entities[0]) or "-" in suffix:
        return None
    if not all(re.fullmatch(r"[A-Za-z]+-[^-_]+", entity) for entity in entities):
        return None
    return entities[0], "_".join(entities[1:])


def relative_name(path: Path, base: Path) -> str:
    """A subject's name where no BIDS name gives one: the path from `base`, its folders joined by _."""
    return "_".join([*path.relative_to(base).parts[:-1], stem(path)])


def of_contrast(place: Path, contrasts: dict[Path, str | None], modality: str | None) -> set[Path]:
    """The named scans that are to be taken: where names tell several contrasts, those that tell `modality` or none."""
    told = {contrast for contrast in contrasts.values() if contrast}
    if modality is None or len(told) < 2:
        return set(contrasts)
    if modality not in told:
        raise InputError(
            f"{place}: the names of its scans tell {' and '.join(sorted(told))}, and --modality says "
            f"{modality}; give those of one contrast"
        )
    taken = {path for path, contrast in contrasts.items() if contrast in (modality, None)}
    names = sorted(path.name for path in contrasts if path not in taken)
    logger.warning(
        "%s: %d named scan(s) left out, not %s by their names: %s%s; a manifest CSV of their own takes them",
        place,
        len(names),
        modality,
        ", ".join(names[:5]),
        " ..." if len(names) > 5 else "",
    )
    return taken


def stem(path: Path) -> str:
    """The name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _words(path: Path) -> list[str]:
    return re.split(r"[^a-z0-9]+", stem(path).lower())
