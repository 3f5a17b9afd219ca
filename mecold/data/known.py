"""What a log and a frame say of users beside what they did, together."""

from dataclasses import replace

from mecold.data.attributes import Attributes, Encode, of_these, read_attributes
from mecold.data.frames import FrameLike
from mecold.data.interactions import Interactions


def known_in(log: Interactions, attributes: FrameLike | None, encode: Encode) -> tuple[Interactions, Attributes]:
    """The log with the groups of its users and of its moments, and what the groups are made from.

    Args:
        log: histories; its context is what is known of moments.
        attributes: frame or path of what is known of users; None where nothing is.
        encode: texts to vectors.
    """
    of_users = None if attributes is None else of_these(read_attributes(attributes, log.users.dtype), log.users)
    known = Attributes.of([frame for frame in (of_users, log.context) if frame is not None], encode)
    groups, moments = (None if frame is None else known.groups(frame, encode) for frame in (of_users, log.context))
    return replace(log, groups=groups, moments=moments), known
