"""The words by which people name the parts of a data set."""

import pytest

from reslab.data.part_names import part_of_name

TRAIN = (
    "train Training TRAIN training_set seg_train cats-train train2017 trainset trainval train_val"
)
TRAIN += " instances_train2014 voc_2007_trainval imagesTrain trainingData my.train.v2"
VALIDATION = "val valid Validation validation_set eval dev VAL2017 seg_val valset instances_val2017"
TEST = "test testing test_set Test2015 seg_test testset instances_test"
NEITHER = (
    "strain contest detrain value valley latest training_and_testing train_test cat images 2017"
)


@pytest.mark.parametrize(
    ("names", "part"),
    [(TRAIN, "train"), (VALIDATION, "validation"), (TEST, "test"), (NEITHER, None)],
)
def test_part(names, part):
    assert {name: part_of_name(name) for name in names.split()} == dict.fromkeys(
        names.split(), part
    )
