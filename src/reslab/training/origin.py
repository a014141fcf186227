"""What a run starts from beside its recipe: trained weights, or what was found when it began."""

from dataclasses import dataclass
from pathlib import Path

from reslab.data.augment import Components
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing, taken_from
from reslab.runtime.files import TensorFile, sha256_of
from reslab.training.recipe import Recipe

FILE = "preprocessing.safetensors"  # in a run folder
LAYOUT = ("zeros", "stride_on", "pool")  # of a network, which its trained weights decide


@dataclass(frozen=True)
class InitialState:
    """What is not made from the recipe and its data, because it was given or found before."""

    weights: Model | None = None  # training starts from them
    preprocessing: Preprocessing | None = None
    components: Components | None = None  # of the colours
    names: tuple[str, ...] = ()  # of the classes, where folders are called by ids
    begun: bool = False  # a checkpoint holds the network's state


def initial_state_bytes(origin: InitialState) -> bytes:
    """What was measured when the run began, so that a resumed one need not measure again."""
    assert origin.preprocessing is not None
    tensors = origin.preprocessing.tensors()
    if origin.components is not None:
        values, vectors = origin.components
        tensors |= {"colour.values": values, "colour.vectors": vectors}
    facts = {"preprocessing": origin.preprocessing.facts(), "names": origin.names}
    return TensorFile(tensors, facts).to_bytes()


def read_initial_state(folder: Path, *, begun: bool) -> InitialState:
    """What `origin_bytes` wrote into a run folder; nothing if it is not there."""
    file = folder / FILE
    if not file.exists():
        return InitialState(begun=begun)
    try:
        content = TensorFile.read(file)
        tensors, names = content.tensors, tuple(content.facts["names"])
        values, vectors = tensors.pop("colour.values", None), tensors.pop("colour.vectors", None)
        preprocessing = taken_from(tensors, content.facts["preprocessing"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}); delete it to measure again") from None
    components = None if values is None or vectors is None else Components(values, vectors)
    return InitialState(None, preprocessing, components, names, begun)


def fit_to_weights(recipe: Recipe, weights: Model, *, keep_statistics: bool = False) -> Recipe:
    """`recipe` for training that starts from `weights`: their layout, their digest.

    Statistics of batch norm that were folded away can only be kept. ValueError if these are
    weights of another network.
    """
    config = fitted(recipe.model, weights.net.config, recipe.name)
    keep = keep_statistics or weights.folded
    changes = {
        "model": config,
        "weights": sha256_of(weights.net.state_dict()),
        "batch_norm": "frozen" if keep else recipe.batch_norm,
    }
    return Recipe.from_json(recipe.model_copy(update=changes).model_dump_json())


def fitted(config: ResNetConfig, theirs: ResNetConfig, name: str) -> ResNetConfig:
    """The network of the recipe `name` in the layout of the weights of `theirs`, its classes its
    own; ValueError if that is another network."""
    config = config.model_copy(update={key: getattr(theirs, key) for key in LAYOUT})
    if config != theirs.model_copy(update={"classes": config.classes}):
        raise ValueError(
            f"the weights are of a net with {shape_of(theirs)}, {name} trains one with "
            f"{shape_of(config)}"
        )
    return config


def must_match_weights(recipe: Recipe, weights: Model | None) -> None:
    """ValueError if `weights` are not those that `recipe` starts from."""
    found = sha256_of(weights.net.state_dict()) if weights else None
    if weights is None or recipe.weights is None:
        if found != recipe.weights:
            raise ValueError(
                "this recipe starts from trained weights; name them with --weights"
                if recipe.weights
                else f"{recipe.name} was made without weights; give them where it is made"
            )
        return
    if found != recipe.weights:
        raise ValueError(
            f"the weights have the SHA-256 {found}, the recipe starts from {recipe.weights}"
        )
    if weights.folded and recipe.batch_norm != "frozen":
        raise ValueError(
            f"batch_norm={recipe.batch_norm}: in these weights batch norm was folded into the "
            "convolutions, so its statistics can only be kept: batch_norm=frozen"
        )


def shape_of(config: ResNetConfig) -> str:
    """A network in a few words."""
    option = "no shortcuts" if config.shortcut is None else f"option {config.shortcut}"
    return f"{config.depth} layers, {option}, {config.stem} stem"
