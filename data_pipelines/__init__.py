"""Host side of umit_jax: raw medical files -> Record shards -> packed batches. numpy only, never jax."""
