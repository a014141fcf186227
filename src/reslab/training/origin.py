"""What a run starts from besides its recipe: trained weights, or what was measured at first."""

from dataclasses import dataclass

from torch import nn

from reslab.data.augment import Components
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing, pop_preprocessing
from reslab.runtime.files import TensorFile, sha256_of
from reslab.training.checkpoint import checkpoints_in
from reslab.training.folder import RunFolder
from reslab.training.recipe import Recipe, RunRecipe, TaskRecipe

FILE = "preprocessing.safetensors"  # in a run folder


@dataclass(frozen=True)
class InitialState:
    """What a run does not derive from its recipe and its data."""

    weights: Model | None = None  # training starts from them
    preprocessing: Preprocessing | None = None  # measured when the run began
    components: Components | None = None  # principal components of the colours, measured too
    names: tuple[str, ...] = ()  # of the classes, where folders are called by ids
    begun: bool = False  # a checkpoint holds the network's state


def initial_state_bytes(origin: InitialState) -> bytes:
    """Encode what was measured when the run began, so that resuming need not measure again."""
    assert origin.preprocessing is not None
    tensors = origin.preprocessing.tensors()
    if origin.components is not None:
        values, vectors = origin.components
        tensors |= {"colour.values": values, "colour.vectors": vectors}
    facts = {"preprocessing": origin.preprocessing.facts(), "names": origin.names}
    return TensorFile(tensors, facts).to_bytes()


def read_initial_state(folder: RunFolder | None) -> InitialState:
    """Read the file of `initial_state_bytes` in a run folder; without it nothing was measured.

    Without a folder the run is new.
    """
    if folder is None:
        return InitialState()
    begun, file = bool(checkpoints_in(folder.checkpoints)), folder.path / FILE
    if not file.exists():
        return InitialState(begun=begun)
    try:
        content = TensorFile.read(file)
        tensors, names = content.tensors, tuple(content.facts["names"])
        values, vectors = tensors.pop("colour.values", None), tensors.pop("colour.vectors", None)
        preprocessing = pop_preprocessing(tensors, content.facts["preprocessing"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}); delete it to measure again") from None
    components = None if values is None or vectors is None else Components(values, vectors)
    return InitialState(None, preprocessing, components, names, begun)


def fit_to_weights(recipe: Recipe, weights: Model, *, keep_statistics: bool = False) -> Recipe:
    """Return `recipe` for training that starts from `weights`: with their layout and digest.

    Batch norm that is folded into the convolutions stays frozen. ValueError if these are weights of
    another network.
    """
    keep = keep_statistics or weights.folded
    return fit_recipe(
        recipe,
        weights.net,
        model=fit_config(recipe.model, weights.net.config, recipe.name),
        batch_norm="frozen" if keep else recipe.batch_norm,
    )


def fit_recipe(recipe: TaskRecipe, net: nn.Module, **changes: object) -> TaskRecipe:
    """Return `recipe` with `changes`, for training that starts from the weights of `net`."""
    changes["weights"] = sha256_of(net.state_dict())
    return recipe.from_json(recipe.model_copy(update=changes).model_dump_json())


def fit_config(config: ResNetConfig, trained: ResNetConfig, name: str) -> ResNetConfig:
    """Return the network of the recipe `name` in the layout of a trained one.

    It keeps its number of classes. ValueError if the trained one is another network.
    """
    layout = {"zeros": trained.zeros, "stride_on": trained.stride_on, "pool": trained.pool}
    config = config.model_copy(update=layout)
    if config != trained.model_copy(update={"classes": config.classes}):
        raise ValueError(
            f"the weights are of a net with {shape_of(trained)}, {name} trains one with "
            f"{shape_of(config)}"
        )
    return config


def must_match_weights(recipe: Recipe, weights: Model | None) -> None:
    """ValueError unless `weights` are those that `recipe` starts from."""
    if weights is None:
        if recipe.weights is not None:
            raise ValueError("this recipe starts from trained weights; name them with --weights")
        return
    if recipe.weights is None:
        raise ValueError(f"{recipe.name} was made without weights; give them where it is made")
    must_have_digest(recipe, weights.net)
    if weights.folded and recipe.batch_norm != "frozen":
        raise folded_error("batch_norm", recipe.batch_norm)


def must_have_digest(recipe: RunRecipe, net: nn.Module) -> None:
    """ValueError unless the weights of `net` are those that `recipe` was made for."""
    digest = sha256_of(net.state_dict())
    if digest != recipe.weights:
        raise ValueError(
            f"the weights have the SHA-256 {digest}, the recipe starts from {recipe.weights}"
        )


def folded_error(key: str, value: str) -> ValueError:
    """Return the error of a recipe that would change batch norm which is folded away."""
    return ValueError(
        f"{key}={value}: in these weights batch norm was folded into the convolutions, so its "
        f"statistics can only be kept: {key}=frozen"
    )


def shape_of(config: ResNetConfig) -> str:
    """Describe a net in a few words."""
    option = "no shortcuts" if config.shortcut is None else f"option {config.shortcut}"
    return f"{config.depth} layers, {option}, {config.stem} stem"
