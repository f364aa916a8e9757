"""Waveforms and mels: files, resampling, loudness, mel spectrograms."""
