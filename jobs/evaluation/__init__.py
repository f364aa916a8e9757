"""The inside of `flowtts evaluate`."""
