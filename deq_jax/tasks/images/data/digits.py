"""The digits that ship with scikit-learn."""

import numpy as np
from jaxtyping import Int32, UInt8

# Every seed shares one split of the digits, so that accuracies of different seeds can be compared.
_SPLIT_SEED = 0
_TEST_SHARE = 0.2


def read(split: str) -> tuple[UInt8[np.ndarray, "n 8 8 1"], Int32[np.ndarray, " n"], tuple[str, ...]]:
    """Images, labels and class names of 1,797 scanned digits, 8×8, their 17 grey levels spread over 0 to 255.

    A stratified fifth, always the same, is the test split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    rows = train_test_split(np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=_SPLIT_SEED)
    chosen = np.sort(rows[("train", "test").index(split)])
    return levels[chosen], labels[chosen], tuple("0123456789")
