"""The head of few-shot classification: turn the names of classes and a few examples into one linear head per class.

Pure, batched tensor functions: no texts, no labels, no files. A class's name predicts its prototype (a ridge regression
that known classes taught). Examples pull the prototype to their mean; how far depends on their number and on their
agreement. Then a softmax head takes a few gradient steps from there. How much each of this is trusted are rules: linear in
the logarithm of the number of examples, and learned in episodes (`mecold/meta/classes.py`).

Source: prototypes as in Snell et al. 2017, arXiv:1703.05175; the head as ProtoMAML, Triantafillou et al. 2020,
arXiv:1903.03096; names as priors follow Xing et al. 2019, arXiv:1902.07104.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from mecold.heads.inner import descend_classes

MOST_SHOTS = 20
"""Rules are learned up to so many examples a class; with more, they say what they say here."""

RULES = {
    "trust": (0.5, -0.2),
    "trust_shots": (0.5, -0.2),
    "trust_agreement": (0.0, 0.0),
    "scale": (2.85, 2.65),
    "scale_shots": (0.0, 0.1),
    "norm": (0.0, 0.0),
    "offset": (1.3, 1.0),
    "handicap": (-1.0, -1.0),
    "rate": (-0.6, -0.6),
    "rate_shots": (0.0, 0.0),
    "pull": (-1.5, -1.2),
    "pull_shots": (-1.0, -1.0),
    "sharpen": (0.4, 0.2),
    "sharpen_shots": (0.0, 0.0),
}
"""Where learning starts: with a name, without one. All are logarithms, but for `norm` (a logit), `offset` and
`handicap`. Those with `_shots` are slopes in log(1 + examples)."""


@dataclass(frozen=True)
class ClassRules:
    """What episodes taught of all classes.

    Args:
        by_name: one column per entry of `RULES`; row 0 for classes with a name, row 1 for those without.
        echo: log of how much of a name's own vector is in the predicted prototype.
        ridge: log of the strength of the ridge regression from names to prototypes.
        floor: log of what is added to the spectrum of the scatter within classes (mean 1) where prototypes are compared.
        step_floor: the same where gradients are taken.
    """

    by_name: Float[Tensor, "2 rules"]
    echo: Float[Tensor, ""]
    ridge: Float[Tensor, ""]
    floor: Float[Tensor, ""]
    step_floor: Float[Tensor, ""]

    @classmethod
    def start(cls) -> "ClassRules":
        """Where learning starts."""
        table = torch.tensor(list(RULES.values())).T.contiguous()
        return cls(table, *(torch.tensor(value) for value in (-0.6, 0.0, 3.5, 0.0)))

    def tensors(self) -> dict[str, Tensor]:
        """The rules by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def of(self, named: Bool[Tensor, "tasks classes"]) -> Mapping[str, Float[Tensor, "tasks classes"]]:
        """Each rule for each class."""
        rows = torch.where(named[..., None], self.by_name[0], self.by_name[1])
        return dict(zip(RULES, rows.unbind(2), strict=True))


@dataclass(frozen=True)
class ClassSpace:
    """What the vectors of known classes are like.

    Args:
        center: mean of the classes' means.
        name_center: mean of the names' vectors.
        axes: of the scatter of items within their classes, in columns.
        spectrum: variance along each axis, in units of their mean.
        names: vectors of the known names, as `place_names` returns them.
        means: of the items of each known class, as `place` returns them.
    """

    center: Float[Tensor, " dim"]
    name_center: Float[Tensor, " dim"]
    axes: Float[Tensor, "dim dim"]
    spectrum: Float[Tensor, " dim"]
    names: Float[Tensor, "known dim"]
    means: Float[Tensor, "known dim"]

    @classmethod
    def of(
        cls, items: Float[Tensor, "items dim"], owner: Int64[Tensor, " items"], names: Float[Tensor, "known dim"]
    ) -> "ClassSpace":
        """From items of known classes.

        Args:
            items: text vectors.
            owner: class of each item; every class has one at least.
            names: vectors of the classes' names.
        """
        raw = class_means(items, owner, len(names))
        center, name_center = raw.mean(0), names.mean(0)
        rest = items - raw[owner]
        values, axes = torch.linalg.eigh(rest.T @ rest / len(items))
        values = values.clamp(min=0.0)
        spectrum = values / values.mean().clamp(min=1e-12)
        means = class_means(normalize(items - center, dim=1), owner, len(names))
        return cls(center, name_center, axes, spectrum, normalize(names - name_center, dim=1), means)

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def place(self, items: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """Vectors of texts as heads read them: about the centre of the known classes, of length 1."""
        return normalize(items - self.center, dim=1)

    def place_names(self, names: Float[Tensor, "names dim"]) -> Float[Tensor, "names dim"]:
        """Vectors of names, about the centre of the known names, of length 1."""
        return normalize(names - self.name_center, dim=1)

    def teacher(self, rules: ClassRules) -> Float[Tensor, "known dim"]:
        """Weights of the known names in the regression from a name to a prototype."""
        among = self.names @ self.names.T
        among = among + rules.ridge.exp() * torch.eye(len(among), dtype=among.dtype, device=among.device)
        found: Tensor = torch.linalg.solve(among, self.means - rules.echo.exp() * self.names)
        return found

    def foresee(
        self, names: Float[Tensor, "names dim"], rules: ClassRules, teacher: Float[Tensor, "known dim"]
    ) -> Float[Tensor, "names dim"]:
        """The prototypes that names promise.

        Args:
            names: as `place_names` returns them.
            rules: learned.
            teacher: of the same rules.
        """
        return rules.echo.exp() * names + (names @ self.names.T) @ teacher

    def metric(self, floor: Float[Tensor, ""]) -> Float[Tensor, "dim dim"]:
        """A shrunk inverse of the scatter within classes; directions in which a class varies count less."""
        gains = 1.0 / (self.spectrum + floor.exp())
        return (self.axes * (gains / gains.mean())) @ self.axes.T


def class_means(
    items: Float[Tensor, "items dim"], owner: Int64[Tensor, " items"], count: int
) -> Float[Tensor, "count dim"]:
    """Mean vector of each class."""
    sums = items.new_zeros(count, items.shape[1]).index_add_(0, owner, items)
    return sums / torch.bincount(owner, minlength=count).clamp(min=1)[:, None]


@dataclass(frozen=True)
class ClassHeads:
    """Adapted heads; the score of a class is `scale * (weight . item + bias)`.

    Args:
        weight: direction of each class, as the inner loop left it.
        bias: per class.
        scale: what makes scores logits of calibrated probabilities.
    """

    weight: Float[Tensor, "tasks classes dim"]
    bias: Float[Tensor, "tasks classes"]
    scale: Float[Tensor, "tasks classes"]

    def inner(self, items: Float[Tensor, "tasks items dim"]) -> Float[Tensor, "tasks items classes"]:
        """Scores in the units of the inner loop."""
        return items @ self.weight.transpose(1, 2) + self.bias[:, None]

    def scores(self, items: Float[Tensor, "tasks items dim"]) -> Float[Tensor, "tasks items classes"]:
        """Logits of each item for each class."""
        return self.scale[:, None] * self.inner(items)


def adapt_classes(
    rules: ClassRules,
    metrics: tuple[Float[Tensor, "dim dim"], Float[Tensor, "dim dim"]],
    prior: Float[Tensor, "tasks classes dim"],
    named: Bool[Tensor, "tasks classes"],
    items: Float[Tensor, "tasks shots dim"],
    member: Float[Tensor, "tasks shots classes"],
    *,
    steps: int,
    rivals: Float[Tensor, "tasks shots rivals"] | None = None,
    there: Bool[Tensor, "tasks classes"] | None = None,
    company: Float[Tensor, "tasks everyone"] | None = None,
    first_order: bool = False,
) -> ClassHeads:
    """Adapt the heads of a task's classes.

    Args:
        rules: learned.
        metrics: of prototypes and of steps.
        prior: the prototypes that names promise; ignored where there is no name.
        named: False for a class whose name is not read.
        items: the support, as `ClassSpace.place` returns it.
        member: 1 where a row is an example of a class; a row may be of several, and a row of none is padding.
        steps: inner steps; 0 stays at the prototypes.
        rivals: scores of classes that stand still, in the units of the inner loop (`ClassHeads.inner`).
        there: False for padded classes.
        company: examples of all classes that compete, where others than these do.
        first_order: treat inner gradients as constants in the outer loop.

    Returns:
        The heads. A class's prototype depends on its own examples alone; the steps look at all classes.
    """
    rule = rules.of(named)
    prior = torch.where(named[..., None], prior, 0.0)
    shots = member.sum(1)
    mean = member.transpose(1, 2) @ items / shots.clamp(min=1.0)[..., None]
    # mean cosine between two of a class's examples
    agreement = (shots * (mean * mean).sum(2) - 1.0) / (shots - 1.0).clamp(min=1.0)
    agreement = torch.where(shots > 1, agreement, 0.0)
    log_shots = shots.clamp(max=MOST_SHOTS).log1p()
    if company is None:
        real = torch.ones_like(log_shots) if there is None else there.to(log_shots.dtype)
        level = (log_shots * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1.0)
    else:
        level = company.clamp(max=MOST_SHOTS).log1p().mean(1, keepdim=True)
    # `level` makes the scale one of the task: a class with many examples among others is not louder
    trust = (rule["trust"] + rule["trust_shots"] * log_shots - 10.0 * rule["trust_agreement"] * agreement).exp()
    shape = (trust[..., None] * prior + shots[..., None] * mean) / (trust + shots)[..., None]
    length = (shape * shape).sum(2, keepdim=True).clamp(min=1e-12).sqrt()
    shape = shape * length ** -torch.sigmoid(rule["norm"])[..., None]
    scale = (rule["scale"] + rule["scale_shots"] * level).exp()
    start = scale[..., None] * (shape @ metrics[0])
    bias = rule["handicap"] * (log_shots - level) - 0.5 * rule["offset"] * (start * shape).sum(2)
    if there is not None:
        bias = torch.where(there, bias, -torch.inf)
    weight = descend_classes(
        start,
        items,
        member / member.sum(2, keepdim=True).clamp(min=1.0),
        lr=(rule["rate"] + rule["rate_shots"] * level).exp()[..., None],
        l2=(rule["pull"] + rule["pull_shots"] * level).exp()[..., None],
        steps=steps if items.shape[1] else 0,
        bias=bias,
        metric=metrics[1],
        rivals=rivals,
        first_order=first_order,
    )
    return ClassHeads(weight, bias, (rule["sharpen"] + rule["sharpen_shots"] * level).exp())
