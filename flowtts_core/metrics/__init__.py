"""Judges that run offline: word error rate, opinion scores, speaker similarity, and the intervals of their means."""
