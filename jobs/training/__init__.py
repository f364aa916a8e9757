"""The inside of `flowtts train`."""
