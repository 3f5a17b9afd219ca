"""The item space of a model whose log has grown, or lost somebody: made anew, with the head as it was learned."""

from dataclasses import replace

import torch

from mecold.data.archive import Archive
from mecold.data.interactions import Interactions
from mecold.errors import InvalidDataError, few
from mecold.meta.config import MetaConfig
from mecold.model import Model, axes_of
from mecold.space.making import Sides
from mecold.space.shelf import Shelf
from mecold.space.view import Survey


def survey_of(model: Model, shelf: Shelf, archive: Archive, config: MetaConfig) -> Survey:
    """What a space is made of, from what an archive has in its log.

    Args:
        model: its head says which channels there are.
        shelf: rows of its catalogue are those of the log; a host's factors are taken from it.
        archive: the log.
        config: settings of the fit.
    """
    log = archive.in_rows_of(shelf.catalog)
    settings = config.factors
    if not any(traits.reads == "time" for traits in model.head.traits.values()):
        settings = replace(settings, trend_bins=0)  # the head has not learned to read them
    draws = torch.Generator()
    draws.set_state(torch.from_numpy(archive.start))
    return Survey(liked(log), len(shelf.space), settings, draws, _host(shelf), model.attributes.sizes)


def liked(log: Interactions) -> Interactions:
    """What of an archive's log is counted."""
    assert log.labels is not None
    return log.where(log.labels > 0)


def updated(model: Model, shelf: Shelf, archive: Archive, survey: Survey) -> Shelf:
    """A shelf on which what waits in an archive is counted.

    Args:
        model: its scales.
        shelf: made of the archive's log.
        archive: the log, and what waits.
        survey: of its log.
    """
    before, after = map(liked, archive.change(shelf.catalog))
    return replace(shelf, space=survey.updated(shelf.space, before, after, model.basis))


def renewed(model: Model, shelf: Shelf, archive: Archive, config: MetaConfig) -> tuple[Model, Shelf]:
    """Model and shelf of an archive's log, as a fit makes them, with texts and head as they are.

    Args:
        model: whose head is kept.
        shelf: items without dead rows.
        archive: the log; nothing waits.
        config: settings of the fit.

    Raises:
        InvalidDataError: if the log has become too small for what the head has learned to read.
    """
    survey = survey_of(model, shelf, archive, config)
    if not len(survey.log.items):
        raise InvalidDataError("Nothing that anybody liked would be left in the model's log. Fit a model anew.")
    every = torch.arange(len(shelf.space), device=shelf.space.device)
    basis = model.basis.rescaled(torch.from_numpy(survey.total.counts))
    space = survey.view(survey.total, shelf.space.text_of(every), basis).space(basis)
    if missing := [name for name in model.head.traits if name not in space.channels]:
        raise InvalidDataError(
            f"The log has become too small: nothing can be made of {few(missing)}, which the model has learned to read. Fit a "
            "model anew."
        )
    return replace(model, basis=basis, axes=axes_of(space)), Shelf.rebuilt(
        shelf.catalog, space, shelf.kind, shelf.hidden
    )


def _host(shelf: Shelf) -> Sides | None:
    """A host's factors, of the items that have any of their own."""
    for channel in shelf.space.channels.values():
        if channel.traits.given:
            there = ~shelf.space.new[:, None]
            return Sides(None if channel.support is None else channel.support * there, channel.item * there)
    return None
