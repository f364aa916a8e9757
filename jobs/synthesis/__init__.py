"""The inside of `flowtts synthesize`."""
