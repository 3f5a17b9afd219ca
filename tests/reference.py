"""Plain-loop twins of the fast code, written from the formulas and sharing nothing with the package."""

import hashlib
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


def directed(
    histories: list[list[int]], n: int, l2: float, past: int, fade: float, window: int, early: float = 0.0
) -> np.ndarray:
    S, T, weights = [], [], []
    for history in histories:
        for end in range(1, len(history)):
            source, target = np.zeros(n), np.zeros(n)
            for age, item in enumerate(reversed(history[:end])):
                if age < past:
                    source[item] = math.exp(-age / fade)
            target[history[end : end + window]] = 1
            S.append(source), T.append(target), weights.append((end / past) ** -early)
    S, T, W = np.array(S), np.array(T), np.diag(weights)
    B = np.linalg.solve(S.T @ W @ S + l2 * np.eye(n), S.T @ W @ T)
    np.fill_diagonal(B, 0)
    return B


def bucket(seed: int, key: str) -> int:
    return int(hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()[:8], 16) % 10


def histories_of(rows: list[dict], order: str | None) -> dict[object, list[tuple[object, float | None]]]:
    """User -> (item, time) in order, the first of each pair; `order` names the column, None is the fixed shuffle."""
    by_user: dict[object, list[tuple]] = {}
    for place, row in enumerate(rows):
        shuffled = hashlib.sha256(f"{row['user_id']}:{row['item_id']}".encode()).hexdigest()
        key = shuffled if order is None else row[order]
        by_user.setdefault(row["user_id"], []).append((key, place, row["item_id"], row.get("timestamp")))
    histories = {}
    for user, events in by_user.items():
        first: dict[object, float | None] = {}
        for _, _, item, time in sorted(events, key=lambda event: event[:2]):
            first.setdefault(item, time)
        histories[user] = list(first.items())
    return histories


def user_split(histories: dict, seed: int) -> dict[str, dict]:
    parts: dict[str, dict] = {"train": {}, "valid": {}, "test": {}}
    for user, history in histories.items():
        b = bucket(seed, str(user))
        name = "train" if len(history) < 11 or b > 2 else "valid" if b == 2 else "test"
        parts[name][user] = history
    return parts


def time_split(histories: dict) -> dict[str, dict]:
    firsts = sorted(history[0][1] for history in histories.values())
    place = 0.8 * (len(firsts) - 1)
    low = math.floor(place)
    cut = firsts[low] + (place - low) * (firsts[min(low + 1, len(firsts) - 1)] - firsts[low])
    train = {user: [event for event in history if event[1] < cut] for user, history in histories.items()}
    return {
        "train": {user: history for user, history in train.items() if history},
        "test": {user: h for user, h in histories.items() if h[0][1] >= cut and len(h) >= 11},
    }


def item_split(histories: dict, items: list, seed: int) -> tuple[dict, dict, set]:
    """Training histories; user -> (warm items, cold items); the cold items."""
    cold = {item for item in items if bucket(seed, f"item:{item}") < 2}
    parts = user_split(histories, seed)
    train = {user: [e for e in history if e[0] not in cold] for user, history in parts["train"].items()}
    test = {}
    for user, history in parts["test"].items():
        warm, new = [i for i, _ in history if i not in cold], [i for i, _ in history if i in cold]
        if len(warm) >= 3 and new:
            test[user] = (warm, new)
    return {user: history for user, history in train.items() if history}, test, cold


def metrics(ranked: list[int], relevant: set[int]) -> dict[str, float]:
    hit = [item in relevant for item in ranked]
    first = next((rank for rank, one in enumerate(hit[:10], start=1) if one), None)
    precisions = [sum(hit[: rank + 1]) / (rank + 1) for rank, one in enumerate(hit[:10]) if one]
    return {
        "ndcg@10": ndcg(ranked, relevant),
        "recall@20": sum(hit[:20]) / min(20, len(relevant)),
        "mrr@10": 1 / first if first else 0.0,
        "hit@10": float(any(hit[:10])),
        "map@10": sum(precisions) / min(10, len(relevant)),
    }


def itemknn(histories: list[list[int]], n: int, shrink: float) -> np.ndarray:
    users = [{u for u, history in enumerate(histories) if item in history} for item in range(n)]
    weights = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            if a != b:
                norm = math.sqrt(len(users[a])) * math.sqrt(len(users[b]))
                weights[a, b] = len(users[a] & users[b]) / (norm + shrink)
    return weights


def rp3beta(histories: list[list[int]], n: int, beta: float) -> np.ndarray:
    counts = [max(1, sum(item in history for history in histories)) for item in range(n)]
    weights = np.zeros((n, n))
    for history in histories:
        for a in history:
            for b in history:
                if a != b:
                    weights[a, b] += 1 / counts[a] / len(history) / counts[b] ** beta
    return weights


def userknn(histories: list[list[int]], support: list[int], n: int, count: int, fade: float | None) -> np.ndarray:
    weight = {item: 1.0 if fade is None else math.exp(-age / fade) for age, item in enumerate(reversed(support))}
    like = [sum(weight.get(item, 0.0) for item in history) / math.sqrt(len(history)) for history in histories]
    least = sorted(like)[-count] if len(like) > count else -1.0
    scores = np.zeros(n)
    for history, one in zip(histories, like, strict=True):
        if one >= least:
            scores[history] += one
    return scores
