"""Behaviour: which users will do something, from what users did before and a few answers. Users are rows of the caller's."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from scipy.special import expit, logit, ndtri

from mecold.data.answered import NOT_FEATURES, read_answers, read_labels, read_users
from mecold.data.features import Features
from mecold.data.frames import Columns, FrameLike
from mecold.errors import InvalidDataError, few
from mecold.heads.answers import Start, adapt, probabilities
from mecold.lazy import cached_property
from mecold.meta.behaviour import LEAST_TASKS, Answers, learn_start
from mecold.sealed import Sealed, plain, read_sealed, write_sealed
from mecold.tasks.behaviour_state import BehaviourState
from mecold.values import generator, path

KIND, FORMAT = "behaviour task", 1
ANY = ""  # the start of a behaviour that is like none of the past ones
AT_ONCE = 1 << 24  # padded numbers of supports


@dataclass(frozen=True)
class BehaviourTask:
    """What past behaviours teach of new ones. It does not change; states do.

    Args:
        features: how columns of users are read.
        starts: where heads start, by past behaviour; that of any behaviour is there always, under an empty name.
        told: figures of the fit, by behaviour.
    """

    features: Features
    starts: Mapping[str, Start]
    told: Mapping[str, Mapping[str, float]]

    @classmethod
    def fit_meta(
        cls,
        past: FrameLike,
        users: FrameLike | None = None,
        *,
        columns: Columns | None = None,
        rng: int = 0,
    ) -> "BehaviourTask":
        """Learn from what users did where a head should start, and how far a few answers should move it.

        Args:
            past: frame or path: `user_id`, `behaviour` (a name), `label` (1 did it, 0 did not), and `group`, if one behaviour was
                seen in several periods, shops or kinds of users. Each behaviour and group is one past task. All other
                columns are features: numbers, names, or arrays of numbers, as they were before the user acted.
            users: features that are the same in all tasks: `user_id` and columns.
            columns: canonical name -> the caller's name, for `past`.
            rng: seed of all chance.

        Raises:
            InvalidDataError: on columns, labels or features that cannot be used, fewer than three tasks, or tasks in which
                everybody did the same.
        """
        frame = read_answers(past, columns)
        own = [name for name in frame.columns if name not in NOT_FEATURES]
        if users is not None:
            frame, more = _joined(frame, users, own)
            own = [*own, *more]
        features = Features.of(frame, own, "past behaviours")
        keys = frame.select("behaviour", "group").unique().sort("behaviour", "group")
        task = frame.join(keys.with_row_index("task"), on=["behaviour", "group"], how="left", maintain_order="left")[
            "task"
        ]
        labels = frame["label"].to_numpy()
        answers = Answers(features.matrix(frame, "past behaviours"), labels, task.to_numpy().astype(np.int64))
        did = np.bincount(answers.task, labels, len(keys))
        mixed = (did > 0) & (did < np.bincount(answers.task, minlength=len(keys)))
        if mixed.sum() < LEAST_TASKS:
            raise InvalidDataError(
                f"{int(mixed.sum()):,} of {len(keys):,} past tasks have users who did it and users who did not; it takes "
                f"{LEAST_TASKS}. Add behaviours, or the same one at earlier times with a column `group`."
            )
        chance = generator(rng)
        starts, told = {}, {}
        names = keys["behaviour"].to_numpy()
        for name in [ANY, *keys["behaviour"].unique(maintain_order=True).to_list()]:
            alike = np.flatnonzero(mixed & ((names == name) | (name == ANY)))
            if len(alike) >= LEAST_TASKS:
                starts[name], told[name] = learn_start(
                    answers, alike.tolist(), features.blocks, chance, alike=name != ANY
                )
        return cls(features, starts, told)

    @property
    def behaviours(self) -> list[str]:
        """Names that `like` knows: those of at least three past tasks."""
        return [name for name in self.starts if name != ANY]

    @cached_property
    def fingerprint(self) -> str:
        """Of all that was learned."""
        digest = hashlib.sha256(repr(self.features.told()).encode())
        for name, array in {**self.features.arrays(), **self._tensors()}.items():
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def adapt(
        self,
        users: FrameLike | None = None,
        labels: Mapping[Any, Any] | FrameLike | None = None,
        *,
        like: str | None = None,
        rate: float | None = None,
    ) -> BehaviourState:
        """A head for one behaviour, from a few users of whom it is known.

        Args:
            users: frame or path: `user_id` and the features of the fit; and `label`, where `labels` is None. None: nobody is
                known yet, and the head is the past's.
            labels: id -> 1 or 0, or a frame or path with `user_id` and `label`; users without one are not read.
            like: the past behaviour that it is, or is like; None: it is like none of them, and may go any way.
            rate: share of all users who do it, where labelled users were chosen by what they did (ten of each kind, say). None:
                they are users as they come.

        Raises:
            InvalidDataError: on an unknown behaviour, features or labels that cannot be used, labelled users who are not among
                `users`, one user with two answers, or a rate that is none.
        """
        if users is None:
            if labels is not None:
                raise InvalidDataError("There are labels, but no users whose features could be read. Pass users too.")
            return self._states([like], np.empty((0, self._dim)), np.empty(0), np.empty(0, np.int64), rate)[0]
        frame = read_users(users)
        told = read_labels(frame, "users") if labels is None else read_labels(labels, "labels", frame["user_id"])
        rows = _rows_of(frame, told)
        matrix = self.features.matrix(frame[rows], "users")
        return self._states([like], matrix, told["label"].to_numpy(), np.zeros(len(rows), np.int64), rate)[0]

    def adapt_each(
        self, users: FrameLike, labels: FrameLike, *, rate: float | None = None
    ) -> dict[str, BehaviourState]:
        """A head for each of many behaviours, in batches.

        Args:
            users: frame or path: `user_id` and the features of the fit.
            labels: frame or path: `user_id`, `behaviour`, `label`. A behaviour that the fit knows by name starts there.
            rate: as in `adapt`.

        Returns:
            State by behaviour, in order of their names.

        Raises:
            InvalidDataError: as in `adapt`.
        """
        frame, told = read_users(users), read_answers(labels, None, "labels")
        names = told["behaviour"].unique().sort()
        task = told.join(names.to_frame().with_row_index("task"), on="behaviour", how="left", maintain_order="left")[
            "task"
        ]
        rows = _rows_of(frame, told)
        used, place = np.unique(rows, return_inverse=True)
        matrix = self.features.matrix(frame[used], "users")
        likes = [name if name in self.starts else None for name in names.to_list()]
        found = self._states(likes, matrix, told["label"].to_numpy(), task.to_numpy().astype(np.int64), rate, place)
        return dict(zip(names.to_list(), found, strict=True))

    def score(self, state: BehaviourState, users: FrameLike, *, share: float = 0.8) -> pl.DataFrame:
        """How likely users are to do it.

        Args:
            state: from `adapt`.
            users: frame or path: `user_id` and the features of the fit.
            share: of the interval.

        Returns:
            A frame in the order given: `user_id`, `probability`, and `low` and `high`, between which it lies with that share,
            for all that few answers can tell.

        Raises:
            InvalidDataError: if the state comes from another task, or the features or the share cannot be used.
        """
        if not 0 < share < 1:
            raise InvalidDataError(f"share={share} must lie between 0 and 1.")
        if not isinstance(state, BehaviourState) or state.model != self.fingerprint:
            raise InvalidDataError(
                f"This state is of the task {getattr(state, 'model', None)!r}; this is {self.fingerprint}. Adapt again."
            )
        frame = read_users(users)
        rows = self.features.matrix(frame, "users")
        mean = rows @ state.weight.astype(np.float64)
        variance = np.einsum("ud,ud->u", rows @ state.covariance.astype(np.float64), rows).clip(0)
        away = float(ndtri(0.5 + share / 2)) * np.sqrt(variance)
        chance = probabilities(torch.from_numpy(mean), torch.from_numpy(variance)).numpy()
        numbers = {"probability": chance, "low": expit(mean - away), "high": expit(mean + away)}
        return pl.DataFrame([frame["user_id"], *(pl.Series(name, one) for name, one in numbers.items())])

    def save(self, folder: str | Path) -> None:
        """Write the task to a folder, whole or not at all.

        Raises:
            ModelFileError: if the folder holds something else.
        """

        def put(fresh: Path) -> dict[str, Any]:
            arrays = {**self.features.arrays(), **self._tensors()}
            save_file(
                plain({name: torch.from_numpy(one) for name, one in arrays.items()}), fresh / "weights.safetensors"
            )
            told = {name: dict(one) for name, one in self.told.items()}
            return {"features": self.features.told(), "starts": list(self.starts), "told": told}

        write_sealed(path(folder, "folder"), KIND, FORMAT, put)

    @classmethod
    def load(cls, folder: str | Path) -> "BehaviourTask":
        """Read a task.

        Raises:
            ModelFileError: naming what is missing, damaged or newer.
        """

        def made(sealed: Sealed) -> "BehaviourTask":
            config, found = sealed.config, sealed.tensors("weights.safetensors")
            arrays = {name: one.numpy() for name, one in found.items()}
            starts = {
                name: Start(found[f"start {at}.mean"], found[f"start {at}.variance"])
                for at, name in enumerate(config["starts"])
            }
            task = cls(Features.from_parts(config["features"], arrays), starts, config["told"])
            if any(len(one.mean) != task._dim for one in starts.values()):
                raise ValueError("starts and features are of different widths")
            return task

        task: BehaviourTask = read_sealed(path(folder, "folder"), KIND, FORMAT).built(made)
        return task

    @property
    def _dim(self) -> int:
        return len(self.features.blocks)

    def _tensors(self) -> dict[str, np.ndarray]:
        return {
            f"start {at}.{part}": getattr(start, part).numpy()
            for at, start in enumerate(self.starts.values())
            for part in ("mean", "variance")
        }

    def _start(self, like: str | None) -> Start:
        if like is not None and like not in self.behaviours:
            raise InvalidDataError(
                f"like={like!r} is no past behaviour of three tasks or more; those are {few(self.behaviours, 20) or 'none'}. "
                "Pass None for one that is like none of them."
            )
        return self.starts[ANY if like is None else like]

    def _states(
        self,
        likes: Sequence[str | None],
        rows: np.ndarray,
        labels: np.ndarray,
        task: np.ndarray,
        rate: float | None,
        place: np.ndarray | None = None,
    ) -> list[BehaviourState]:
        """States of tasks: one path for one and many."""
        if rate is not None and not 0 < rate < 1:
            raise InvalidDataError(f"rate={rate} must lie between 0 and 1: the share of users who do it.")
        place = np.arange(len(rows)) if place is None else place
        order = np.argsort(task, kind="stable")
        sizes = np.bincount(task, minlength=len(likes))
        did = np.bincount(task, labels, len(likes))
        found: list[BehaviourState | None] = [None] * len(likes)
        for like in dict.fromkeys(likes):
            start = self._start(like)
            if rate is not None and like is None:  # how many do it is all that is known before
                start = Start(torch.cat([start.mean[:-1], torch.tensor([logit(rate)])]), start.variance)
            mine = np.array([at for at, one in enumerate(likes) if one == like])
            mine = mine[np.argsort(sizes[mine], kind="stable")]  # such as are as long together
            step = max(1, AT_ONCE // (self._dim * max(1, int(sizes[mine].max()), self._dim)))
            for at in range(0, len(mine), step):
                some = mine[at : at + step]
                width = max(1, int(sizes[some].max()))
                mask = np.arange(width) < sizes[some, None]
                users, answers = np.zeros((len(some), width, self._dim)), np.zeros(mask.shape)
                own = np.concatenate(
                    [order[end - size : end] for size, end in zip(sizes[some], sizes.cumsum()[some], strict=True)]
                )
                users[mask], answers[mask] = rows[place[own]], labels[own]
                offset = np.zeros(mask.shape)
                if rate is not None:
                    # half an answer of each kind more: all of one kind must not count for certain
                    balance = np.log((did[some] + 0.5) / (sizes[some] - did[some] + 0.5)) - logit(rate)
                    offset += np.where(sizes[some] > 0, balance, 0.0)[:, None]
                with torch.inference_mode():
                    mean, covariance = adapt(start, *(torch.from_numpy(one) for one in (users, answers, mask)),
                                             offset=torch.from_numpy(offset))  # fmt: skip
                for one, weight, spread in zip(
                    some.tolist(), mean.float().numpy(), covariance.float().numpy(), strict=True
                ):
                    yes = int(did[one])
                    found[one] = BehaviourState(weight, spread, like, yes, int(sizes[one]) - yes, self.fingerprint)
        return [one for one in found if one is not None]


def _rows_of(frame: pl.DataFrame, told: pl.DataFrame) -> np.ndarray:
    """Where labelled users stand in a frame of users.

    Raises:
        InvalidDataError: naming those who are not there.
    """
    place = {user: at for at, user in enumerate(frame["user_id"].to_list())}
    rows = [place.get(user, -1) for user in told["user_id"].to_list()]
    if missing := [user for user, row in zip(told["user_id"].to_list(), rows, strict=True) if row < 0]:
        raise InvalidDataError(
            f"{len(missing):,} of {len(rows):,} labelled users are not among the {len(frame):,} users: "
            f"{few(list(dict.fromkeys(missing)))}. Pass their features too, or leave them out."
        )
    return np.array(rows, np.int64)


def _joined(past: pl.DataFrame, users: FrameLike, own: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Past answers with what is always true of users.

    Raises:
        InvalidDataError: if users of the past are missing, or a feature stands in both frames.
    """
    frame = read_users(users)
    more = [name for name in frame.columns if name not in NOT_FEATURES]
    if both := sorted(set(own) & set(more)):
        raise InvalidDataError(f"Both frames have the features {few(both)}. Take them from one.")
    return past.hstack(frame[_rows_of(frame, past)].select(more)), more
