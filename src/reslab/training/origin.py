"""A run's initial state besides its recipe: trained weights, statistics measured on the data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reslab.data.statistics import Components
from reslab.models.config import ResNetConfig
from reslab.models.model_facts import preprocessing_in
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.runtime.files import TensorFile, sha256_of, warn_without_checksum
from reslab.training.checkpoint import checkpoints_in
from reslab.training.folder import RunFolder
from reslab.training.recipe import Recipe, RunRecipe, TaskRecipe

FILE = "preprocessing.safetensors"  # in a run folder


@dataclass(frozen=True)
class InitialState:
    """A run's initial weights and measured statistics, which its recipe does not contain."""

    weights: Model | None = None  # the weights to start from
    preprocessing: Preprocessing | None = None  # measured when the run began
    components: Components | None = None  # principal components of the colours, measured likewise
    names: tuple[str, ...] = ()  # class names, where folders are named by class ids
    begun: bool = False  # whether a checkpoint already holds the network's state


def initial_state_bytes(origin: InitialState) -> bytes:
    """Encode the measured preprocessing, so that a resumed run need not measure it again."""
    assert origin.preprocessing is not None
    tensors = origin.preprocessing.tensors()
    if origin.components is not None:
        values, vectors = origin.components
        tensors |= {"colour.values": values, "colour.vectors": vectors}
    facts = {"preprocessing": origin.preprocessing.facts(), "names": origin.names}
    return TensorFile(tensors, facts).to_bytes()


def read_initial_state(folder: RunFolder | None) -> InitialState:
    """Read the initial state stored in a run folder.

    Return an empty state if the file is missing, or if `folder` is None (a new run).
    """
    if folder is None:
        return InitialState()
    begun, file = bool(checkpoints_in(folder.checkpoints)), folder.path / FILE
    if not file.exists():
        return InitialState(begun=begun)
    try:
        content = TensorFile.read(file)
        tensors, names = content.tensors, content.facts["names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("its names are not a list of strings")
        values, vectors = tensors.pop("colour.values", None), tensors.pop("colour.vectors", None)
        preprocessing = preprocessing_in(tensors, content.facts["preprocessing"], file)
        if preprocessing.mean.dtype != torch.float32:
            raise ValueError(f"its mean is {preprocessing.mean.dtype}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}); delete it to measure again") from None
    if values is None or vectors is None:
        components = None
    elif is_colours(values, (3,)) and is_colours(vectors, (3, 3)):
        components = Components(values, vectors)
    else:
        shapes = " and ".join(f"{list(part.shape)} {part.dtype}" for part in (values, vectors))
        raise ValueError(
            f"{file} is damaged (its colours are {shapes}); delete it to measure again"
        )
    if not content.has_checksum:
        warn_without_checksum(file)
    return InitialState(None, preprocessing, components, tuple(names), begun)


def is_colours(part: Tensor, shape: tuple[int, ...]) -> bool:
    return part.shape == shape and part.dtype == torch.float32 and bool(part.isfinite().all())


def fit_to_weights(recipe: Recipe, weights: Model, *, keep_statistics: bool = False) -> Recipe:
    """Return `recipe` adapted to start from `weights`: with their layout and digest.

    Batch norm that is folded into the convolutions stays frozen. Raise ValueError if `weights`
    belong to another network.
    """
    keep = keep_statistics or weights.folded
    return fit_recipe(
        recipe,
        weights.net,
        model=fit_config(recipe.model, weights.config, recipe.name),
        batch_norm="frozen" if keep else recipe.batch_norm,
    )


def fit_recipe(recipe: TaskRecipe, net: nn.Module, **changes: object) -> TaskRecipe:
    """Return `recipe` with `changes` and the digest of the weights of `net`, to start from them."""
    changes["weights"] = sha256_of(net.state_dict())
    return recipe.from_json(recipe.model_copy(update=changes).model_dump_json())


def fit_config(config: ResNetConfig, trained: ResNetConfig, name: str) -> ResNetConfig:
    """Return the network `config` of the recipe `name` in the layout of the `trained` network.

    The number of classes and random layers, which have no weights, are kept. Raise ValueError if
    the networks differ in anything else.
    """
    layout = {"zeros": trained.zeros, "stride_on": trained.stride_on, "pool": trained.pool}
    config = config.model_copy(update=layout)
    same_classes = trained.model_copy(update={"classes": config.classes})
    if config.without_randomness() != same_classes.without_randomness():
        raise ValueError(
            f"the weights belong to a net with {shape_of(trained)}, but {name} trains one with "
            f"{shape_of(config)}"
        )
    return config


def must_match_weights(recipe: Recipe, weights: Model | None) -> None:
    """Raise ValueError unless `weights` are the ones `recipe` starts from, or both are None."""
    if weights is None:
        if recipe.weights is not None:
            raise ValueError("this recipe starts from trained weights; name them with `weights`")
        return
    if recipe.weights is None:
        raise ValueError(
            f"{recipe.name} was made without weights; pass them when the recipe is made"
        )
    must_have_digest(recipe, weights.net)
    if weights.folded and recipe.batch_norm != "frozen":
        raise folded_error("batch_norm", recipe.batch_norm)


def must_have_digest(recipe: RunRecipe, net: nn.Module) -> None:
    """Raise ValueError unless the weights of `net` have the digest recorded in `recipe`."""
    digest = sha256_of(net.state_dict())
    if digest != recipe.weights:
        raise ValueError(
            f"the weights have the SHA-256 {digest}, the recipe starts from {recipe.weights}"
        )


def folded_error(key: str, value: str) -> ValueError:
    """Return the ValueError for a recipe that would train batch norm that has been folded away."""
    return ValueError(
        f"{key}={value}: in these weights batch norm was folded into the convolutions, so its "
        f"statistics can only be kept: {key}=frozen"
    )


def shape_of(config: ResNetConfig) -> str:
    """Return a short description of a network."""
    option = config.option
    kind = {None: "no shortcuts", "mixed": "mixed shortcuts"}.get(option, f"option {option}")
    return ", ".join([f"{config.depth} layers", kind, *config.additions, f"{config.stem} stem"])
