"""Bytes of a scan file: opened without waiting, unpacked in pieces, never more than asked for.

    file  --regular file? permission? link?-->  pieces, unpacked if gzip  --take, count_rest-->

The first bytes decide what a file is, not its name: a gzipped file may be named .nii. A size that
a header states is compared with the size of the file before memory of that size is used.
"""

import errno
import io
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from maediff.core.errors import InputError
from maediff.core.reading import describe_pointer

GZIP_MAGIC = b"\x1f\x8b"
MAX_GZIP_RATIO = 1032  # of deflate (https://zlib.net/zlib_tech.html, "maximum compression factor")
MAX_GZIP_LAYERS = 2
MAX_FIRST_VALUE_BYTES = 1024  # of the first DICOM element: a group length, character set or type
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
PIECE = 1 << 20  # bytes read or unpacked at once
SPECIAL_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")


def broken_link_message(path: Path) -> str | None:
    """Return the error message for a symbolic link that leads nowhere; None for any other path."""
    try:
        if not path.is_symlink():
            return None
        path.stat()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENAMETOOLONG):
            return None
        if error.errno == errno.ELOOP:
            return f"{path}: a link that leads to itself; delete it, or copy the file"
        return (
            f"{path}: broken link, its content is not there; run `datalad get` (git-annex, "
            "DataLad) or copy the file"
        )
    return None


def special_file_message(path: Path) -> str | None:
    """Return the error message for a pipe, device or socket; None for any other path.

    Reading from such a file may wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return f"{path}: {_name_special(mode)}, not a regular file; copy its content to a file"


def path_problem(path: Path) -> str | None:
    """Return the error message for a path that cannot be a scan, without opening it.

    Returns:
        None for a regular file, a folder and a path that does not exist.
    """
    if "\0" in str(path):
        return f"{path}: no file has a name with a null character; correct the path"
    message = broken_link_message(path) or special_file_message(path)
    if message:
        return message
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return str(read_error(path, error))
    return None


def pointer_problem(path: Path) -> str | None:
    """Return the error message for a pointer of git-annex or Git LFS; None for any other file."""
    try:
        with path.open("rb") as file:
            pointer = describe_pointer(file.read(1024))
    except OSError:
        return None
    return f"{path}: {pointer}" if pointer else None


def check_file(path: Path) -> int:
    """Check that a path is a regular file that is not empty, without opening it.

    Returns:
        The size in bytes.

    Raises:
        InputError: the file is missing, empty, a folder, a broken link, a pipe or a device, or a
            folder above it may not be entered.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise read_error(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"{path}: {_name_special(status.st_mode)}, not a regular file; give a file"
        )
    if status.st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or export it again")
    return status.st_size


def _name_special(mode: int) -> str:
    return next((name for is_kind, name in SPECIAL_FILES if is_kind(mode)), "a special file")


def read_error(path: Path, error: OSError) -> InputError:
    """Return the error for a file that the operating system refuses to read."""
    message = broken_link_message(path)
    if message:
        return InputError(message)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"{path}: no such file; check the path")
    if isinstance(error, PermissionError):
        return InputError(
            f"{path}: permission denied; ask its owner for the right to read it (chmod +r)"
        )
    return InputError(f"{path}: cannot be read ({error.strerror or error}); copy it again")


class Content:
    """Content of one file, unpacked, read from its start to its end.

    Args:
        path: the file.

    Raises:
        InputError: the file is not a regular file, is empty, or must not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored_size = check_file(path)
        pieces = self._read_pieces()
        start = next(pieces)
        self.gzip_layers = 0
        while start.startswith(GZIP_MAGIC) and self.gzip_layers < MAX_GZIP_LAYERS:
            self.gzip_layers += 1
            pieces = self._unpack(start, pieces)
            start = next(pieces, b"")
        self._rest = start
        self._pieces = pieces

    @property
    def largest_size(self) -> int:
        """Upper limit of the unpacked size in bytes."""
        return int(self.stored_size * MAX_GZIP_RATIO**self.gzip_layers)

    def peek(self) -> bytes:
        """Return the next bytes, up to a piece, without moving on."""
        return self._rest

    def take(self, count: int) -> io.BytesIO:
        """Return the next `count` bytes, or fewer at the end of the content.

        Raises:
            InputError: the content is damaged.
        """
        buffer = io.BytesIO()
        missing = count
        while missing > 0:
            if not self._rest:
                self._rest = next(self._pieces, b"")
                if not self._rest:
                    break
            part = self._rest[:missing]
            self._rest = self._rest[len(part) :]
            missing -= buffer.write(part)
        return buffer

    def skip(self, count: int) -> None:
        """Move on by `count` bytes, or to the end, without keeping them."""
        while count > 0:
            part = self.take(min(count, PIECE)).getbuffer().nbytes
            if not part:
                return
            count -= part

    def count_rest(self, limit: int) -> int:
        """Return the number of bytes up to the end; stop soon after `limit` bytes.

        Reading to the end also checks the checksum of gzip.

        Raises:
            InputError: the content is damaged.
        """
        count = len(self._rest)
        for piece in self._pieces:
            count += len(piece)
            if count > limit:
                break
        return count

    def _read_pieces(self) -> Iterator[bytes]:
        try:
            # O_NONBLOCK: the path may have become a pipe since it was checked.
            with os.fdopen(os.open(self.path, OPEN_FLAGS), "rb") as handle:
                while piece := handle.read(PIECE):
                    yield piece
        except OSError as error:
            raise read_error(self.path, error) from None

    def _unpack(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the unpacked content of gzip; bytes behind the last member are ignored."""
        packed = start
        while packed.startswith(GZIP_MAGIC):
            unpacker = zlib.decompressobj(wbits=31)
            while not unpacker.eof:
                try:
                    piece = unpacker.decompress(packed, PIECE)
                except zlib.error as error:
                    raise InputError(
                        f"{self.path}: damaged, it cannot be unpacked ({error}); copy or export "
                        "it again"
                    ) from None
                if piece:
                    yield piece
                packed = unpacker.unconsumed_tail
                if not packed and not unpacker.eof and not piece:
                    packed = next(pieces, b"")
                    if not packed:
                        raise InputError(
                            f"{self.path}: truncated, its gzip stream has no end; copy or export "
                            "it again"
                        )
            packed = unpacker.unused_data
            while len(packed) < len(GZIP_MAGIC) and (more := next(pieces, b"")):
                packed += more


def looks_like_dicom(start: bytes) -> bool:
    """Check the first bytes of a file for DICOM, with or without the preamble of PS3.10, 7.1.

    Without it, the file starts with an element of group 2 or 8: its tag, then a value
    representation (explicit) or a short length (implicit), in either byte order.
    """
    if start[128:132] == b"DICM":
        return True
    if len(start) < 8 or start[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    order: Literal["little", "big"] = "little" if start[1] == 0 else "big"
    element = int.from_bytes(start[2:4], order)
    is_explicit = start[4:6].isalpha() and start[4:6].isupper()
    return element <= 0x2000 and (
        is_explicit or int.from_bytes(start[4:8], order) <= MAX_FIRST_VALUE_BYTES
    )


def describe_foreign(start: bytes) -> str | None:
    """Return the finding and the remedy for content that is known not to be a scan.

    Args:
        start: the first bytes of the content.

    Returns:
        None for unknown content.
    """
    text = start[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if pointer := describe_pointer(start[:1024]):
        return pointer
    if text.startswith(PAGE_STARTS) or (text.startswith((b"<?xml", b"<!--")) and b"<html" in text):
        return "a web page, not a scan (perhaps a log-in page); log in and download the file again"
    if text.startswith(b"<?xml"):
        return "an XML document, not a scan (perhaps an error message); download the file again"
    if text.startswith((b'{"', b"{\n", b"{ ", b'[{"')):
        return "a JSON document, not a scan (perhaps an error message); download the file again"
    for magic, name in ARCHIVES.items():
        if start.startswith(magic):
            return f"{name}; unpack it"
    if start[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if start.startswith(GZIP_MAGIC):
        return f"gzipped more than {MAX_GZIP_LAYERS} times; unpack it"
    if looks_like_dicom(start):
        return "a DICOM file; give the folder that holds its series"
    if start.startswith(b"NRRD0"):
        return "an NRRD file; rename it to .nrrd"
    if len(start) >= 16 and not any(start):
        return "only zeros (an interrupted copy?); copy or download it again"
    return None
