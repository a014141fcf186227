"""List the trained networks that have names: those of the package, and published weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from reslab.pretrained.locate import Known, known_networks, present_at
from reslab.pretrained.packaged import SOURCE, Packaged


@dataclass(frozen=True)
class NamedWeights:
    """A trained network that has a name, and what its authors say of it."""

    name: str  # as a model, or as `weights` of a run; "name:source" if there are several
    source: str
    default: bool  # whether the name alone means this source
    top1_error: float  # published, in percent
    test_set: str
    megabytes: float
    licence: str
    address: str | None  # from which it is downloaded; None if it must be put in place by hand
    path: Path | None  # of the file or folder on this machine; None if it is not here

    @property
    def full_name(self) -> str:
        return f"{self.name}:{self.source}"

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the fields for JSON."""
        return {**asdict(self), "path": str(self.path) if self.path else None}


def weights() -> list[NamedWeights]:
    """Return the networks that have names, whether they are on this machine or not.

    Their names can be used for any model: `load("resnet50")`, `predict("resnet50:timm", image)`,
    `train(..., weights="resnet18")`.
    """
    return [
        describe(name, network, is_default=place == 0)
        for name, sources in known_networks().items()
        for place, network in enumerate(sources.values())
    ]


def describe(name: str, network: Known, is_default: bool) -> NamedWeights:
    if isinstance(network, Packaged):
        report = network.report()
        return NamedWeights(
            name=name,
            source=SOURCE,
            default=is_default,
            top1_error=report["top1_error"],
            test_set=f"{name.partition('-')[0]} {report['set']}",
            megabytes=network.megabytes,
            licence="as reslab",
            address=None,
            path=network.folder,
        )
    return NamedWeights(
        name=name,
        source=network.source,
        default=is_default,
        top1_error=network.top1_error,
        test_set=network.test_set,
        megabytes=network.megabytes,
        licence=network.licence,
        address=network.address,
        path=present_at(network),
    )
