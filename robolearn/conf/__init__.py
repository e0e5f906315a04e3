"""The Hydra tree: ``config.yaml`` and the groups ``task``, ``algo``, ``world`` and ``experiment``."""
