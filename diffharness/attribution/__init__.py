"""The account of the gap: surrogates, path integral, interventions, decomposition."""
