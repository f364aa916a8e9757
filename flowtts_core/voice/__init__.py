"""Voices as artefacts: cards, weights, opening and saving."""
