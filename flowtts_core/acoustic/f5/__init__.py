"""F5-TTS: a diffusion transformer that fills in speech after a prompt."""
