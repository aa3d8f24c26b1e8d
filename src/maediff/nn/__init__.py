"""Networks: the diffusion U-Net and the masked autoencoder inside it."""
