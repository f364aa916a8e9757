"""German text written out in words."""
