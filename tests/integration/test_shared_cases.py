"""Odd and hostile inputs of bug reports: correct values, or a refusal with the true reason.

The scripts in shared/cases make the inputs; their own imports are of older versions, so each
script is run up to its first import of maediff. Shell scripts run with a `maediff` that records
its arguments; the commands then run in this process. tests/scans has variants of every case.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest

from helpers.options import UNALIGNED
from maediff.cli import main
from maediff.core.config import build_config, parse_settings
from maediff.core.errors import InputError
from maediff.models.model import read_model
from maediff.preparation.background import brain_from_background
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.steps import run_steps
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import write_on_scan_grid
from maediff.scans.read import read_scan, read_volume

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def cases():
    """The cases beside the repository; tests that need them skip where they are absent."""
    path = Path(__file__).parents[3] / "shared" / "cases"
    if not path.is_dir():
        pytest.skip("shared/cases is not beside this checkout")
    return path


@pytest.fixture
def make(cases, monkeypatch, tmp_path):
    """Run a script of the cases with arguments; returns its folder."""

    def run(script, *arguments, replace=("", "")):
        text = (cases / script).read_text("utf-8").replace(*replace) if replace[0] else None
        text = text or (cases / script).read_text("utf-8")
        text = text.partition("\nfrom maediff")[0]
        folder = tmp_path / "in"
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments or [folder])])
        monkeypatch.syspath_prepend(str((cases / script).parent))
        exec(compile(text, script, "exec"), {"__name__": "__main__"})
        return folder

    return run


def head():
    """Return the voxels of the cases' head, in RAS+."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=2)
    return np.clip(image.get_fdata() * 1000, 0, None).round(), image.affine


def test_lost_slice(make):
    folder = make("odd/zero_slice.py")
    config = UNALIGNED.for_modality("T1w")
    whole, cut = (
        run_steps(read_scan(folder / f"{name}_T1w.nii.gz"), None, config)
        for name in ("whole", "cut")
    )
    assert cut.brain.sum() == pytest.approx(whole.brain.sum(), rel=0.002)
    assert [flag.code for flag in cut.flags] == ["empty-slices"] and whole.flags == []


@pytest.mark.parametrize("degrees", [4, 18])
def test_sheared_dicom(make, tmp_path, degrees):
    make("odd/dicom_shear.py", tmp_path / "in", degrees)
    with pytest.raises(InputError, match=f"obliquely to their normal .*{degrees} degrees"):
        read_scan(tmp_path / "in")


def test_inverted_dicom(make):
    volume = read_scan(make("odd/dicom_monochrome1.py"))
    assert np.corrcoef(volume.data.ravel(), head()[0].ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("script", "folder"),
    [
        ("odd/dicom_copies.py", ""),
        ("odd/dicom_study_time.py", ""),
        ("odd/dicom_no_preamble.py", "a"),
        ("odd/dicom_no_preamble.py", "b"),
    ],
)
def test_odd_dicom_is_read(make, script, folder):
    np.testing.assert_array_equal(read_scan(make(script) / folder).data, head()[0])


def test_dicom_of_simpleitk(make):
    volume = read_scan(make("odd/sbs_itk.py"))
    np.testing.assert_allclose(volume.spacing_mm, [2, 2, 4], atol=1e-4)


def test_voxels_do_not_start_in_the_header(make):
    folder = make("odd/vox_offset0.py")
    good, odd = (read_scan(folder / f"{name}_T1w.nii").data for name in ("good", "odd"))
    np.testing.assert_array_equal(good, odd)


def test_qform_without_voxel_size(make):
    with pytest.raises(InputError, match=r"odd_T1w\.nii: .*pixdim"):
        read_scan(make("odd/pixdim0.py") / "odd_T1w.nii")


def test_long_quaternion(make):
    volume = read_scan(make("odd/quaternion.py") / "odd_T1w.nii")
    np.testing.assert_allclose(volume.spacing_mm, 2, atol=1e-5)


def test_names_and_gzip(make):
    imports = (
        "from maediff.errors import InputError\nfrom maediff.scans import read_scan\n",
        "InputError, read_scan = Exception, str\n",
    )
    folder = make("odd/names_and_gzip.py", replace=imports)
    for name in ("gzipped_T1w.nii", "plain_T1w.nii.gz", "twice_T1w.nii.gz", "tail_T1w.nii.gz"):
        np.testing.assert_allclose(read_scan(folder / name).data, head()[0], atol=1)


def test_pointers_and_pages(make):
    folder = make("odd/pointer_files.py")
    for name, reason in (("annex", "git-annex"), ("lfs", "Git LFS"), ("html", "web page")):
        with pytest.raises(InputError, match=reason):
            read_scan(folder / f"{name}_T1w.nii.gz")


def test_results_carry_both_forms(make, tmp_path):
    import nibabel as nib

    path = make("odd/sform_qform.py") / "a_T1w.nii.gz"
    volume = read_scan(path)
    write_on_scan_grid(tmp_path / "mask.nii.gz", volume.data > 0, volume)
    scan, mask = (nib.load(file).header for file in (path, tmp_path / "mask.nii.gz"))
    for form in ("sform", "qform"):
        assert int(mask[f"{form}_code"]) == int(scan[f"{form}_code"])
        np.testing.assert_allclose(
            getattr(mask, f"get_{form}")(), getattr(scan, f"get_{form}")(), atol=1e-3
        )


def test_sheared_affine(make):
    volume = read_scan(make("odd/sheared_volume.py") / "a_T1w.nii.gz")
    expected = abs(np.linalg.det(volume.affine[:3, :3]))
    assert volume.voxel_mm3 == pytest.approx(expected) == pytest.approx(8.0)
    brain_ml = brain_from_background(volume).sum() * volume.voxel_mm3 / 1000
    assert brain_ml == pytest.approx((head()[0] > 0).sum() * 8 / 1000, rel=0.03)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_special_files(tmp_path):
    pipe, loop = tmp_path / "p_T1w.nii.gz", tmp_path / "b_T1w.nii.gz"
    os.mkfifo(pipe)
    loop.symlink_to(loop.name)
    with pytest.raises(InputError, match="a named pipe, not a regular file"):
        find_scans([pipe])
    with pytest.raises(InputError, match="a link that leads to itself"):
        find_scans([loop])


def test_large_voxels(make, tmp_path):
    path = tmp_path / "big_T1w.nii.gz"
    make("attack/big_voxels.py", path)
    with pytest.raises(InputError, match="mm"):
        read_scan(path)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the scripts close no file
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("script", "replace"),
    [("attack/header_bomb.py", ("", "")), ("attack/gzip_bomb.py", ("384", "2"))],
)
def test_bombs(make, tmp_path, script, replace):
    path, bomb = tmp_path / "scan_T1w.nii.gz", tmp_path / "bomb_T1w.nii.gz"
    make("attack/big_voxels.py", path, 1)
    make(script, path, bomb, replace=replace)
    with pytest.raises(InputError, match="bomb_T1w"):
        read_scan(bomb)


@pytest.mark.parametrize(
    "value", ["2020-13-45", "0b_", "!!float abc", "!!int abc", "!!timestamp foo"]
)
def test_settings_that_are_no_yaml(value):
    with pytest.raises(InputError, match="brain"):
        build_config(BrainConfig, parse_settings([f"brain.tool={value}"])["brain"], "brain")


RECORDER = """#!/bin/bash
{ printf '%s\\0' "$PWD" "$@"; printf '\\n'; } >> "$COMMANDS"
"""


@pytest.fixture
def shell(cases, tmp_path):
    """Run a shell script of the cases; returns the commands of maediff in it."""

    def run(script, *arguments, leave_out="\0"):
        lines = (cases / script).read_text("utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.startswith(leave_out))
        programs, log = tmp_path / "programs", tmp_path / "commands"
        programs.mkdir()
        (programs / "maediff").write_text(RECORDER)
        (programs / "maediff").chmod(0o755)
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", "-c", text, script, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "COMMANDS": str(log), "TMPDIR": str(tmp_path)},
            capture_output=True,
            timeout=60,
            check=False,  # the exit code is that of the last line
        )
        return [line.split("\0")[1:] for line in log.read_text("utf-8").split("\0\n")[:-1]]

    return run


@pytest.fixture
def refuse(capsys, monkeypatch, tmp_path):
    """Run a command that must end with exit code 2 and one line; returns the line."""

    def run(arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["maediff", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2 and len(lines) == 1, lines
        return lines[0]

    return run


def test_damaged_weights(make, tmp_path, refuse):
    """The script flips one bit of the weights; it then runs `detect`, as here."""
    from maediff.models.catalogue import PACKAGED

    model = tmp_path / "t1"
    shutil.copytree(PACKAGED / "t1", model)
    with pytest.raises(InputError, match="SHA-256"):
        flip_largest_exponent(model / "model.safetensors")
        read_model(model).method  # noqa: B018
    make("attack/big_voxels.py", tmp_path / "scan_T1w.nii.gz", 1)
    line = refuse(["detect", "scan_T1w.nii.gz", "-o", "out", "--model", str(model)])
    assert "SHA-256" in line and "model.safetensors" in line
    assert not (tmp_path / "out").exists()


def flip_largest_exponent(path):
    """Flip the bit that attack/nan_weights.py flips."""
    import json
    import struct

    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    offsets = {
        name: entry["data_offsets"]
        for name, entry in json.loads(raw[8 : 8 + length]).items()
        if name != "__metadata__"
    }
    largest = max(offsets.values(), key=lambda pair: pair[1] - pair[0])
    raw[8 + length + largest[0] + 3] ^= 0x40
    path.write_bytes(bytes(raw))


def test_escape_sequences_in_names(shell, refuse):
    (command,) = shell("attack/terminal_escape.sh")
    line = refuse(command)
    assert "evil\\x1b]0;owned\\x07\\x1b[31m_T1w.nii.gz" in line and "\x1b" not in line


def test_hostile_settings(shell, make, refuse, tmp_path):
    make("attack/big_voxels.py", tmp_path / "x_T1w.nii.gz", 1)
    commands = shell("attack/yaml_traceback.sh")
    reasons = [
        *["brain"] * 5,
        "s",
        "c.yaml",
        "nested more than 20 levels deep",
        "e.yaml",
    ]
    assert len(commands) == len(reasons)
    for command, reason in zip(commands, reasons, strict=True):
        assert reason in refuse(command)
    assert not (tmp_path / "NEVER").exists()


def test_links_to_themselves(shell, make, refuse, tmp_path):
    make("attack/big_voxels.py", tmp_path / "good_T1w.nii.gz", 1)
    first, second = shell("odd/symlink_loop.sh", "dir", tmp_path / "good_T1w.nii.gz")
    good, loop = find_scans([tmp_path / first[1]])
    assert good.problem is None and "a link that leads to itself" in loop.problem
    assert "dir.loop" in refuse(second)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe(shell, refuse):
    commands = shell("odd/fifo.sh", "dir")
    (command,) = commands or [["detect", "dir/p_T1w.nii.gz", "-o", "dir/out"]]
    assert "a named pipe, not a regular file" in refuse(command)


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="needs another user")
def test_folder_without_read_permission(shell, make, tmp_path):
    make("attack/big_voxels.py", tmp_path / "good_T1w.nii.gz", 1)
    shell("odd/unreadable_folder.sh", "dir", tmp_path / "good_T1w.nii.gz", leave_out="chmod 755")
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are closed to other users
        Path(folder).chmod(0o755)
        shutil.move(tmp_path / "dir", folder)
        texts = as_nobody(lambda: read_all(Path(folder) / "dir"))
    assert len(texts) == 3 and texts.count("read") == 1
    assert sum("permission denied" in text for text in texts) == 2


def read_all(folder):
    """Return for each scan in a folder "read", or the message of its error."""
    texts = []
    for ref in find_scans([folder]):
        try:
            read_volume(ref)
            texts.append("read")
        except InputError as error:
            texts.append(str(error))
    return texts


def as_nobody(work):
    """Run a function in a process without rights; returns its result, a list of texts."""
    import json

    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            logging.disable(logging.CRITICAL)
            os.setuid(65534)
            text = json.dumps(work())
        except BaseException:
            text = json.dumps([traceback.format_exc()])
        os.write(send, text.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as stream:
        texts = json.load(stream)
    os.waitpid(process, 0)
    return texts
