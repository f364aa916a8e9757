"""English text written out in words."""
