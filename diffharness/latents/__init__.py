"""Which latents differ and what they stand for: scaling, identification, annotation, shift."""
