"""What of a generated text is the answer; how a line of predictions is scored is in tests/eval."""

import pytest

from launch.prediction import before


@pytest.mark.parametrize(
    ("stop", "answer"),
    [
        ((), "No effusion. END Next: 结束"),
        (("END",), "No effusion. "),
        (("Next", "END", "结束"), "No effusion. "),
        (("结束",), "No effusion. END Next: "),
        (("end", "nothing"), "No effusion. END Next: 结束"),
        (("No",), ""),
    ],
)
def test_an_answer_goes_up_to_the_first_of_the_strings_that_end_it(stop, answer):
    assert before("No effusion. END Next: 结束", stop) == answer
