"""Claims corrected for how many are made at once."""

from __future__ import annotations

import numpy as np


def discoveries(p: np.ndarray) -> np.ndarray:
    """The smallest rate of false discoveries at which each of these claims is one (Benjamini & Hochberg 1995)."""
    order = np.argsort(p)
    rates = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(rates[::-1])[::-1])
    return adjusted
