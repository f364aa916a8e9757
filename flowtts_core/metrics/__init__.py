"""Metrics that run offline: word error rate, predicted opinion scores, speaker similarity, distances, and intervals."""
