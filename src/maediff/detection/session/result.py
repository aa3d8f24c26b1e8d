"""The result of a session, and its files.

    <folder>/T1w/, FLAIR/, ...          the files of `Detection.save`, on the grid of each scan
    <folder>/anomaly_map.nii.gz         combined map, mask and brain mask, on the grid of the first
             anomaly_mask.nii.gz        contrast (T1w, else FLAIR, else T2w)
             brain_mask.nii.gz
    <folder>/anomaly_map_mni.nii.gz,    combined map and mask in MNI152, at 1 mm
             anomaly_mask_mni.nii.gz    (`save(mni=True)`, which adds such images to each contrast)
    <folder>/FLAIR_anomaly_map.nii.gz   map of each contrast on this grid; 1 is its threshold
             FLAIR_scan.nii.gz          the other scans on this grid
    <folder>/anomaly_map.json, ...      sidecar of each image
    <folder>/summary.json, regions.tsv  numbers of the combined result
    <folder>/slices.npz, volumes.npz    pictures of the report; slices_FLAIR.npz, volumes_FLAIR.npz
    <folder>/session.json               contrasts, failures, and the finding of two heads

Without a combined result, the folder holds the contrasts and session.json only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from maediff.anomaly.snapshots import pick_slices, save_slices
from maediff.core.files import write_json
from maediff.core.text import hide_folders
from maediff.core.types import Modality
from maediff.detection.findings import write_regions
from maediff.detection.result import Detection, replaced_folder
from maediff.detection.session.combined import Affine, CombinedDetection
from maediff.detection.sidecars import COMBINED, OF_EVERY_IMAGE, describe_image, make_sidecar
from maediff.detection.to_scan import load_mni_template
from maediff.detection.volumes import make_volumes
from maediff.scans.nifti import write_on_scan_grid

SESSION_FILE = "session.json"
COMBINED_IMAGES = ("anomaly_map", "anomaly_mask", "brain_mask")
COMBINED_MNI_IMAGES = ("anomaly_map_mni", "anomaly_mask_mni")
"""Combined images in MNI152 that `SessionDetection.save(mni=True)` adds."""


@dataclass(frozen=True, eq=False)
class SessionDetection:
    """The result of a session.

    Args:
        name: name of the session.
        detections: result of each contrast, on its own grid; the first one gives the grid of
            the combined result.
        combined: the combined result; None if it was not asked for, or with a `problem`.
        failures: reason for each contrast that failed.
        problem: finding that the contrasts are not of one head; empty without one.
        notes: remarks on the choice of the scans.
    """

    name: str
    detections: Mapping[Modality, Detection]
    combined: CombinedDetection | None
    failures: Mapping[Modality, str]
    problem: str = ""
    notes: tuple[str, ...] = ()

    def save(
        self,
        folder: str | Path,
        *,
        mni: bool = False,
        summary: Mapping[str, Any] | None = None,
        record: Mapping[str, Any] | None = None,
        of_contrast: Mapping[Modality, Mapping[str, Any]] | None = None,
        also: Callable[[Path, Modality], None] | None = None,
    ) -> Path:
        """Write the files of `maediff detect` for this session.

        The folder appears when it is complete; before that, its files are in a hidden folder.

        Args:
            folder: folder of the session. Results of an earlier detection in it are replaced.
            mni: also write maps, masks and healthy references in MNI152. With a combined result,
                all contrasts use the registration of the first scan.
            summary: further entries of each summary.json.
            record: further entries of session.json.
            of_contrast: further entries of the summary.json of each contrast.
            also: writes further files of a contrast into the folder that it is called with.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds other files than the results of a session, or a brain
                cannot be registered to MNI152.
        """
        folder, extra = Path(folder), dict(summary or {})
        with replaced_folder(folder, SESSION_FILE) as temporary:
            to_mni = self.combined.to_mni() if mni and self.combined else {}
            for contrast, detection in self.detections.items():
                more = None if also is None else partial(_call, also, contrast)
                own = (of_contrast or {}).get(contrast, {})
                names = {"subject": self.name, "scan": detection.volume.source.name}
                entries = {**extra, **own, **names}
                detection.save(
                    temporary / contrast,
                    mni=mni,
                    to_mni=to_mni.get(contrast),
                    summary=entries,
                    also=more,
                )
            if self.combined is not None:
                in_mni = to_mni.get(self.combined.grid_of)
                self._save_combined(temporary, self.combined, extra, in_mni)
            session = {
                "subject": self.name,
                "contrasts": list(self.detections),
                "combined": self.combined is not None,
                "failures": {each: hide_folders(text) for each, text in self.failures.items()},
                "problem": hide_folders(self.problem),
                "notes": list(self.notes),
            }
            write_json(temporary / SESSION_FILE, {**session, **(record or {})})
        return folder

    def _save_combined(
        self,
        folder: Path,
        combined: CombinedDetection,
        extra: Mapping[str, Any],
        first_to_mni: Affine | None,
    ) -> None:
        """Write the combined result, and each contrast on its grid.

        Args:
            folder: folder of the session.
            combined: the combined result.
            extra: further entries of summary.json.
            first_to_mni: mm of the first scan -> mm of MNI152; None writes no images in MNI152.
        """
        volume = combined.volume
        first = combined.detections[combined.grid_of]
        to_mni = first.prepared.on_scan.to_atlas
        chosen = pick_slices(combined.slices.brain, combined.slices.anomaly_map)
        kinds: dict[str, str] = {}  # of the images, by name, for `describe_image`
        for kind in COMBINED_IMAGES:
            write_on_scan_grid(folder / f"{kind}.nii.gz", getattr(combined, kind), volume)
            kinds[kind] = f"{COMBINED}{kind}"
        in_mni = combined.images_in_mni(first_to_mni) if first_to_mni is not None else {}
        for kind, image in in_mni.items():
            write_on_scan_grid(folder / f"{kind}.nii.gz", image, load_mni_template())
            kinds[kind] = f"{COMBINED}{kind}"
        images = {kind: getattr(combined, kind) for kind in COMBINED_IMAGES}
        images["healthy_reference"] = first.healthy_reference
        shown = make_volumes(volume, images, combined.threshold, to_mni)
        shown.save(folder / "volumes.npz")
        save_slices(folder / "slices.npz", combined.slices, chosen)
        for contrast, aligned in combined.aligned.items():
            path = folder / f"{contrast}_anomaly_map.nii.gz"
            write_on_scan_grid(path, aligned.anomaly_map, volume)
            kinds[f"{contrast}_anomaly_map"] = "contrast_anomaly_map"
            if contrast != combined.grid_of:
                write_on_scan_grid(folder / f"{contrast}_scan.nii.gz", aligned.scan.data, volume)
                kinds[f"{contrast}_scan"] = "contrast_scan"
            images = {
                "anomaly_map": aligned.anomaly_map,
                "anomaly_mask": aligned.anomaly_mask,
                "brain_mask": combined.brain_mask,
                "healthy_reference": aligned.reference,
            }
            shown = make_volumes(aligned.scan, images, 1.0, to_mni)
            shown.save(folder / f"volumes_{contrast}.npz")
            save_slices(folder / f"slices_{contrast}.npz", aligned.slices, chosen)
        summary = combined.summary()
        summary["qc"]["notes"] += self.notes
        write_regions(folder / "regions.tsv", summary["regions"])
        write_json(folder / "summary.json", {**summary, **extra})
        for name, kind in kinds.items():
            write_json(folder / f"{name}.json", _make_sidecar(name, kind, combined, summary))


def _make_sidecar(
    name: str, kind: str, combined: CombinedDetection, summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the sidecar of an image in the folder of a session.

    Args:
        name: name of the image, without its suffix.
        kind: see `sidecars.describe_image`.
        combined: the combined result.
        summary: content of summary.json.
    """
    if kind.startswith(COMBINED):
        scans = [each.volume.source.name for each in combined.detections.values()]
        contrasts = {key: each["threshold"] for key, each in summary["contrasts"].items()}
        parameters = {"rule": summary["rule"], "thresholds": contrasts}
        return make_sidecar(kind, summary, combined.threshold_used.origin, parameters, scans)
    contrast = cast(Modality, name.partition("_")[0])
    detection = combined.detections[contrast]
    entries = {
        **summary,
        "model": detection.model,
        "modality": contrast,
        "threshold": 1.0,
    }
    source = [detection.volume.source.name]
    origin = detection.threshold_used.origin
    sidecar = make_sidecar(kind, entries, origin, detection.parameters, source)
    if kind == "contrast_scan":  # no model has changed it
        return {key: sidecar[key] for key in (*describe_image(kind), *OF_EVERY_IMAGE)}
    return {**sidecar, "DividedBy": detection.threshold}


def _call(also: Callable[[Path, Modality], None], contrast: Modality, folder: Path) -> None:
    """Call `also` for one contrast."""
    also(folder, contrast)
