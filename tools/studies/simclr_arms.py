"""The arms of study 2: the study's five, and what tells apart why they gain."""

from dataclasses import dataclass

from studies.simclr_table import FRACTIONS, ON_ALL, percent


@dataclass(frozen=True)
class Link:
    """One pretext run: "simclr", "rotation" or "rotationjitter" on a tissue."""

    task: str
    tissue: str = "breast"


@dataclass(frozen=True)
class Arm:
    """One line of the table. `everything`: pretext tasks on breast see all of the training part, not the fraction's."""

    method: str
    chain: tuple[Link, ...]
    fraction: float
    everything: bool = False

    @property
    def name(self) -> str:
        """`SimCLR, 5 %, pretext on all tiles`."""
        return f"{self.method}, {percent(self.fraction)}{ON_ALL if self.everything else ''}"

    @property
    def tissues(self) -> tuple[str, ...]:
        """What the arm needs the tiles of, breast first."""
        return ("breast", *sorted({link.tissue for link in self.chain} - {"breast"}))


_SIMCLR = Link("simclr")
#: The study's four, then what the chain's first link does alone.
_METHODS = {
    "RotNet": (Link("rotation"),),
    "RotNet + jitter": (Link("rotationjitter"),),
    "SimCLR": (_SIMCLR,),
    "SimCLR, kidney then breast": (Link("simclr", "kidney"), _SIMCLR),
}
_OTHERS = {
    "SimCLR on kidney alone": (Link("simclr", "kidney"),),
    "SimCLR on noise (control)": (Link("simclr", "noise"),),
    "SimCLR, noise then breast (control)": (Link("simclr", "noise"), _SIMCLR),
}
#: As many pretext steps as the chain from kidney.
_TWICE = "SimCLR, breast then breast (control)"
ARMS = (
    Arm("supervised", (), 1.0),
    *(Arm("supervised", (), fraction) for fraction in FRACTIONS),
    *(
        Arm(method, chain, fraction, everything)
        for everything in (False, True)
        for method, chain in _METHODS.items()
        for fraction in FRACTIONS
    ),
    *(
        Arm(method, chain, fraction, everything=len(chain) > 1)
        for method, chain in _OTHERS.items()
        for fraction in FRACTIONS
    ),
    *(Arm(_TWICE, (_SIMCLR, _SIMCLR), fraction, everything) for everything in (False, True) for fraction in FRACTIONS),
)
#: One arm of every kind.
SMOKE = tuple(
    arm
    for arm in ARMS
    if arm.fraction == FRACTIONS[-1] and (arm.method in ("supervised", "RotNet + jitter") or len(arm.chain) > 1)
)
