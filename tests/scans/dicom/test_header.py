"""Reading DICOM headers: the libraries that read them print nothing."""

import logging
import warnings

from maediff.scans.dicom.header import silence_dicom_warnings


def test_dicom_libraries_are_silenced_and_restored(caplog):
    log = logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with silence_dicom_warnings():
            log.error("a name")
            warnings.warn("a name", stacklevel=1)
    assert not caplog.records
    assert not caught
    assert log.level == level
