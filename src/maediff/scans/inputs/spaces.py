"""Several images of one scan in a BIDS dataset or derivative: other spaces and processing steps.

    sub-01_desc-preproc_T1w                                     the scan's own space: used
    sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w           the same scan, resampled: skipped

Without a choice, one person would count as two scans, and one of them has another head size.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from maediff.core.errors import InputError
from maediff.scans.names import bids_labels, split_bids_name
from maediff.scans.reference import ScanRef
from maediff.scans.walk import log_skipped_files

logger = logging.getLogger(__name__)
COPIES = ("space", "res", "den", "desc")
"""BIDS entities that name a version of one scan, not another scan."""
SPACE_REASON = "copies of a scan in another space"
STEP_REASON = "processed copies of a scan that is there itself"


def choose_versions(refs: Sequence[ScanRef], place: Path) -> list[ScanRef]:
    """Keep one image of each scan: in the scan's own space, without processing if there is one.

    Args:
        refs: scans of one contrast.
        place: the folder that holds all scans, for the log and the error.

    Returns:
        The scans in their order. Skipped images are logged.

    Raises:
        InputError: several images of one scan, and none of them is the natural choice.
    """
    kept: list[ScanRef] = []
    resampled: list[ScanRef] = []
    processed: list[ScanRef] = []
    for versions in group_versions(refs):
        own_space = [ref for ref in versions if "space" not in bids_labels(ref.image)]
        candidates = own_space or list(versions)
        unprocessed = [
            ref for ref in candidates if not bids_labels(ref.image).keys() & set(COPIES)
        ]
        chosen = unprocessed if len(unprocessed) == 1 else candidates
        if len(chosen) > 1:
            folders = {ref.image.parent for ref in chosen}
            same_folder = len(folders) == 1
            names = " and ".join(
                ref.image.name if same_folder else str(ref.image.relative_to(place))
                for ref in chosen
            )
            raise InputError(
                f"{folders.pop() if same_folder else place}: {names} are images of one scan of "
                f"{chosen[0].subject}; name the one to use, or list it in a manifest CSV"
            )
        kept += chosen
        resampled += [ref for ref in versions if ref not in candidates]
        processed += [ref for ref in candidates if ref not in chosen]
    for skipped, reason in ((resampled, SPACE_REASON), (processed, STEP_REASON)):
        log_skipped_files(place, [ref.image for ref in skipped], reason)
    return [ref for ref in refs if ref in kept]


def warn_about_versions(refs: Sequence[ScanRef]) -> None:
    """Log a warning for each scan of which the user named several images."""
    for versions in group_versions(refs):
        if len(versions) > 1:
            logger.warning(
                "%s: images of one scan of %s, which are all used, as several sessions; leave "
                "out all but one to count the scan once",
                " and ".join(str(ref.image) for ref in versions),
                versions[0].subject,
            )


def group_versions(refs: Sequence[ScanRef]) -> list[list[ScanRef]]:
    """Return the images of each scan, by its BIDS name without the entities in `COPIES`.

    An image without a BIDS name is a scan of its own.
    """
    groups: dict[tuple[str, ...], list[ScanRef]] = {}
    for ref in refs:
        key: tuple[str, ...] = (str(ref.image),)
        if split_bids_name(ref.image):
            entities = bids_labels(ref.image)
            rest = (f"{name}-{entities[name]}" for name in sorted(entities.keys() - set(COPIES)))
            key = (ref.dataset, ref.subject, str(ref.modality), *rest)
        groups.setdefault(key, []).append(ref)
    return list(groups.values())
