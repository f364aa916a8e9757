"""The lecture's tiny task, whole: two phonemes, two pitches, flow matching on the raw waveform."""
