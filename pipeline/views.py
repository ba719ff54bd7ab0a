"""A view: which layer's hidden states are kept, and how the tokens of a row are pooled."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import ConfigError, did_you_mean

Pooling = Literal["last", "mean", "first", "tokens"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

Layer = int | float
"""A number of transformers' `hidden_states` (negative ones count from the end), or a share of the depth."""


def resolve_layer(layer: Layer, num_hidden_layers: int) -> int:
    """The non-negative layer number that `layer` means in a backbone of `num_hidden_layers` blocks.

    Args:
        layer: an int counts as transformers' `hidden_states` does (0 the embeddings, `num_hidden_layers` the last
            block after the final norm, -1 the same); a float in [0, 1] is a share of the depth, rounded to a layer.
        num_hidden_layers: the number of blocks.

    Raises:
        ConfigError: the backbone has no such layer.
    """
    if isinstance(layer, float):
        if 0.0 <= layer <= 1.0:
            return round(layer * num_hidden_layers)
    elif -num_hidden_layers - 1 <= layer <= num_hidden_layers:
        return layer % (num_hidden_layers + 1)
    raise ConfigError(
        "the backbone has no such layer",
        where="layer",
        expected=f"0 (embeddings) to {num_hidden_layers} (last), -1 to {-num_hidden_layers - 1} from the end, "
        "or a share of the depth between 0.0 and 1.0",
        found=layer,
    )


def parse_layer(text: str) -> Layer:
    """Read a layer as a person writes it: `20`, `-1`, `0.6`.

    Raises:
        ConfigError: the text is neither a whole number nor a share of the depth.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            "a layer is not a number", where="layer", expected="a number such as 20, -1 or 0.6", found=text
        ) from None


def check_pooling(name: str) -> Pooling:
    """The pooling called `name`.

    Raises:
        ConfigError: there is no such pooling.
    """
    for pooling in POOLINGS:
        if pooling == name:
            return pooling
    remedy = did_you_mean(name, POOLINGS)
    raise ConfigError("no such pooling", where="pooling", expected=" | ".join(POOLINGS), found=name, remedy=remedy)


@dataclass(frozen=True, order=True)
class View:
    """What is kept of the hidden states.

    Args:
        layer: as in `resolve_layer`.
        pooling: `last` the last token of the whole prompted text; `mean` the mean over the sentence's own tokens;
            `first` the first of them; `tokens` every position of the sentence and what follows it.
    """

    layer: Layer
    pooling: Pooling

    def __str__(self) -> str:
        return f"L{self.layer}-{self.pooling}"

    def resolved(self, num_hidden_layers: int) -> "View":
        """The same view with a non-negative layer number."""
        return View(resolve_layer(self.layer, num_hidden_layers), self.pooling)

    @classmethod
    def parse(cls, text: str) -> "View":
        """Read `L20-mean`, `L-1-last` or `L0.6-mean`.

        Raises:
            ConfigError: the text is no view.
        """
        match = re.fullmatch(r"L(-?[0-9.]+)-([a-z]+)", text)
        if match is None:
            raise ConfigError(
                "this is no view", where="view", expected="layer and pooling, such as L20-mean or L-1-last", found=text
            )
        return cls(parse_layer(match[1]), check_pooling(match[2]))


def parse_views(text: str) -> tuple[View, ...]:
    """Read `L20-mean`, or several views side by side: `L16-mean+L20-mean`."""
    return tuple(View.parse(part) for part in text.split("+"))


def name_views(views: tuple[View, ...]) -> str:
    """The opposite of `parse_views`."""
    return "+".join(map(str, views))
