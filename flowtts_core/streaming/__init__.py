"""Speech made piece by piece, for servers."""
