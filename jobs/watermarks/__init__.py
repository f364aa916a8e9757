"""The inside of `flowtts watermark` for many files."""
