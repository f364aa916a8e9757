"""The inside of `flowtts codec` for many files."""
