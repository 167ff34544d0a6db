from malpighi.pipeline.reporting import compared


def test_each_model_is_compared_with_the_next_and_the_last_with_first_and_classifier():
    pairs = compared(["a", "b", "c"], {"a", "b", "c", "cnn", "majority"})
    assert pairs == [("a", "b"), ("b", "c"), ("a", "c"), ("cnn", "c")]


def test_who_answered_nothing_is_compared_with_nobody():
    assert compared(["a", "b", "c"], {"a", "b", "c"}) == [("a", "b"), ("b", "c"), ("a", "c")]
    assert compared(["a", "b"], {"b", "cnn"}) == [("cnn", "b")]
