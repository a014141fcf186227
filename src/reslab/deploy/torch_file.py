"""Exports to torch.export."""

from reslab.deploy.export import Draft
from reslab.deploy.onnx_file import EXACT, RESIZED
from reslab.deploy.prepare import must_be_exact
from reslab.deploy.torch_program import export_program, program_bytes, with_metadata
from reslab.models.model_file import Model

SUFFIX = ".pt2"


def torch_draft(model: Model, *, exact: bool) -> Draft:
    """Return the export of a model as a program of torch, with all its preprocessing inside.

    If `exact`, images are resized exactly as by Pillow. Raise ValueError if torch cannot trace a
    network of the user's own.
    """
    exact = exact or must_be_exact(model)
    content = program_bytes(export_program(model, exact=exact), {})
    return Draft(
        contents=lambda metadata: {SUFFIX: with_metadata(content, metadata)},
        takes="images",
        limits=EXACT if exact else RESIZED,
    )
