"""Several contrasts of one person: detection in each contrast, and one combined result."""

from maediff.detection.session.detector import SessionDetector, detect_session
from maediff.detection.session.result import SessionDetection

__all__ = ["SessionDetection", "SessionDetector", "detect_session"]
