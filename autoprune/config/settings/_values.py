"""The types of single settings: numbers within bounds, texts, and lists of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, WrapValidator

from autoprune.support.userfunction import GivenObject

MOST = 1_000_000
"""The largest count, length or factor of a setting. Larger ones are slips, or runs that never end."""

MOST_SECONDS = 86_400
"""The longest time limit: a day."""

MOST_WORKERS = 1024
MOST_PASSES = 100
_MOST_AMOUNT = 10**18
_LONGEST_AMOUNT = 100
_LONGEST_TEXT = 4096
_LONGEST_COMMAND = 100_000

Flag = Annotated[bool, Field(strict=True)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Workers = Annotated[int, Field(strict=True, ge=1, le=MOST_WORKERS)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Ratio = Annotated[Real, Field(gt=0, le=1)]
Share = Annotated[Real, Field(ge=0, lt=1)]
PositiveFloat = Annotated[Real, Field(gt=0, le=MOST)]
NonNegativeFloat = Annotated[Real, Field(ge=0, le=MOST)]
Seconds = Annotated[Real, Field(gt=0, le=MOST_SECONDS)]


def _with_object(text: Any, check: Callable[[Any], str]) -> str:
    """Check a text. pydantic returns plain strings, so keep the object that a text may carry."""
    checked = check(text)
    return text if isinstance(text, GivenObject) else checked


Text = Annotated[
    str,
    Field(
        max_length=_LONGEST_TEXT,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*$",
        description=f"a string of at most {_LONGEST_TEXT:,} printable characters",
    ),
    WrapValidator(_with_object),  # last, since constraints after it would make plain strings
]
Command = Annotated[
    str,
    Field(
        max_length=_LONGEST_COMMAND,
        pattern=r"^[^\x00]*$",
        description=f"a string of at most {_LONGEST_COMMAND:,} characters",
    ),
]
Amount = (
    Annotated[
        Annotated[int, Field(strict=True, ge=0, le=_MOST_AMOUNT)]
        | Annotated[Real, Field(ge=0, le=_MOST_AMOUNT)]
        | Annotated[str, Field(max_length=_LONGEST_AMOUNT)],
        Field(description='a share such as "50%" or an amount such as "20M" or "4 ms"'),
    ]
    | None
)
Tolerance = (
    Annotated[
        PositiveFloat | Annotated[str, Field(max_length=_LONGEST_AMOUNT)],
        Field(description='points such as "0.5 points" or a number above 0'),
    ]
    | None
)
Names = tuple[Text, ...]
RateByScore = Annotated[
    tuple[tuple[Real, PositiveFloat], ...],
    Field(description="a list of [score, learning rate] with rising scores, such as [[0.8, 0.001]]"),
]
Strength = Annotated[
    NonNegativeFloat | Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)],
    Field(description="a number of 0 or more, or a list of them"),
]
Options = Annotated[dict[str, Real], Field(description="a section of numbers, such as options = { t = 1.4 }")]
Floor = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=MOST)] | Ratio,
    Field(description="channels, such as 2, or a share of the width, such as 0.1"),
]
