"""Plain-loop twins of the fast code, written from the formulas and sharing nothing with the package."""

import math

import numpy as np


def ridge(
    items: np.ndarray, labels: np.ndarray, prior: np.ndarray, l2: np.ndarray, weights=None, gram=None
) -> np.ndarray:
    """argmin 1/2 sum c (w.v - y)^2 + 1/2 w'Gw + 1/2 (w - prior)' diag(l2) (w - prior), by normal equations."""
    weights = np.ones(len(labels)) if weights is None else weights
    left = np.diag(l2) + (0 if gram is None else gram)
    right = l2 * prior
    for vector, label, weight in zip(items, labels, weights, strict=True):
        left = left + weight * np.outer(vector, vector)
        right = right + weight * label * vector
    return np.linalg.solve(left, right)


def ndcg(ranked: list[int], relevant: set[int], k: int = 10) -> float:
    gain = sum(1 / math.log2(rank + 2) for rank, item in enumerate(ranked[:k]) if item in relevant)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))


def ease(histories: list[list[int]], n: int, l2: float) -> np.ndarray:
    X = np.zeros((len(histories), n))
    for user, history in enumerate(histories):
        X[user, history] = 1
    P = np.linalg.inv(X.T @ X + l2 * np.eye(n))
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0)
    return B


def directed(histories: list[list[int]], n: int, l2: float, past: int, fade: float, window: int) -> np.ndarray:
    S, T = [], []
    for history in histories:
        for end in range(1, len(history)):
            source, target = np.zeros(n), np.zeros(n)
            for age, item in enumerate(reversed(history[:end])):
                if age < past:
                    source[item] = math.exp(-age / fade)
            target[history[end : end + window]] = 1
            S.append(source), T.append(target)
    S, T = np.array(S), np.array(T)
    B = np.linalg.solve(S.T @ S + l2 * np.eye(n), S.T @ T)
    np.fill_diagonal(B, 0)
    return B
