"""Errors and atomic files; `core.config`, `core.device` and `core.types` are imported by name."""

from maediff.core.errors import InputError
from maediff.core.files import (
    atomic_path,
    fresh_folder,
    read_json,
    refuse_inputs_inside_output,
    write_json,
    write_table,
    write_text,
)

__all__ = [
    "InputError",
    "atomic_path",
    "fresh_folder",
    "read_json",
    "refuse_inputs_inside_output",
    "write_json",
    "write_table",
    "write_text",
]
