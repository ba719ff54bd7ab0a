"""A contender, as people write it: a backbone, its revision, the form of its weights, and the layer where it is cut."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from pipeline.config import Quantization, backbone_slug, raise_problems
from pipeline.errors import ConfigError
from pipeline.views import Layer, parse_layer

FORM = re.compile(
    r"(?P<backbone>.+?)(?:#(?P<revision>[^#:@]*))?(?::(?P<quantization>[^#:@/]*))?(?:@(?P<layer>[^#:@/]*))?", re.DOTALL
)
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)


@dataclass(frozen=True)
class Contender:
    """One way to make features.

    Args:
        backbone: a name of the catalogue, a Hub id, or a local folder.
        quantization: the form of its weights.
        layer: where it is cut: no block above is computed, and the features are this layer's output; -1 is the whole
            backbone, whose output is after its final norm.
        revision: the Hub commit, branch or tag.
    """

    backbone: str
    quantization: Quantization = "nf4"
    layer: Layer = -1
    revision: str | None = None

    @property
    def name(self) -> str:
        """The backbone for a table or a figure: of a folder its name alone."""
        is_folder = "/" in self.backbone and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", self.backbone)
        return backbone_slug(self.backbone) if is_folder else self.backbone

    @property
    def form(self) -> str:
        """What is not the backbone's name: such as `nf4@20`."""
        revision = f"#{self.revision}:" if self.revision else ""
        return f"{revision}{self.quantization}" + (f"@{self.layer}" if self.layer != -1 else "")

    @property
    def label(self) -> str:
        """The specification for a table or a figure."""
        return str(replace(self, backbone=self.name))

    def __str__(self) -> str:
        """The shortest specification of it, with its quantisation."""
        return f"{self.backbone}{'' if self.revision else ':'}{self.form}"


def parse_contenders(texts: Sequence[str]) -> tuple[Contender, ...]:
    """Read specifications such as `smollm2-135m:int8`, `org/name#revision:nf4@20` or `folder:none@0.67`.

    What follows the backbone may be left out: `#` the revision, `:` the quantisation (nf4), `@` the layer to cut at, a
    number as transformers counts or a share of the depth (the last).

    Raises:
        ConfigError: some are no specification, or two are the same; all that is wrong is said at once.
    """
    problems: list[str] = []
    found: dict[Contender, str] = {}
    for text in texts:
        try:
            contender = _parse(text)
        except ConfigError as error:
            problems.append(f"{text!r}: {error.what}, expected {error.expected}, found {error.found!r}")
            continue
        if contender in found:
            problems.append(f"{text!r}: the same as {found[contender]!r}")
        found.setdefault(contender, text)
    if not texts:
        problems.append("expected at least one contender, found none")
    raise_problems(problems)
    return tuple(found)


def _parse(text: str) -> Contender:
    match = FORM.fullmatch(text)
    if match is None or match["backbone"][0] in ":@#" or not match["backbone"].strip():
        raise ConfigError("no contender", expected="<backbone>[#<revision>][:<quantisation>][@<layer>]", found=text)
    quantization = match["quantization"] if match["quantization"] is not None else "nf4"
    if quantization not in QUANTIZATIONS:
        raise ConfigError("no such quantisation", expected=" | ".join(QUANTIZATIONS), found=quantization)
    if match["revision"] == "":
        raise ConfigError("no revision", expected="the Hub's commit, branch or tag behind #", found="")
    layer = -1 if match["layer"] is None else parse_layer(match["layer"])
    if isinstance(layer, float) and not 0 <= layer <= 1:
        raise ConfigError("no layer", expected="a whole number, or a share of the depth from 0.0 to 1.0", found=layer)
    return Contender(match["backbone"], cast(Quantization, quantization), layer, match["revision"])
