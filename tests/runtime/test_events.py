from reslab.runtime.events import Event, bad_image, counter, progress, start


def test_a_counter_reports_every_item_and_why_one_is_bad() -> None:
    events: list[Event] = []
    on_item = counter(2, "images", events.append)
    on_item(None)
    on_item("a.jpg: the file is empty; left out")
    assert events == [
        start(2, "images"), progress(1), bad_image("a.jpg: the file is empty"), progress(2),
    ]  # fmt: skip
