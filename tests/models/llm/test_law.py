"""Which candidates are of a series that the history holds."""

import numpy as np

from models.llm.law import in_series, series_table
from models.llm.loading import load_tokenizer
from models.prompts.titles import TitleTokens


def test_two_tokens_make_a_series() -> None:
    """One shared token is not enough, neither is the second alone, and more than two do no harm."""
    history = [[1, 2, 3], [7, 8]]
    candidates = [[1, 2], [1, 2, 9], [1, 3, 2], [4, 2, 3], [7, 8, 1], [2, 1]]
    np.testing.assert_array_equal(in_series(history, candidates), [1, 1, 0, 0, 1, 0])


def test_a_title_of_one_token_ends_there() -> None:
    """It is of a series with itself, not with longer titles; without a history nothing is."""
    np.testing.assert_array_equal(in_series([[5]], [[5], [5, 6]]), [1, 0])
    np.testing.assert_array_equal(in_series([[5, 6]], [[5]]), [0])
    np.testing.assert_array_equal(in_series([], [[5], []]), [0, 0])


def test_a_table_of_a_catalogue() -> None:
    """Sequels of what the history holds are marked, whatever the row."""
    names = ["", "Star Wars", "Star Wars: A New Hope", "Alien", "Star Trek"]
    titles = TitleTokens(load_tokenizer("embedded"), names, 16)
    table = series_table(titles, [np.array([1, 3]), np.array([], dtype=np.int64)], np.array([[2, 4], [2, 4]]))
    np.testing.assert_array_equal(table, [[1, 0], [0, 0]])
