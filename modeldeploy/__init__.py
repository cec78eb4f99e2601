"""Deploy, roll out, roll back and batch-score models, the same way on this machine and on any cloud."""
