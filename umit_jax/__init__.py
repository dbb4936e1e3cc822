"""umit_jax: device side of the training stack for UMIT (arXiv 2503.15892)."""

__version__ = "0.1.0"
