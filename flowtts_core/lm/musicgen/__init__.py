"""MusicGen: a language model of codes, with text by attention (Copet et al. 2023, arXiv 2306.05284)."""
