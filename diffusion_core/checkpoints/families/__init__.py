"""Families of open checkpoints: how each is recognised, read and denoised. One small file per group of relatives."""
