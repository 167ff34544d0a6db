from malpighi.pipeline.reporting import compared


def test_each_model_is_compared_with_the_next_and_the_last_with_first_and_classifier():
    assert compared(["a", "b", "c"]) == [("a", "b"), ("b", "c"), ("a", "c"), ("cnn", "c")]
    assert compared(["a", "b"]) == [("a", "b"), ("cnn", "b")]
    assert compared([]) == []
