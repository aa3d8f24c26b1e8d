"""Patches and cells: merging by hand, identities, noised cells, refusals."""

import re

import pytest
import torch

from maediff.diffusion.patches import (
    PatchGrid,
    PatchMerger,
    check_cells,
    insert,
    merge_weights,
    noised_cells,
    patch_mask,
    patches_with_brain,
)


def merge(image, predictions, grid, kind="mean"):
    """Merge all patches of one image; patch k comes from predictions[k]."""
    merger = PatchMerger(image, grid.p, kind)
    merger.add(torch.zeros(len(grid.corners), dtype=torch.long), grid.corners, predictions)
    return merger.reference()


def test_merge_of_a_4x4_slice_by_hand():
    grid = PatchGrid(size=4, p=2, s=1)  # 9 patches, at rows and columns 0, 1, 2
    assert grid.starts == [0, 1, 2]
    values = torch.arange(1.0, 10.0)  # patch k holds k + 1 everywhere
    merged = merge(torch.zeros(1, 1, 4, 4), values.view(9, 1, 1, 1).expand(9, 1, 4, 4), grid)
    by_hand = torch.tensor(
        [  # patches 1 2 3 / 4 5 6 / 7 8 9 at the nine corners
            [1.0, 1.5, 2.5, 3.0],
            [2.5, 3.0, 4.0, 4.5],  # (1,1) is covered by 1, 2, 4, 5
            [5.5, 6.0, 7.0, 7.5],
            [7.0, 7.5, 8.5, 9.0],
        ]
    )
    torch.testing.assert_close(merged[0, 0], by_hand)


@pytest.mark.parametrize(
    ("size", "p", "s"), [(96, 48, 48), (96, 48, 16), (10, 5, 4), (7, 7, 3), (9, 4, 3)]
)
@pytest.mark.parametrize("kind", ["mean", "tapered"])
def test_merging_the_patches_of_an_image_gives_the_image(size, p, s, kind):
    grid = PatchGrid(size, p, s)
    image = torch.rand(1, 1, size, size)
    merged = merge(
        torch.zeros_like(image), image.expand(len(grid.corners), -1, -1, -1), grid, kind
    )
    torch.testing.assert_close(merged, image, rtol=0, atol=1e-6)


def test_pixels_without_a_patch_keep_their_value():
    image = torch.rand(1, 1, 4, 4)
    merger = PatchMerger(image, 2, "mean")
    merger.add(torch.tensor([0]), torch.tensor([[0, 0]]), torch.full((1, 1, 4, 4), 9.0))
    reference = merger.reference()
    assert (reference[..., :2, :2] == 9).all()
    outside = ~patch_mask(torch.tensor([[0, 0]]), 2, 4)
    assert torch.equal(reference[0][outside], image[0][outside])


def test_the_last_patch_is_moved_inside():
    assert PatchGrid(10, 5, 4).starts == [0, 4, 5]
    assert PatchGrid(96, 48, 16).starts == [0, 16, 32, 48]
    assert PatchGrid(96, 48, 48).starts == [0, 48]
    assert PatchGrid(5, 5, 2).starts == [0]


@pytest.mark.parametrize(("size", "p", "s"), [(10, 5, 4), (96, 48, 16), (9, 4, 3)])
def test_every_pixel_is_covered_and_every_patch_is_whole(size, p, s):
    masks = PatchGrid(size, p, s).masks
    assert masks.any(0).all()
    assert (masks.sum((1, 2)) == p * p).all()


@pytest.mark.parametrize(
    ("p", "s", "message"), [(99, 16, "p=99"), (48, 99, "s=99"), (0, 1, "p=0"), (48, 0, "s=0")]
)
def test_patches_that_do_not_fit_are_refused(p, s, message):
    with pytest.raises(ValueError, match=message):
        PatchGrid(96, p, s)


def test_insert_puts_each_patch_in_its_place():
    slices = insert(torch.ones(2, 1, 2, 2), torch.tensor([[0, 1], [2, 2]]), 4)
    assert slices[0, 0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert slices[1, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_tapered_weights_fall_to_the_edge():
    assert merge_weights(4, "tapered").tolist()[1] == [0.5, 1.0, 1.0, 0.5]
    assert (merge_weights(4, "mean") == 1).all()


def test_a_patch_noises_the_cells_that_it_touches():
    noised = noised_cells(torch.tensor([[0, 16], [48, 48]]), p=48, size=96, r=16).view(2, 6, 6)
    assert noised[0, :3, 1:4].all()
    assert noised[1, 3:, 3:].all()
    assert noised.sum((1, 2)).tolist() == [9, 9]
    # A patch off the grid of cells touches more cells.
    assert int(noised_cells(torch.tensor([[8, 0]]), p=48, size=96, r=16).sum()) == 12


@pytest.mark.parametrize(("d", "fits"), [(1, [1, 2, 4, 8, 16]), (4, [4, 8, 16]), (16, [16])])
def test_wrong_cells_are_refused_and_the_message_names_cells_that_fit(d, fits):
    grid = PatchGrid(96, 48, 16)
    for r in {*range(50)} - {*fits}:
        with pytest.raises(
            ValueError, match=rf"r={r} .* d={d} pixels: r in {re.escape(str(fits))} would fit"
        ):
            check_cells(grid, r, d)
    for r in fits:
        check_cells(grid, r, d)


def test_the_message_differs_if_no_cell_fits():
    """r has to divide gcd(50, 16, 96) = 2, and be a multiple of 4."""
    with pytest.raises(ValueError, match="no r does, so make p and s multiples of 4"):
        check_cells(PatchGrid(96, 50, 16), 2, d=4)


def test_only_patches_without_brain_are_skipped():
    grid = PatchGrid(8, 4, 4)
    brain = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    brain[0, 0, 1, 6] = True  # patch 1 of slice 0
    brain[2, 0, 5:, :] = True  # patches 2 and 3 of slice 2
    pairs = [
        (int(s), int(k))
        for slices, patches in patches_with_brain(brain, grid, 2)
        for s, k in zip(slices, patches, strict=True)
    ]
    assert pairs == [(0, 1), (2, 2), (2, 3)]
