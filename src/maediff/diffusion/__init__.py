"""The mathematics of the diffusion: process, noise, patches."""
