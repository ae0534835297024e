"""What a file says of one object on a slide, before anything is checked."""

from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True)
class FoundObject:
    """What a file says: an outline (None: it has no area), a class and, for messages, where that stands."""

    outline: BaseGeometry | None
    name: str | None
    where: str
    #: What is wrong with it.
    note: str = ""
    #: It neither counts nor punishes: several objects at once, or one that nobody can judge.
    ignored: bool = False
    #: In square pixels, where the file states one and has no outline but a box; None: that of the outline.
    area: float | None = None
