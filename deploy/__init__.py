"""The server: a Ray Serve application that answers with a voice, and the files that put it on a cluster."""
