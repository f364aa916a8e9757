"""Front ends: text to tokens."""
