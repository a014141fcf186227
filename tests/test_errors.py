from reslab.errors import unknown_name


def test_the_nearest_name_is_suggested() -> None:
    assert (
        unknown_name("verb", "trian", ["train", "resume"])
        == "no verb 'trian'; did you mean 'train'?"
    )


def test_all_names_are_listed_if_none_is_near() -> None:
    assert (
        unknown_name("set", "zzz", ["digits", "cifar10"])
        == "no set 'zzz'; available: cifar10, digits"
    )
