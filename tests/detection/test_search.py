import pytest

from reslab.detection.recipe import InferenceConfig


def test_defaults_are_the_papers() -> None:
    """App. A: 600 pixels, 300 proposals; Faster R-CNN: the longer side 1000, NMS 0.3 of regions."""
    it = InferenceConfig()
    assert (it.shorter, it.longest, it.before, it.proposals) == (600, 1000, 6000, 300)
    assert (it.threshold, it.overlap, it.most, it.smallest) == (0.05, 0.3, 100, 16)
    assert (it.refine, it.scales) == (False, ())


def test_changes_make_another_value() -> None:
    it = InferenceConfig()
    changed = it.with_changes({"refine": True, "scales": [200, 400, 600, 800, 1000]})
    assert changed.scales == (200, 400, 600, 800, 1000)
    assert (it.refine, changed.refine, changed.shorter) == (False, True, 600)
    assert it.with_changes({}) == it
    assert InferenceConfig.model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"scales": [600]}, r"scales \[600\]: two or more that rise"),
        ({"scales": [400, 400]}, "that rise"),
        ({"scales": [600, 400]}, "that rise"),
        ({"scales": [0, 400]}, "scales cannot be 0"),
        ({"threshold": 1.5}, "threshold cannot be 1.5"),
        ({"threshold": float("nan")}, "threshold cannot be nan"),
        ({"proposals": 0}, "proposals cannot be 0"),
        ({"sharpness": 1}, "sharpness cannot be 1: extra inputs"),
    ],
)
def test_what_cannot_be_is_a_line(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        InferenceConfig().with_changes(changes)
    assert "\n" not in str(caught.value)
