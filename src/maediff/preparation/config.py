"""All settings of preparation in one object, and the differences between two preparations.

A cohort records its preparation in cohort.json, and a model that of its cohort in config.json.
A new scan must be prepared in the same way, or the model sees differences that are not disease.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.config import SettingsError, build_config
from maediff.core.types import MODALITIES, Modality
from maediff.preparation.bias_correction import BiasConfig
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.grid import GridConfig
from maediff.preparation.intensities import NormaliseConfig
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import RegistrationConfig

REGISTERED = frozenset({"T1w", "T2w", "FLAIR"})
"""Contrasts that are registered to MNI152 by default.

Registration scored better on T1w and FLAIR (experiments/scan_preparation); T2w was not measured.
"""
PARTS: dict[str, type] = {
    "grid": GridConfig,
    "normalise": NormaliseConfig,
    "brain": BrainConfig,
    "bias": BiasConfig,
    "registration": RegistrationConfig,
    "qc": QualityConfig,
}
SHARED = ("grid", "normalise", "bias", "registration")
"""Parts that all scans of a model must share; brain extraction and quality control may differ."""
OPTIONAL = ("bias", "registration")
"""Parts with a field `enabled`; a record that lacks one was made without that step."""


@config(frozen=True, config=ConfigDict(extra="forbid"))
class PreparationConfig:
    """Every setting between a scan file and the slices that a model sees.

    Args:
        modality: contrast of the scans; None until the file names determine it.
        grid: the model's grid.
        normalise: the intensity scale.
        brain: brain extraction of raw scans.
        bias: N4 bias-field correction.
        registration: affine registration to MNI152.
        qc: quality control.
    """

    modality: Modality | None = None
    grid: GridConfig = GridConfig()
    normalise: NormaliseConfig = NormaliseConfig()
    brain: BrainConfig = BrainConfig()
    bias: BiasConfig = BiasConfig()
    registration: RegistrationConfig = RegistrationConfig()
    qc: QualityConfig = QualityConfig()

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], modality: Modality | None = None
    ) -> "PreparationConfig":
        """Build the config from nested settings.

        Args:
            settings: fields of each part, by the names in `PARTS`; other names are ignored.
            modality: contrast of the scans.

        Raises:
            SettingsError: unknown fields or wrong values of a part.
        """
        parts: dict[str, Any] = {
            key: build_config(kind, settings.get(key, {}), key) for key, kind in PARTS.items()
        }
        return cls(modality=modality, **parts)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "PreparationConfig":
        """Return the preparation of the scans of a cohort or of a model.

        Brain extraction and quality control have their defaults, because scans of one model may
        differ in them.

        Args:
            record: cohort.json, or the entry `cohort` of a model's config.json.

        Raises:
            SettingsError: unknown fields or wrong values of a part, or an unknown contrast.
        """
        known: dict[str, Any] = {key: record[key] for key in ("grid", "normalise")}
        known |= {key: record.get(key) or {"enabled": False} for key in OPTIONAL}
        modality = record["modality"]
        if modality not in (None, *MODALITIES):
            raise SettingsError(f"modality {modality!r}: choose one of {', '.join(MODALITIES)}")
        return cls.from_settings(known, modality)

    def for_modality(self, modality: Modality) -> "PreparationConfig":
        """Return the config for a contrast, with its default if `registration.enabled` is None."""
        registration = self.registration
        if registration.enabled is None:
            registration = RegistrationConfig(enabled=modality in REGISTERED)
        return replace(self, modality=modality, registration=registration)

    def settings(self) -> dict[str, Any]:
        """Return all parts as nested settings, for cohort.json."""
        return {key: asdict(getattr(self, key)) for key in PARTS}

    @property
    def registered(self) -> bool:
        """True if the scans are registered to MNI152."""
        return bool(self.registration.enabled)

    def differences(self, other: "PreparationConfig") -> list[str]:
        """Return the names of differing parts: "modality" and parts in `SHARED`.

        Two disabled steps are equal, whatever their other settings are.
        """
        differing = ["modality"] if self.modality != other.modality else []
        return differing + [
            key for key in SHARED if self._take_effective(key) != other._take_effective(key)
        ]

    def _take_effective(self, key: str) -> Any:
        part = getattr(self, key)
        return None if key in OPTIONAL and not part.enabled else part
