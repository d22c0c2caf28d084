"""lm-eval's side: the recording model, the ledger, paired scores."""
