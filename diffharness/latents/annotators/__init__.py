"""Who names latents other than by probes: any language model that lm-eval can ask, or a person's table."""
