"""Unmarked fakes: how probable it is that speech is synthetic, over time. A hint for who judges, never a verdict."""
