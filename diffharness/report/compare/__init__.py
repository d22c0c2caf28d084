"""Several finished runs side by side: which fine-tune gained what, through which category."""
