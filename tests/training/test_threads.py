import torch

from tuner.training.threads import count_useful_threads, pays


def test_threads_that_gain_nothing_most_of_the_time_do_not_pay() -> None:
    assert pays([1.3, 1.3, 0.0], [1.0, 1.0, 1.0])
    assert not pays([1.05, 1.05, 1.05], [1.0, 1.0, 1.0])
    assert not pays([1.9, 0.1, 0.1], [1.0, 1.0, 1.0])


def test_measuring_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert count_useful_threads() in (1, 3)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        assert count_useful_threads() == 1
    finally:
        torch.set_num_threads(before)
