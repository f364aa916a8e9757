"""CosyVoice's flow decoder: mel frames from speech tokens laid out in time (Du et al. 2024, arXiv 2407.05407, 2412.10117)."""
