"""Graphs in a runtime: ONNX Runtime and OpenVINO, as functions of arrays."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch

from reslab.deploy.packages import must_have

if TYPE_CHECKING:
    from openvino import InferRequest, Model

FATAL_ONLY = 4  # ONNX Runtime's logging level: it raises an exception for every error anyway
INFO = "model_info"  # the section of an .xml file that has the metadata
SHAPES_KEPT = 4  # shapes for which OpenVINO keeps a compiled graph


class Runtime(Protocol):
    """A graph with one input and one output, ready to run on the CPU."""

    @property
    def title(self) -> str:
        """The name and version of the runtime and, if it is not fp32, the precision."""
        ...

    def __call__(self, images: np.ndarray) -> np.ndarray: ...

    def in_bf16(self) -> Runtime:
        """Return the same graph in bf16; raise ValueError if that is not possible."""
        ...


class OnnxRuntime:
    """A graph in ONNX Runtime, given as a file or as its content.

    Raise ValueError if it is not an ONNX graph, or if onnxruntime is missing.
    """

    def __init__(self, source: Path | bytes) -> None:
        must_have("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY
        self.name, self.title = named(source), f"onnxruntime {onnxruntime.__version__}"
        try:
            self.session = onnxruntime.InferenceSession(
                str(source) if isinstance(source, Path) else source,
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # its exceptions have no common base of their own
            raise unreadable(self.name, error) from None
        self.input = self.session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        try:
            output = self.session.run(None, {self.input: images})[0]
        except Exception as error:
            raise unusable(self.name, images, error) from None
        assert isinstance(output, np.ndarray)
        return output

    def in_bf16(self) -> Runtime:
        raise ValueError(
            "ONNX Runtime computes in fp32 on a CPU: bf16 needs the backend torch or openvino"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the file."""
        return dict(self.session.get_modelmeta().custom_metadata_map)


class OpenVino:
    """A graph in OpenVINO, given as an .xml file or as the content of an ONNX file.

    It is compiled for each shape of its input when that shape first occurs: this takes a fraction
    of a second, and a graph compiled for one shape is up to twice as fast as one for all. Raise
    ValueError if the graph cannot be read, or if openvino is missing.
    """

    def __init__(self, source: Path | bytes, *, bf16: bool = False) -> None:
        must_have("openvino")
        import openvino

        self.source, self.bf16 = source, bf16
        version = openvino.get_version().partition("-")[0]
        self.title = f"openvino {version}{' in bf16' if bf16 else ''}"
        self.core = openvino.Core()
        self.model = self._read()
        self.requests: OrderedDict[tuple[int, ...], InferRequest] = OrderedDict()

    def _read(self) -> Model:
        try:
            return self.core.read_model(self.source)
        except Exception as error:  # RuntimeError, with the stack of OpenVINO's own source
            raise unreadable(named(self.source), error) from None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        try:
            request = self.requests.pop(images.shape, None) or self._compile(images.shape)
            output = request.infer([images], share_inputs=True)[0]
        except Exception as error:
            raise unusable(named(self.source), images, error) from None
        self.requests[images.shape] = request  # the newest is last
        if len(self.requests) > SHAPES_KEPT:
            self.requests.popitem(last=False)
        return output

    def _compile(self, shape: tuple[int, ...]) -> InferRequest:
        model = self._read()
        model.reshape(list(shape))
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # other threads decode images on the same cores
            # by default OpenVINO computes in bf16 wherever the processor can
            "INFERENCE_PRECISION_HINT": "bf16" if self.bf16 else "f32",
        }
        return self.core.compile_model(model, "CPU", settings).create_infer_request()

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the file; empty if it has none."""
        if not self.model.has_rt_info([INFO]):
            return {}
        return {key: str(value) for key, value in self.model.get_rt_info([INFO]).value.items()}

    def in_bf16(self) -> Runtime:
        if "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ValueError(
                "this processor has no bf16 arithmetic, so OpenVINO would compute in fp32: leave "
                "`precision` at fp32, or use the backend torch"
            )
        return OpenVino(self.source, bf16=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def unreadable(name: str, error: Exception) -> ValueError:
    """Return the error for a graph that a runtime cannot read."""
    return ValueError(f"{name} is damaged or not an exported model ({last_line(error)})")


def unusable(name: str, images: np.ndarray, error: Exception) -> ValueError:
    """Return the error for a graph that a runtime can read, but not compute for `images`."""
    shape = " x ".join(map(str, images.shape))
    return ValueError(
        f"{name} does not run on {images.dtype} images of shape {shape}: {last_line(error)}"
    )


def named(source: Path | bytes) -> str:
    """Return what to call a source in messages."""
    return str(source) if isinstance(source, Path) else "the graph"


def last_line(error: Exception) -> str:
    """Return the last line of an error's message; a runtime's stack is in the lines before."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
