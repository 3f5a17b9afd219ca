"""Products against plain ones, by either library."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold.math import products
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
