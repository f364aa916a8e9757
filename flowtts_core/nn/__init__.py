"""Layers that several models share; activations are [B, T, C]."""
