"""The inside of `flowtts prepare` and `flowtts corpus`."""
