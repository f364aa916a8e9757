"""Matcha-TTS: configuration, networks, model, importer of published checkpoints."""
