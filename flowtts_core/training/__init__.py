"""Training in one process, without Ray: prepared examples, batches, the loop, and what is trained."""
