"""The masked autoencoder's view of the map, the shapes of the U-Net, and their layers."""

import pytest
import torch

from maediff.diffusion.patches import noised_cells
from maediff.nn.layers import GroupNorm, sincos_2d
from maediff.nn.mae import MAE, MAEConfig, patchify, unpatchify
from maediff.nn.unet import UNet, UNetConfig

SMALL = {"dim": 32, "encoder_blocks": 2, "decoder_blocks": 1, "heads": 4}
CORNERS = torch.tensor([[0, 0], [16, 32]])
NOISED = noised_cells(CORNERS, p=48, size=96, r=16)


def make(**changes):
    """Return an autoencoder whose last layer, which starts at zero, has random weights."""
    torch.manual_seed(0)
    mae = MAE(
        channels=8, cell=4, rows=6, hidden=9, config=MAEConfig(**{**SMALL, **changes})
    ).eval()
    torch.manual_seed(1)
    mae.proj.reset_parameters()
    return mae


def cells(noised):
    """Return the mask of the given cells over the 24 x 24 feature map."""
    return noised.view(-1, 1, 6, 6).repeat_interleave(4, 2).repeat_interleave(4, 3)


def encode(mae, feature_map):
    visible = NOISED.int().argsort(dim=1, stable=True)[:, :27]
    return mae.forward_encoder(mae.tokens(feature_map, NOISED), visible)


@pytest.mark.parametrize("cell", [1, 2, 4])
def test_patchify_then_unpatchify_is_the_identity(cell):
    feature_map = torch.rand(2, 3, 8, 8)
    tokens = patchify(feature_map, cell)
    assert tokens.shape == (2, (8 // cell) ** 2, 3 * cell**2)
    assert torch.equal(unpatchify(tokens, cell, 8 // cell), feature_map)


def test_patchify_orders_cells_row_by_row():
    feature_map = torch.arange(16.0).view(1, 1, 4, 4)
    assert patchify(feature_map, 2)[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_wrong_widths_are_refused_and_the_message_names_widths_that_fit():
    with pytest.raises(
        ValueError, match=r"\(33, 64\): the first is the time embedding's width, and must be even"
    ):
        UNetConfig(channels=(33, 64))
    with pytest.raises(
        ValueError, match=r"attention with 3 heads of 64 needs a last one of 192 or 256"
    ):
        UNetConfig(channels=(32, 64, 200))
    UNetConfig(channels=(32, 64, 200), attention=False)


def test_the_encoder_never_sees_noised_cells():
    mae, feature_map = make(), torch.rand(2, 8, 24, 24)
    changed = torch.where(cells(NOISED), torch.rand(2, 8, 24, 24), feature_map)
    assert not torch.equal(changed, feature_map)
    assert torch.equal(encode(mae, changed), encode(mae, feature_map))


def test_the_encoder_sees_every_visible_cell():
    mae, feature_map = make(), torch.rand(2, 8, 24, 24)
    for cell in range(36):
        chosen = torch.zeros(2, 36, dtype=torch.bool)
        chosen[:, cell] = True
        changed = torch.where(cells(chosen), feature_map + 1, feature_map)
        different = (encode(mae, changed) != encode(mae, feature_map)).flatten(1).any(1)
        assert torch.equal(different, ~NOISED[:, cell])


def test_visible_tokens_are_the_visible_cells_in_order():
    visible = NOISED.int().argsort(dim=1, stable=True)[:, :27]
    for row, noised in zip(visible, NOISED, strict=True):
        assert row.tolist() == torch.nonzero(~noised).flatten().tolist()


@pytest.mark.parametrize("fusion", ["concat", "add", "replace"])
def test_the_decoder_uses_the_entire_map(fusion):
    """Noised and visible cells both change the result."""
    mae, feature_map = make(fusion=fusion, back="replace"), torch.rand(2, 8, 24, 24)
    before = mae(feature_map, NOISED)
    assert before.shape == feature_map.shape
    for changed in (NOISED, ~NOISED):
        after = mae(torch.where(cells(changed), feature_map + 1, feature_map), NOISED)
        assert (before != after).flatten(1).any(1).all()


def test_a_fresh_autoencoder_with_back_add_is_the_identity():
    feature_map = torch.rand(2, 8, 24, 24)
    for back, same in [("add", True), ("replace", False)]:
        untrained = MAE(channels=8, cell=4, rows=6, hidden=9, config=MAEConfig(**SMALL, back=back))
        assert torch.equal(untrained(feature_map, NOISED), feature_map) is same
        assert bool(untrained.proj.weight.any()) is not same


@pytest.mark.parametrize("fusion", ["add", "replace"])
def test_the_output_of_the_encoder_changes_the_result(fusion):
    """Only the encoder's input changes here; the map goes to the decoder unchanged."""
    mae, feature_map = make(fusion=fusion), torch.rand(2, 8, 24, 24)
    after = mae(feature_map, NOISED, torch.where(cells(~NOISED), feature_map + 1, feature_map))
    assert (mae(feature_map, NOISED) != after).flatten(1).any(1).all()


def test_visible_only_ignores_the_noised_cells_and_map_only_has_no_encoder():
    feature_map = torch.rand(2, 8, 24, 24)
    mae = make(fusion="visible_only", back="replace")
    changed = torch.where(cells(NOISED), feature_map + 1, feature_map)
    assert torch.equal(mae(feature_map, NOISED), mae(changed, NOISED))
    assert not any(
        name.startswith("encoder") for name, _ in make(fusion="map_only").named_parameters()
    )


def test_back_add_adds_what_back_replace_returns():
    feature_map = torch.rand(2, 8, 24, 24)
    added, replaced = (make(back=back)(feature_map, NOISED) for back in ("add", "replace"))
    torch.testing.assert_close(added, feature_map + replaced)


def test_visible_map_is_the_input_of_the_encoder():
    mae, feature_map = make(), torch.rand(2, 8, 24, 24)
    assert torch.equal(mae(feature_map, NOISED, feature_map), mae(feature_map, NOISED))
    assert not torch.equal(mae(feature_map, NOISED, feature_map + 1), mae(feature_map, NOISED))


def test_dimensions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"dim=30 must be a multiple of 4 and of heads=8"):
        MAEConfig(dim=30)


def test_positions_differ_from_cell_to_cell():
    positions = sincos_2d(6, 6, 32)
    assert torch.cdist(positions, positions).fill_diagonal_(9).min() > 0.1


@pytest.mark.parametrize(
    ("channels", "stem", "d"),
    [((8, 16), 2, 4), ((8, 16, 16), 1, 4), ((8,), 1, 1), ((8, 16, 32), 2, 8)],
)
@pytest.mark.parametrize(("attention", "resample"), [(False, "conv"), (True, "residual")])
def test_unet_keeps_the_size_and_its_map_is_d_times_smaller(
    channels, stem, d, attention, resample
):
    config = UNetConfig(
        channels=channels, stem=stem, blocks=1, attention=attention, resample=resample
    )
    unet, x, t = UNet(config), torch.rand(2, 1, 48, 48), torch.tensor([0, 999])
    assert config.d == d
    feature_map, _, _ = unet.encode(x, t)
    assert feature_map.shape == (2, channels[-1], 48 // d, 48 // d)
    assert unet(x, t).shape == x.shape


def test_the_paper_preset_has_the_size_of_pddpms_network():
    """The network in the code of pDDPM has 37.5 M parameters."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in UNet(UNetConfig()).parameters())
    assert round(parameters / 1e6, 1) == 37.5


def test_group_norm_keeps_the_input_type_and_equals_that_of_torch():
    x, device = torch.randn(2, 8, 4, 4), "cuda" if torch.cuda.is_available() else "cpu"
    norm, reference = GroupNorm(4, 8).to(device), torch.nn.GroupNorm(4, 8).to(device)
    with torch.no_grad():
        for layer in (norm, reference):
            layer.weight.copy_(torch.linspace(0.5, 2, 8))
            layer.bias.copy_(torch.linspace(-1, 1, 8))
    assert torch.equal(norm(x.to(device)), reference(x.to(device)))
    with torch.autocast(device, torch.bfloat16):
        rounded = norm(x.to(device, torch.bfloat16))
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(
        rounded.float(), reference(x.bfloat16().float().to(device)), rtol=0.02, atol=0.02
    )
