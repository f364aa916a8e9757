"""FlowTTS's library: text, flow matching, acoustic models, vocoders and audio, in one process and without Ray."""

__version__ = "0.2.0"
