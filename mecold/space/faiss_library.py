"""The one door to FAISS, opened when it is needed, and after torch; one setting of threads for both."""

from typing import Any

import torch


def faiss_library() -> Any:
    """The module `faiss`.

    Raises:
        ImportError: saying how to install it.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError("FAISS is not installed: pip install 'mecold[cpu]' (or 'mecold[gpu]', never both)") from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
