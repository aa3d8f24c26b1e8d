"""Networks: the diffusion U-Net, the masked autoencoder inside it, and plain autoencoders."""

from maediff.nn.autoencoder import AutoencoderConfig, Critic, Decoder, Encoder
from maediff.nn.mae import MAE, MAEConfig, patchify, unpatchify
from maediff.nn.unet import UNet, UNetConfig

__all__ = [
    "MAE",
    "AutoencoderConfig",
    "Critic",
    "Decoder",
    "Encoder",
    "MAEConfig",
    "UNet",
    "UNetConfig",
    "patchify",
    "unpatchify",
]
