"""Where Ray and storage meet: sessions, paths, manifests; it knows nothing of speech."""
