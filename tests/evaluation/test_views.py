import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reslab.evaluation.views import Crop, MultiScale, OneCrop, TenCrop, View, protocol_named

IMAGE = torch.arange(5 * 8).view(1, 5, 8).expand(3, 5, 8)  # rows of 8


def test_each_corner_by_hand() -> None:
    first: dict[Crop, int] = {
        "top-left": 0,
        "top-right": 5,
        "bottom-left": 16,
        "bottom-right": 21,
        "centre": 10,
    }
    for crop, value in first.items():
        view = View(5, crop, 3).of(IMAGE)
        assert view.shape == (3, 3, 3)
        assert view[0, 0].tolist() == [value, value + 1, value + 2]
        assert view[0, :, 0].tolist() == [value, value + 8, value + 16]


def test_a_mirrored_crop_is_the_mirror_of_the_crop() -> None:
    assert View(5, "top-right", 3, flip=True).of(IMAGE)[0, 0].tolist() == [7, 6, 5]
    assert View(5, "all", flip=True).of(IMAGE)[0, 0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


def test_ten_crop_has_five_crops_and_their_mirrors() -> None:
    views = TenCrop(256, 224).views()
    assert len(set(views)) == 10
    assert {view.crop for view in views} == {
        "centre", "top-left", "top-right", "bottom-left", "bottom-right",
    }  # fmt: skip
    assert {(view.side, view.size) for view in views} == {(256, 224)}
    assert sum(view.flip for view in views) == 5


def test_protocols_share_the_views_that_they_have_in_common() -> None:
    assert set(OneCrop(256, 224).views()) < set(TenCrop(256, 224).views())
    assert set(MultiScale((224, 480), flip=False).views()) < set(MultiScale().views())


def test_multi_scale_is_the_papers() -> None:
    assert [view.side for view in MultiScale().views() if view.flip] == [224, 256, 384, 480, 640]


crops = st.tuples(st.integers(1, 600), st.integers(0, 50)).map(lambda sizes: (sum(sizes), sizes[0]))
protocols = st.one_of(
    st.just(OneCrop()),
    crops.map(lambda sizes: OneCrop(*sizes)),
    crops.map(lambda sizes: TenCrop(*sizes)),
    st.builds(
        MultiScale, st.lists(st.integers(1, 700), min_size=1, unique=True).map(tuple), st.booleans()
    ),
)


@given(protocols)
def test_a_printed_protocol_can_be_parsed(protocol) -> None:
    assert protocol_named(str(protocol), None, None) == protocol
    assert protocol_named(str(protocol).replace(" ", ":"), None, None) == protocol


@given(protocols)
def test_every_view_has_its_own_name(protocol) -> None:
    names = {str(view) for view in protocol.views()}
    assert len(names) == len(protocol.views())
    assert not any("/" in name for name in names)


def test_names_take_the_networks_numbers() -> None:
    assert protocol_named("one-crop", 256, 224) == OneCrop(256, 224)
    assert protocol_named("one-crop", None, None) == OneCrop()
    assert protocol_named("ten-crop", 144, 128) == TenCrop(144, 128)
    assert protocol_named("ten-crop:300-224", 256, 224) == TenCrop(300, 224)
    assert protocol_named("multi-scale", 256, 224) == MultiScale()
    assert protocol_named("multi-scale:no-flip", 256, 224) == MultiScale(flip=False)
    assert protocol_named("multi-scale", 128, 112).views()[0].side == 112


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one-corp", "did you mean 'one-crop'"),
        ("dense", "multi-scale, one-crop, ten-crop"),
        ("ten-crop:256", "ten-crop:256-224"),
        ("ten-crop:a-b", "ten-crop:256-224"),
        ("one-crop:224-256", "a crop of 256 does not fit into a shorter side of 224"),
        ("multi-scale:224,x", "multi-scale:224,256,no-flip"),
        ("multi-scale:224,224", "must be distinct and positive"),
        ("multi-scale:128,256", "128 is below 224"),
    ],
)
def test_invalid_protocols_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        protocol_named(text, 256, 224)


@pytest.mark.parametrize("text", ["ten-crop", "multi-scale"])
def test_a_network_without_crop_size_has_no_default_crops(text: str) -> None:
    with pytest.raises(ValueError, match="takes whole images"):
        protocol_named(text, None, None)
