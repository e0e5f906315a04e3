"""CLIP's contrastive loss for captions of which several may be true of a picture, and retrieval."""

from __future__ import annotations

import torch
from torch.nn.functional import log_softmax


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, truth: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Mean of cross entropies picture → texts and text → pictures, the target spread evenly over all that is true.

    With one text for each picture it is CLIP's (Radford et al., 2021, figure 3); the even spread is that of UniCL (Yang
    et al., 2022). Texts that are true of no picture count as wrong answers only.

    Args:
        images: (K, D) unit vectors.
        texts: (n, D) unit vectors.
        truth: (K, n) bool: the text is true of the picture; each picture has one.
        scale: what cosines are multiplied by.
    """
    logits, target = scale * images @ texts.T, truth.float()
    per_image = -(log_softmax(logits, 1) * target).sum(1) / target.sum(1)
    used = truth.any(0)
    per_text = -(log_softmax(logits, 0) * target).sum(0)[used] / target.sum(0)[used]
    return (per_image.mean() + per_text.mean()) / 2


def retrieval(images: torch.Tensor, texts: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Share of pictures whose nearest text is true of them, and the share that chance gives.

    Args:
        images, texts, truth: as in `contrastive_loss`.
    """
    nearest = (images @ texts.T).argmax(1, keepdim=True)
    return float(truth.gather(1, nearest).float().mean()), float(truth.float().mean())
