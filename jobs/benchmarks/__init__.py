"""The inside of `flowtts benchmark`."""
