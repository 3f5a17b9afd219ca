"""Products against plain ones, by either library."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mecold.math import products
from mecold.math.prefixes import Prefixes, pairs_between, prefixes
from mecold.math.products import beside, onednn_is_true, product


@pytest.mark.parametrize("by_onednn", [True, False])
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 20), others=st.integers(1, 40), widths=st.lists(st.integers(1, 70), min_size=1, max_size=4))
def test_parts_multiply_as_if_they_lay_side_by_side(by_onednn, rows, others, widths):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "onednn_is_true", lambda: by_onednn and onednn_is_true())
        draws = torch.Generator().manual_seed(rows)
        left = torch.randn(rows, sum(widths) + 3, generator=draws)[:, 3:]  # a view, as users' vectors are
        left.requires_grad_()
        parts = [torch.randn(others, width, generator=draws, requires_grad=True) for width in widths]
        found = beside(left, parts)
        assert found.dtype == torch.float32
        expected = left.double() @ torch.cat(parts, 1).double().T
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
        towards = torch.randn(found.shape, generator=draws)
        got = torch.autograd.grad((found * towards).sum(), [left, *parts])
        wanted = torch.autograd.grad((expected * towards).sum(), [left, *parts])
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            first = left[:, : widths[0]]
            exact = first.double() @ parts[0].double().T
            torch.testing.assert_close(product(first, parts[0]).double(), exact, rtol=1e-4, atol=1e-4)


def test_an_operator_that_is_not_exact_is_not_asked(monkeypatch):
    def short(rows, parts):
        return (rows.bfloat16() @ torch.cat(parts, 1).bfloat16().T).float()

    monkeypatch.setattr(products, "_forward", short)
    assert not onednn_is_true.__wrapped__()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 9999), past=st.sampled_from([1, 3, 20]), window=st.sampled_from([1, 4, 10]),
    fade=st.sampled_from([0.5, 2.0]),
    longest=st.sampled_from([1, 6, 40, 700]), users=st.integers(1, 12),
)  # fmt: skip
def test_prefixes_known_by_products_are_those_that_are_laid_down(seed, past, window, fade, longest, users):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, longest, size=users, endpoint=True)
    assume(sizes.max() > 1)
    offsets, width = np.concatenate([[0], sizes.cumsum()]), longest + 20
    items = np.concatenate([rng.permutation(width)[:size] for size in sizes])  # nobody has an item twice
    owners = np.repeat(np.arange(users), sizes)
    weights = rng.random(offsets[-1]).astype(np.float32) + 0.1
    settings_ = {"past": past, "fade": fade, "window": window}
    S, T = (sp.diags(weights.astype(np.float64)) @ part for part in prefixes(items, owners, width, **settings_))
    found = Prefixes.of(items, offsets, weights, width, **settings_, device=torch.device("cpu"))
    dense = torch.randn(width, 5, generator=torch.Generator().manual_seed(seed))
    for one, other in ((found.inner(), S.T @ S), (found.follows(), S.T @ T), (found.follows().T, T.T @ S)):
        expected = other @ dense.double().numpy()
        np.testing.assert_allclose(
            (one @ dense).numpy(), expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max())
        )
    gram = (S.T @ S).toarray()
    np.testing.assert_allclose(found.squares().numpy(), gram.diagonal(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.gram().numpy(), gram, rtol=1e-4, atol=1e-4)
    assert pairs_between(offsets, past, window) == (np.diff(S.indptr) * np.diff(T.indptr)).sum()
