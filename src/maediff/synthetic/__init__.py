"""Synthetic data: phantoms with lesions, T1w rendered as FLAIR or T2w."""
