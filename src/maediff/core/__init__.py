"""Tools that know nothing about scans or networks; the names below are errors and atomic files.

Other modules are imported by name:

    config       settings as text, YAML and frozen dataclasses
    options      RunOptions
    device       device and precision
    types        array types, contrasts, splits
    reading      content of small files that others made
    text         text from outside, made safe
    progress     Progress
    shards       Shard: one command on several machines
    stages       seconds of the stages of a detection
    processes    locks, temporary folders, threads
"""

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
