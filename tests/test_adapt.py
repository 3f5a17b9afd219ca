import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold.heads.inner import descend, logistic_loss, solve, squared_loss
from tests import reference


def batch(users=4, shots=8, dim=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    mask = torch.rand(users, shots, generator=rng) < 0.7
    mask[0] = True
    weights = torch.rand(users, shots, generator=rng, dtype=torch.float64) + 0.1
    vectors = draw(50, dim)
    return draw(users, dim), draw(users, shots, dim), draw(users, shots), mask, weights, vectors.T @ vectors / 50


def test_steps_with_squared_loss_reach_ridge_regression():
    prior, items, labels, mask, weights, gram = batch()

    adapted = descend(
        prior, items, labels, mask, lr=0.03, steps=6000, l2=0.3, weights=weights, gram=gram, gram_weight=0.2
    )

    for user in range(4):
        real = mask[user].numpy()
        expected = reference.ridge(
            items[user].numpy()[real], labels[user].numpy()[real], prior[user].numpy(), np.full(5, 0.3),
            weights[user].numpy()[real], 0.2 * gram.numpy(),
        )  # fmt: skip
        np.testing.assert_allclose(adapted[user], expected, rtol=1e-6, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shots=st.integers(1, 12), dim=st.integers(1, 9))
def test_the_closed_form_is_ridge_regression(seed, shots, dim):
    prior, items, labels, mask, weights, gram = batch(3, shots, dim, seed)
    l2 = torch.rand(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1

    adapted = solve(prior, items, labels, mask, l2=l2, weights=weights, gram=gram, gram_weight=0.7)

    for user in range(3):
        real = mask[user].numpy()
        expected = reference.ridge(
            items[user].numpy()[real], labels[user].numpy()[real], prior[user].numpy(), l2.numpy(),
            weights[user].numpy()[real], 0.7 * gram.numpy(),
        )  # fmt: skip
        np.testing.assert_allclose(adapted[user], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("adaptation", ["gradient", "closed form"])
def test_second_order_gradients_are_right(adaptation):
    prior, items, labels, mask, weights, gram = batch(2, 3, 4)
    lr = torch.full((4,), 0.1, dtype=torch.float64)

    def outer(prior, items, labels, weights, rate):
        if adaptation == "gradient":
            return descend(
                prior, items, labels, mask, lr=rate, steps=3, l2=0.2, weights=weights, gram=gram, gram_weight=0.1,
                loss=squared_loss,
            )  # fmt: skip
        return solve(prior, items, labels, mask, l2=rate, weights=weights, gram=gram, gram_weight=0.1)

    inputs = [x.requires_grad_() for x in (prior, items, labels, weights, lr)]
    assert torch.autograd.gradcheck(outer, inputs)
    assert torch.autograd.gradgradcheck(outer, inputs)


@pytest.mark.parametrize("loss", [squared_loss, logistic_loss], ids=["squared", "logistic"])
def test_the_outer_gradient_is_that_of_a_functional_maml(loss):
    prior, items, labels, mask, weights, _ = batch(1, 6, 4)
    labels = labels.sigmoid()
    mask[:] = True
    query = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(9))

    def inner_loss(head):
        return (weights[0] * loss.value(items[0] @ head, labels[0])).sum()

    def functional(head):
        start = head
        for _ in range(2):
            head = head - 0.1 * (torch.func.grad(inner_loss)(head) + 0.05 * (head - start))
        return head @ query

    def ours(head):
        adapted = descend(head[None], items, labels, mask, lr=0.1, steps=2, l2=0.05, weights=weights, loss=loss)
        return adapted[0] @ query

    torch.testing.assert_close(ours(prior[0]), functional(prior[0]))
    torch.testing.assert_close(torch.func.grad(ours)(prior[0]), torch.func.grad(functional)(prior[0]))


def test_first_order_leaves_the_curvature_out_but_not_the_step():
    prior, items, labels, mask, _, _ = batch()
    prior.requires_grad_()
    lr = torch.full((5,), 0.1, dtype=torch.float64, requires_grad=True)

    first = descend(prior, items, labels, mask, lr=lr, steps=2, first_order=True)
    second = descend(prior, items, labels, mask, lr=lr, steps=2)

    torch.testing.assert_close(first, second)  # the same head
    slope = torch.autograd.grad(first.sum(), [prior, lr], retain_graph=True)
    torch.testing.assert_close(slope[0], torch.ones_like(prior))  # FOMAML: d head / d prior is the identity
    assert slope[1].abs().sum() > 0
    assert not torch.allclose(torch.autograd.grad(second.sum(), prior)[0], torch.ones_like(prior))


@pytest.mark.parametrize("kind", ["gradient", "closed form"])
def test_a_batch_is_its_users_one_by_one_and_padding_is_inert(kind):
    prior, items, labels, mask, weights, gram = batch(6, 7, 5)
    l2 = torch.full((5,), 0.5, dtype=torch.float64)

    def adapt(p, v, y, m, c):
        if kind == "gradient":
            return descend(p, v, y, m, lr=0.1, steps=3, l2=l2, weights=c, gram=gram, gram_weight=0.1)
        return solve(p, v, y, m, l2=l2, weights=c, gram=gram, gram_weight=0.1)

    together = adapt(prior, items, labels, mask, weights)
    garbage = [
        torch.where(mask[..., None], items, 1e6),
        torch.where(mask, labels, -7.0),
        torch.where(mask, weights, 99.0),
    ]
    torch.testing.assert_close(adapt(prior, garbage[0], garbage[1], mask, garbage[2]), together, rtol=0, atol=0)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    permuted = adapt(*(x[order] for x in (prior, items, labels, mask, weights)))
    torch.testing.assert_close(permuted, together[order])
    for user in range(6):
        real = mask[user]
        alone = [x[user : user + 1] for x in (prior, items, labels, weights)]
        one = adapt(alone[0], alone[1][:, real], alone[2][:, real], real[real][None], alone[3][:, real])
        torch.testing.assert_close(one[0], together[user])


def test_no_steps_and_no_support_leave_the_prior():
    prior, items, labels, mask, _, _ = batch()
    torch.testing.assert_close(descend(prior, items, labels, mask, lr=1.0, steps=0), prior)
    nobody = torch.zeros_like(mask)
    torch.testing.assert_close(descend(prior, items, labels, nobody, lr=0.1, steps=5), prior)
    torch.testing.assert_close(solve(prior, items, labels, nobody, l2=torch.ones(5, dtype=torch.float64)), prior)
