"""A page to move through a whole scan with its anomaly map on top: nilearn's slice viewer, made to need no network."""

import re
import warnings
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float

from maediff.anomaly.snapshots import display_maximum
from maediff.core.files import write_text
from maediff.scans.nifti import as_nifti
from maediff.scans.volume import Volume

ICON = re.compile(
    r"<link\s+rel=\"icon\"[^>]*>"
)  # nilearn's, which every browser would fetch from its makers
TITLE = re.compile(r"<title>.*?</title>", re.DOTALL)


def write_viewer(
    path: Path,
    volume: Volume,
    anomaly_map: Float[np.ndarray, "x y z"],
    threshold: float,
    title: str,
) -> None:
    """Write one page of some megabytes; it takes seconds, because the scan is drawn slice by slice.

    The map is coloured where it is above `threshold`, on the scale of the report: its upper end is `display_maximum`.

    Args:
        anomaly_map: on the scan's own voxels, as `volume.data`.
    """
    from nilearn.plotting import view_img

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a map that is nowhere above the threshold
        view = view_img(
            as_nifti(anomaly_map, volume.affine),
            bg_img=as_nifti(volume.data, volume.affine),
            threshold=max(threshold, 1e-6),
            vmin=0,
            vmax=display_maximum(threshold),
            symmetric_cmap=False,
            cmap="inferno",
            black_bg=True,
            resampling_interpolation="nearest",
            title=title,
        )
    heading = f"<title>{escape(title)}</title>"
    page = TITLE.sub(lambda _: heading, ICON.sub("", view.html, count=1), count=1)
    note = f"Coloured: anomaly map above {threshold:.3g}. For research, not for diagnosis."
    write_text(
        path, page.replace("</body>", f"<p style='font-family: sans-serif'>{note}</p></body>", 1)
    )
