"""List the trained networks that have names: those of the package, and published weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from reslab.errors import unknown_name
from reslab.pretrained.locate import Known, known_networks, must_publish, present_at
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


def weights(name: str | None = None) -> list[NamedWeights]:
    """Return the networks that have names, or those called `name`, each from every source.

    A name with a source, such as "resnet50:timm", is that entry alone.

    Their names can be used for any model: `load("resnet50")`, `predict("resnet50:timm", image)`,
    `train(..., weights="resnet18")`. What is not on this machine is then downloaded. Raise
    ValueError, with the nearest name, if there is no network called `name`.
    """
    networks = known_networks()
    wanted, _, source = (name or "").partition(":")
    if name is not None:
        if wanted not in networks:
            raise ValueError(unknown_name("weights", wanted, networks))
        must_publish(wanted, networks[wanted], source)
    return [
        describe(known, network, is_default=place == 0)
        for known, sources in networks.items()
        for place, (publisher, network) in enumerate(sources.items())
        if wanted in ("", known) and source in ("", publisher)
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
