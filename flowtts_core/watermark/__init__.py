"""Watermarks: marks that are heard by no one and found by a detector, with a message of 16 bits."""
