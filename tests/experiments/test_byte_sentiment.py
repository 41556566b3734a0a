"""Synthetic reviews."""

import re

import numpy as np
import pytest

from experiments import _byte_sentiment
from experiments._byte_sentiment import BLAME, PRAISE, byte_sentiment, letter_accuracy


def words(row):
    return bytes((row[row > 0] - 1).astype(np.uint8)).decode()


@pytest.fixture(scope="module")
def texts():
    """As many and as long as in the default preset of the text experiment."""
    return byte_sentiment(reviews=8000, test_reviews=1000, length=96)


def test_synthetic_reviews_have_the_label_of_their_verdicts():
    """Numpy loop: each clause is read again, with its negation."""
    texts = byte_sentiment(reviews=300, test_reviews=20, length=128, seed=3)
    for row, label in zip(texts.x_train, texts.y_train, strict=True):
        verdicts = []
        for clause in words(row).split(".")[:-1]:
            word = clause.split()[-1]
            assert (word in PRAISE) != (word in BLAME)
            verdicts.append((word in PRAISE) != (" not " in clause))
        assert len(verdicts) % 2 == 1
        assert label == (2 * sum(verdicts) > len(verdicts))
    assert "synthetic" in texts.name
    assert abs(texts.y_train.mean() - 0.5) < 4 * 0.5 / np.sqrt(300)
    assert re.fullmatch("[0-9a-f]{64}", texts.checksums[texts.name])


def test_no_review_is_drawn_twice(texts):
    """Closed form: all 9,000 are different, so none of the test part is in the training part."""
    train, test = ({words(row) for row in x} for x in (texts.x_train, texts.x_test))
    assert (len(train), len(test)) == (8000, 1000)
    assert not train & test
    small = byte_sentiment(reviews=64, test_reviews=40, length=32)
    assert len({words(row) for row in np.concatenate([small.x_train, small.x_test])}) == 104


def test_reviews_are_the_same_every_time(texts):
    """Equality: numpy keeps its streams of numbers, and the checksum says so."""
    again = byte_sentiment(reviews=8000, test_reviews=1000, length=96)
    np.testing.assert_array_equal(again.x_train, texts.x_train)
    assert again.checksums == texts.checksums
    few = byte_sentiment(reviews=2, test_reviews=1, length=64, seed=5)
    assert words(few.x_train[0]) == "the music got not lovely."
    assert list(few.checksums.values()) == [
        "e4e4f0e1998088b41255991564973082878d39eaf9971c5b05e4ef6a24be18a9"
    ]
    other = byte_sentiment(reviews=2, test_reviews=1, length=64, seed=6)
    assert list(other.checksums.values()) != list(few.checksums.values())


def test_length_tells_nothing(texts):
    """Closed form: words of praise and blame have the same lengths; means by class agree.

    Power: a difference of a tenth of the lengths' spread is seen.
    """
    assert sorted(map(len, PRAISE)) == sorted(map(len, BLAME))
    lengths = (texts.x_train > 0).sum(axis=1).astype(float)
    one, other = lengths[texts.y_train == 1], lengths[texts.y_train == 0]
    error = np.sqrt(one.var() / len(one) + other.var() / len(other))
    assert error < 0.025 * lengths.std()
    assert abs(one.mean() - other.mean()) < 4 * error


def test_all_parts_have_one_law(texts):
    """Theorem: after a shuffle, shares of short reviews differ by chance only: 4 errors."""
    short = [(part == ord(".") + 1).sum(axis=1) == 1 for part in (texts.x_train, texts.x_test)]
    halves = (short[0][:4000], short[0][4000:], short[1])
    for one, other in ((halves[0], halves[1]), (halves[1], halves[2])):
        error = np.sqrt(one.var() / len(one) + other.var() / len(other))
        assert error < 0.02
        assert abs(one.mean() - other.mean()) < 4 * error


def test_the_baseline_is_what_is_said(texts):
    """Closed form: the share of right answers that the module states, within 3 standard errors."""
    (stated,) = re.findall(r"some (\d+) % of the reviews", _byte_sentiment.__doc__)
    assert abs(letter_accuracy(texts) - int(stated) / 100) < 3 * 0.5 / np.sqrt(1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 30}, "length must be an integer >= 31, got 30"),
        (
            {"reviews": 4096, "length": 32},
            "must be at most 4096 together, got 4097: .* length to 95",
        ),
        ({"test_reviews": 0}, "test_reviews must be an integer >= 1, got 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    """House rule: one sentence with a way out."""
    with pytest.raises(ValueError, match=message):
        byte_sentiment(**{"reviews": 1, "test_reviews": 1, "length": 64, **options})
