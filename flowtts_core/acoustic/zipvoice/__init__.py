"""ZipVoice: zero-shot speech by flow matching on a Zipformer."""
