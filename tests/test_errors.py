from reslab.errors import unknown_name


def test_a_near_name_is_offered() -> None:
    assert (
        unknown_name("verb", "trian", ["train", "resume"])
        == "no verb 'trian'; did you mean 'train'?"
    )


def test_far_from_all_names_all_are_listed() -> None:
    assert (
        unknown_name("set", "zzz", ["digits", "cifar10"])
        == "no set 'zzz'; available: cifar10, digits"
    )
