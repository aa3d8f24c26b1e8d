"""Contrast, subject and session of a file, from its name alone. Nothing here opens a file."""

import logging
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES
from maediff.scans.contrast import (
    AGENT,
    CONTRAST_WORDS,
    NAMED_FLAIR,
    NAMED_OTHER,
    remove_denied_agents,
)

logger = logging.getLogger(__name__)

UNIT1 = "unit1"  # BIDS suffix of the T1-weighted image of MP2RAGE
# Masks by name. `seg(?!u)` and `gt(?![12])` leave out Segura (a person) and sagT1 (a contrast).
NOT_SCANS = re.compile("mask|seg(?!u)|consensus|gt(?![12])", re.IGNORECASE)

NIFTI_SUFFIXES = (".nii.gz", ".nii")
PAIR_SUFFIXES = (".hdr.gz", ".img.gz", ".hdr", ".img")
FORMATS = ".nii, .nii.gz, .hdr with .img, .mgz, .mgh or .nrrd"
SUFFIXES = (*NIFTI_SUFFIXES, *PAIR_SUFFIXES, ".mgz", ".mgh", ".nrrd")


def is_nifti(path: Path) -> bool:
    """Check whether the file name ends in .nii or .nii.gz, in any case."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def is_pair(path: Path) -> bool:
    """Check for a half of a NIfTI pair by its name: .hdr or .img, with or without .gz."""
    return path.name.lower().endswith(PAIR_SUFFIXES)


def is_image(path: Path) -> bool:
    """Check whether the file name ends like a format that can be read, in any case."""
    return path.name.lower().endswith(SUFFIXES)


def nifti_stem(path: Path) -> str:
    """Return the file name without the suffix of its format, for example .nii.gz."""
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def contrast_from_name(path: Path) -> str | None:
    """Return the contrast that a file name states.

    Returns:
        "T1w", "T2w" or "FLAIR" if the last word of the name that states a contrast is one of
        them, or "dark fluid" (FLAIR); None if no word does. "other" for another sequence, for a
        map, for a contrast agent (in BIDS names: the entity `ce-`, or an agent in `acq-`), and
        for phase, real and imaginary images (the BIDS entity `part-`).
    """
    bids = split_bids_name(path)
    if bids:
        labels = bids_labels(path)
        is_complex_part = labels.get("part", "mag") != "mag"
        has_agent = "ce" in labels or AGENT.search(f"t1{labels.get('acq', '')}".lower())
        if is_complex_part or has_agent:
            return "other"
        suffix = _split_words(path)[-1]
        return "T1w" if suffix == UNIT1 else CONTRAST_WORDS.get(suffix)
    text = remove_denied_agents(re.sub(r"[_.-]", " ", nifti_stem(path).lower()))
    if AGENT.search(text) or NAMED_OTHER.search(text):
        return "other"
    text = NAMED_FLAIR.sub("flair", text)
    for word in reversed(re.split(r"[^a-z0-9]+", text)):
        if word in CONTRAST_WORDS:
            return CONTRAST_WORDS[word]
    return None


def session_key(path: Path) -> tuple[str, ...]:
    """Return a key that scans of one session share and other scans in their folder do not.

    Returns:
        BIDS subject and session; for any other name, all words except that of the contrast: the
        last of T1w, T2w and FLAIR, or both of "T2 FLAIR". Earlier ones may name a time point.
    """
    bids = split_bids_name(path)
    if bids:
        return bids[0], *(part for part in bids[1].split("_") if part.startswith("ses-"))
    words = _split_words(path)
    first, end = find_contrast(words)
    return tuple(words[:first] + words[end:])


def find_contrast(words: Sequence[str]) -> tuple[int, int]:
    """Return the range of the words of a name that state its contrast.

    Returns:
        First index and end of the last of T1w, T2w and FLAIR, or of both words of "T2 FLAIR" or
        "dark fluid"; an empty range at the end if there is none.

    Example:
        >>> find_contrast(["p1", "T2", "FLAIR", "new"])
        (1, 3)
    """
    lower = [word.lower() for word in words]
    for first, pair in enumerate(pairwise(lower)):
        if pair == ("dark", "fluid"):
            return first, first + 2
    contrasts = [CONTRAST_WORDS.get(word) for word in lower]
    last = max((i for i, name in enumerate(contrasts) if name in MODALITIES), default=len(words))
    if contrasts[max(0, last - 1) : last + 1] == ["T2w", "FLAIR"]:
        return last - 1, last + 1
    return last, min(last + 1, len(words))


def split_bids_name(path: Path) -> tuple[str, str] | None:
    """Split a BIDS file name into its subject and its other entities.

    Returns:
        None if the name is not a BIDS name.

    Example:
        >>> split_bids_name(Path("sub-01_ses-2_run-1_T1w.nii.gz"))
        ('sub-01', 'ses-2_run-1')
    """
    *entities, suffix = nifti_stem(path).split("_")
    if not entities or not re.fullmatch(r"sub-[^-_]+", entities[0]) or "-" in suffix:
        return None
    if not all(re.fullmatch(r"[A-Za-z]+-[^-_]+", entity) for entity in entities):
        return None
    return entities[0], "_".join(entities[1:])


def bids_labels(path: Path) -> dict[str, str]:
    """Return the entities of a BIDS file name after the subject; none of another name.

    Example:
        >>> bids_labels(Path("sub-01_ses-2_run-1_T1w.nii.gz"))
        {'ses': '2', 'run': '1'}
    """
    _, entities = split_bids_name(path) or ("", "")
    return dict(entity.split("-", 1) for entity in entities.split("_") if entity)


def relative_name(path: Path, base: Path) -> str:
    """Return the subject name of a file without BIDS name: its path below `base`, joined by _."""
    return "_".join([*path.relative_to(base).parts[:-1], nifti_stem(path)])


def select_contrast(
    place: Path,
    contrasts: dict[Path, str | None],
    modality: str | None,
    *,
    log_others: bool = True,
) -> set[Path]:
    """Select the scans of one contrast among scans that the user named one by one.

    If the names state at most one contrast, all scans are selected, even against `modality`:
    the user then overrides the names.

    Args:
        place: the folder or manifest of the scans, for messages.
        contrasts: each scan and the contrast that its name states.
        modality: T1w, T2w or FLAIR. None selects all scans.
        log_others: log the scans of other contrasts.

    Returns:
        The scans whose names state `modality` or no contrast. Skipped scans are logged.

    Raises:
        InputError: the names state several contrasts, and `modality` is not one of them.
    """
    stated = {contrast for contrast in contrasts.values() if contrast}
    if modality is None or len(stated) < 2:
        return set(contrasts)
    if modality not in stated:
        raise InputError(
            f"{place}: the file names indicate {' and '.join(sorted(stated))}, none of which is "
            f"`modality={modality!r}`; give scans of one contrast"
        )
    selected = {path for path, contrast in contrasts.items() if contrast in (modality, None)}
    if not log_others:
        return selected
    names = sorted(path.name for path in contrasts if path not in selected)
    logger.warning(
        "%s: %d scan(s) skipped, not %s by their names: %s%s; to include them, list them in "
        "a separate manifest CSV",
        place,
        len(names),
        modality,
        ", ".join(names[:5]),
        " ..." if len(names) > 5 else "",
    )
    return selected


def several_contrasts_error(folder: Path, contrasts: Sequence[str]) -> InputError:
    """Return the error for a folder of several contrasts without a given modality."""
    return InputError(
        f"{folder}: holds {' and '.join(contrasts)}; give `modality` ({' or '.join(contrasts)})"
    )


def split_tokens(name: str) -> list[str]:
    """Split a name into words and the separators between them, in their order.

    Letters beyond ASCII are words of their own, because contrasts are stated in ASCII.

    Example:
        >>> split_tokens("Zoë_T1")
        ['Zo', 'ë', '_', 'T1']
    """
    return re.findall(r"[A-Za-z0-9]+|[^\W_A-Za-z0-9]+|[\W_]+", unicodedata.normalize("NFC", name))


def is_separator(token: str) -> bool:
    """True if a token of `split_tokens` is no word."""
    return re.fullmatch(r"[\W_]+", token) is not None


def _split_words(path: Path) -> list[str]:
    tokens = split_tokens(nifti_stem(path).lower())
    return [token for token in tokens if not is_separator(token)]
