"""Many prepared scans in a folder: manifest, splits, training slices.

`cohort.preprocess` makes a cohort; the names below read it.
"""

from maediff.cohort.cohort import Cohort, Row, SubjectSlices
from maediff.cohort.slices import SliceSet
from maediff.cohort.splits import person_code, split_of

__all__ = ["Cohort", "Row", "SliceSet", "SubjectSlices", "person_code", "split_of"]
